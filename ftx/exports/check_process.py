"""``python -m ftx.exports.check_process RUN_FOLDER EXPORT MADE RESULT PID``: compare what was made with what was
trained, and write what is found."""

import gc
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from ftx.config.schema import RunConfig
from ftx.data.conversation import Conversation
from ftx.data.fingerprint import model_fingerprint
from ftx.data.render import before_the_answer
from ftx.data.tokenize import end_of_answer
from ftx.errors import UserError
from ftx.exports.apart import answer_apart
from ftx.exports.base import saved_tokenizer
from ftx.exports.check_memory import computing_type
from ftx.exports.check_samples import LONGEST, Samples, choose_samples
from ftx.exports.comparison import Findings, Sample, compare_logits
from ftx.exports.llama_cpp import LOOKALIKES
from ftx.exports.probes import TEXTS
from ftx.exports.sides import Gguf, Merged, Side, Trained, Untrained
from ftx.run_folder import RunFolder

# New tokens of an answer.
ANSWER = 48
# As many of what differs as are named.
NAMED = 3


@dataclass(frozen=True)
class Told:
    """What the trained model said, for when it is no longer in memory. Texts and tokens by conversation."""

    samples: Samples
    before: list[Conversation]
    """The conversations up to their answers."""
    logits: list[np.ndarray]
    of_base: list[np.ndarray]
    """Empty where only the starting weights can say it."""
    unrounded: list[np.ndarray]
    answers: list[list[int]]
    texts: list[tuple[str, str]]
    """Of each conversation: whole, and before an answer to it."""
    questions: list[str]
    chats: dict[str, str]
    tokens: dict[str, list[int]]
    """Of texts, spelled as they are compared."""
    changed: int
    """How many of these are otherwise than they were."""
    stop: list[int]
    ends: set[int]
    special: dict[str, str | None]
    controls: set[int]


def check(folder: RunFolder, export: str, made: Path) -> Findings:
    """``export``: as exports.json calls it."""
    run, is_gguf = folder.read_run(), export.startswith("gguf")
    tokenizer, dtype = saved_tokenizer(folder.model), computing_type(run)
    spelled: Callable[[str], str] = partial(normalized, tokenizer) if is_gguf else str
    told = _ask_trained(folder, run, tokenizer, dtype, spelled)
    gc.collect()
    if not told.of_base:
        told = replace(told, of_base=_of_starting_weights(folder, run, tokenizer, told.samples, dtype))
    context = max(told.samples.long, LONGEST + ANSWER)
    exported: Side = Gguf(made, context=context) if is_gguf else Merged(made, dtype)
    found = _compare(told, exported, tokenizer, LOOKALIKES if is_gguf else frozenset(), spelled)
    return replace(found, computed_in=str(dtype).removeprefix("torch."))


def _ask_trained(
    folder: RunFolder,
    run: RunConfig,
    tokenizer: PreTrainedTokenizerFast,
    dtype: torch.dtype,
    spelled: Callable[[str], str],
) -> Told:
    """In this order: once the adapter is merged, there is no base to ask, and no adapter to ask apart."""
    trained = Trained(folder, run, tokenizer, dtype)
    samples = choose_samples(folder, run, tokenizer, trained.template, trained.model_limit)
    stop = end_of_answer(tokenizer)
    of_base = [trained.logits_of_base(one, last=last) for one, last in samples.questions] if trained.has_adapter else []
    # In 16 bits, the sums of a forward pass are off by as much as what rounding moves weights by.
    shows_rounding = trained.has_adapter and dtype == torch.float32
    unrounded = [trained.logits(one, last=last) for one, last in samples.questions] if shows_rounding else []
    answers = [trained.answer(one, most=ANSWER, stop=stop) for one in samples.prompts]
    trained.merge()
    texts = [(trained.render(one, question=False), trained.render(one, question=True)) for one in samples.conversations]
    before = list(map(before_the_answer, samples.conversations))
    compared = [*TEXTS, *(whole for whole, _ in texts)]
    return Told(
        samples=samples,
        before=before,
        logits=[trained.logits(one, last=last) for one, last in samples.questions],
        of_base=of_base,
        unrounded=unrounded,
        answers=answers,
        texts=texts,
        questions=[trained.render(one, question=True) for one in before],
        chats={one.id: trained.chat(one) for one in filter(is_plain, before)},
        tokens={spelled(text): trained.tokenize(spelled(text)) for text in compared},
        changed=sum(spelled(text) != text for text in compared),
        stop=stop,
        ends=trained.ends(),
        special=trained.special(),
        controls=trained.controls(),
    )


