"""``python -m ftx.exports.check_process RUN_FOLDER EXPORT MADE RESULT PID``: compare what was made with what was
trained.

A process of its own, so that nothing is left in it of the one that made it. What it finds it writes as JSON.
"""

import gc
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from ftx.data.conversation import Conversation
from ftx.data.prepare import Prepared, prepare
from ftx.data.render import before_the_answer
from ftx.data.tokenize import end_of_answer, tokenize, tokenize_prompts
from ftx.errors import ExitCode, UserError
from ftx.exports.comparison import Findings, Sample, compare_logits
from ftx.exports.probes import TEXTS
from ftx.exports.sides import Gguf, Merged, Side, Trained
from ftx.processes import die_with
from ftx.run_folder import RunFolder

# Tokens of each prompt that logits are compared over, and new ones of an answer.
LONGEST, ANSWER = 256, 48
SAMPLES, RENDERED = 3, 20
# As many of what differs as are named.
NAMED = 3


def check(folder: RunFolder, export: str, made: Path) -> Findings:
    """``export``: as exports.json calls it."""
    run = folder.read_run()
    prepared = prepare(run)
    conversations = _conversations(prepared)
    chosen = conversations[:SAMPLES]
    tokens = [one.input_ids.tolist()[:LONGEST] for one in tokenize(chosen, prepared.tokenizer, prepared.template)]
    prompts = [one[-LONGEST:] for one in tokenize_prompts(chosen, prepared.tokenizer, prepared.template)]
    stop = end_of_answer(prepared.tokenizer)
    trained = Trained(folder, run, prepared)
    expected = [trained.logits(one) for one in tokens]
    of_base = [trained.logits_of_base(one) for one in tokens] if export == "merge" and trained.has_adapter else None
    answers = [trained.answer(one, most=ANSWER, stop=stop) for one in prompts]
    texts = [trained.render(one, question=False) for one in conversations]
    asked = [trained.render(one, question=True) for one in conversations]
    chats = {one.id: (one, trained.chat(one)) for one in map(before_the_answer, filter(is_plain, conversations))}
    ids, changed = _tokens(trained, prepared.tokenizer, [*TEXTS, *texts], is_gguf=export.startswith("gguf"))
    known = trained.controls()
    del trained
    gc.collect()
    exported: Side = Gguf(made, context=LONGEST + ANSWER) if export.startswith("gguf") else Merged(made)
    theirs = [exported.answer(one, most=ANSWER, stop=stop) for one in prompts]
    taken = [str(prepared.tokenizer.convert_ids_to_tokens(one)) for one in sorted(exported.controls() - known)]
    ids = {text: one for text, one in ids.items() if not any(token in text for token in taken)}
    decode: Callable[[Sequence[int]], str] = prepared.tokenizer.decode  # type: ignore[assignment]
    return Findings(
        difference=compare_logits(expected, [exported.logits(one) for one in tokens], of_base),
        rendered=2 * len(conversations) + (len(chats) if export.startswith("gguf") else 0),
        renderings=[
            *(
                one.id
                for one, text, question in zip(conversations, texts, asked, strict=True)
                if (exported.render(one, question=False), exported.render(one, question=True)) != (text, question)
            ),
            *(f"{one.id} (in its own chat)" for one, text in chats.values() if exported.chat(one) not in (None, text)),
        ][:NAMED],
        tokenized=len(ids),
        taken_for_control=taken,
        normalized=changed,
        tokenizations=[repr(text[:60]) for text, known in ids.items() if exported.tokenize(text) != known][:NAMED],
        samples=[
            Sample(one.id, decode(prompt), decode(ours), decode(other))
            for one, prompt, ours, other in zip(chosen, prompts, answers, theirs, strict=True)
        ],
    )


def _conversations(prepared: Prepared) -> list[Conversation]:
    """Held-out ones, or where none are, those trained on."""
    source: Any = prepared.held_out if len(prepared.held_out) else prepared.train_conversations
    return [source[at] for at in range(min(RENDERED, len(source)))]


def is_plain(conversation: Conversation) -> bool:
    """Whether it is of texts alone: llama.cpp's server brings calls of tools into a form of its own."""
    return not conversation.tools and all(
        set(message) <= {"role", "content"} and isinstance(message.get("content"), str)
        for message in conversation.messages
    )


def _tokens(
    trained: Trained, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, is_gguf: bool
) -> tuple[dict[str, list[int]], int]:
    """Text → its tokens, and of how many texts the normalised form was taken."""
    taken = [normalized(tokenizer, text) if is_gguf else text for text in texts]
    changed = sum(one != other for one, other in zip(taken, texts, strict=True))
    return {text: trained.tokenize(text) for text in taken}, changed


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


def main(arguments: Sequence[str]) -> ExitCode:
    """Ends with the process that started it."""
    run_folder, name, made_at, result, parent = arguments
    die_with(int(parent))
    disable_progress_bar()
    try:
        found = check(RunFolder(Path(run_folder)), name, Path(made_at))
    except UserError as mistake:
        sys.stderr.write(f"{mistake}\n")
        return ExitCode.USER_MISTAKE
    Path(result).write_text(json.dumps(found.as_json(), ensure_ascii=False), encoding="utf-8")
    return ExitCode.FINISHED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