def _compare(
    told: Told,
    exported: Side,
    tokenizer: PreTrainedTokenizerFast,
    lookalikes: frozenset[str],
    spelled: Callable[[str], str],
) -> Findings:
    """``lookalikes``: ordinary tokens that the export's program is known to take for control tokens."""
    name: Callable[[int], str] = tokenizer.convert_ids_to_tokens  # type: ignore[assignment]
    decode: Callable[[Sequence[int]], str] = tokenizer.decode  # type: ignore[assignment]
    samples = told.samples
    answers = [exported.answer(one, most=ANSWER, stop=told.stop) for one in samples.prompts]
    taken = {str(name(one)) for one in exported.controls() - told.controls}
    looks = sorted(taken & lookalikes)
    tokens = {text: one for text, one in told.tokens.items() if not any(token in text for token in looks)}
    theirs = [exported.logits(one, last=last) for one, last in samples.questions]
    chats = {one.id: text for one in told.before if one.id in told.chats and (text := exported.chat(one)) is not None}
    return Findings(
        difference=compare_logits(told.logits, theirs, told.of_base or None, told.unrounded or None, samples.long),
        rendered=2 * len(told.texts) + len(chats),
        renderings=_other_renderings(told, exported, chats)[:NAMED],
        tokenized=len(tokens),
        taken_for_control=looks,
        normalized=told.changed,
        tokenizations=[repr(text[:60]) for text, known in tokens.items() if exported.tokenize(text) != known][:NAMED],
        special=[
            *_taken(sorted(taken - set(looks))),
            *_marks(told.special, exported.special()),
            *_ends(set(told.stop), told.ends, exported.ends(), name, lookalikes),
        ],
        prompts=_other_prompts(told, exported, tokenizer, looks, spelled)[:NAMED],
        samples=[
            Sample(one.id, decode(prompt), decode(ours), decode(other))
            for one, prompt, ours, other in zip(samples.chosen, samples.prompts, told.answers, answers, strict=True)
        ],
    )


def _other_renderings(told: Told, exported: Side, chats: Mapping[str, str]) -> list[str]:
    """Conversations that the export's template, or the engine of its program, renders otherwise."""
    wrong = []
    for one, text in zip(told.samples.conversations, told.texts, strict=True):
        if tuple(exported.render(one, question=question) for question in (False, True)) != text:
            wrong.append(one.id)
    return [*wrong, *(f"{name} (in its own chat)" for name, text in chats.items() if text != told.chats[name])]


def _other_prompts(
    told: Told,
    exported: Side,
    tokenizer: PreTrainedTokenizerFast,
    looks: Sequence[str],
    spelled: Callable[[str], str],
) -> list[str]:
    """Conversations whose question the export's program cuts into other tokens than training did."""
    return [
        one.id
        for one, text in zip(told.before, told.questions, strict=True)
        if not any(token in text for token in looks)
        and exported.prompt(spelled(_as_chatted(exported, one)))
        != tokenizer.encode(spelled(text), add_special_tokens=False)
    ]


def _of_starting_weights(
    folder: RunFolder, run: RunConfig, tokenizer: PreTrainedTokenizerFast, samples: Samples, dtype: torch.dtype
) -> list[np.ndarray]:
    """What a run without an adapter started from says; nothing where that is not there any more."""
    try:
        if (folder.read_provenance().get("model_fingerprint") or "") != model_fingerprint(run):
            return []
        base = Untrained(run, tokenizer, dtype)
    except (OSError, UserError):
        return []
    return [base.logits(one, last=last) for one, last in samples.questions]


def _as_chatted(exported: Side, question: Conversation) -> str:
    """As the program renders it itself, or where it brings tools into another form by its template."""
    own = exported.chat(question) if is_plain(question) else None
    return exported.render(question, question=True) if own is None else own


def _taken(tokens: Sequence[str]) -> list[str]:
    some = f" and {len(tokens) - NAMED:,} more" if len(tokens) > NAMED else ""
    named = ", ".join(map(repr, tokens[:NAMED]))
    return [f"it takes ordinary tokens for control tokens: {named}{some}"] if tokens else []


def _marks(ours: Mapping[str, str | None], theirs: Mapping[str, str | None]) -> list[str]:
    return [f"its {name} is {theirs[name]!r}, not {text!r}" for name, text in ours.items() if theirs[name] != text]


def _ends(
    needed: set[int], known: set[int], theirs: set[int], name: Callable[[int], str], looks: frozenset[str]
) -> list[str]:
    """An answer ends where it did in training; it may end where the base's do, and at what looks like an end."""
    lacking = [name(token) for token in sorted(needed - theirs)]
    strange = [text for token in sorted(theirs - known) if (text := name(token)) not in looks]
    return [
        *(f"it does not end an answer at {text!r}" for text in lacking[:NAMED]),
        *(f"it ends an answer at {text!r}" for text in strange[:NAMED]),
    ]


def is_plain(conversation: Conversation) -> bool:
    """Whether it is of texts alone: llama.cpp's server brings calls of tools into a form of its own."""
    return not conversation.tools and all(
        set(message) <= {"role", "content"} and isinstance(message.get("content"), str)
        for message in conversation.messages
    )


def normalized(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """As the tokenizer's normalizer leaves it, spelled with spaces: a text that it changes no further.

    Control tokens in a text are seen before the normalizer is.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    if normalizer is None:
        return text
    pieces = _around_added(tokenizer, text)
    return "".join(
        piece if is_added else normalizer.normalize_str(piece).removeprefix("▁").replace("▁", " ")
        for piece, is_added in pieces
    )


def _around_added(tokenizer: PreTrainedTokenizerFast, text: str) -> list[tuple[str, bool]]:
    added = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    if not added:
        return [(text, False)]
    pieces = re.split(f"({'|'.join(map(re.escape, added))})", text)
    return [(piece, bool(at % 2)) for at, piece in enumerate(pieces) if piece]


def main(folder: str, export: str, made: str) -> dict[str, Any]:
    """As JSON has it."""
    return check(RunFolder(Path(folder)), export, Path(made)).as_json()


if __name__ == "__main__":
    sys.exit(answer_apart(sys.argv[1:], main))
