"""What both models are asked in a check: conversations of the run's, held out where some are, cut as in training."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from ftx.config.schema import RunConfig
from ftx.data import cache
from ftx.data.conversation import Conversation
from ftx.data.conversation_store import ConversationStore
from ftx.data.fingerprint import data_fingerprint
from ftx.data.prepare import prepare_on_disk
from ftx.data.tokenize import tokenize, tokenize_prompts
from ftx.errors import UserError
from ftx.exports.apart import WAY_OUT
from ftx.exports.base import saved_tokenizer
from ftx.run_folder import RunFolder
from ftx.templates import Template

# Tokens of each prompt that logits are compared over, and of one long text, whose last ones they are compared after.
LONGEST, LONG, LAST = 256, 4096, 128
SAMPLES, RENDERED = 3, 20


@dataclass(frozen=True)
class Samples:
    """``chosen`` are those whose answers are shown; ``tokens`` of these, and last a long text if it is any longer."""

    conversations: list[Conversation]
    chosen: list[Conversation]
    tokens: list[list[int]]
    prompts: list[list[int]]
    long: int
    """Tokens of the long text; 0 where there is none."""

    @property
    def questions(self) -> Iterator[tuple[list[int], int]]:
        """Tokens, and how many of the last of them logits are compared after."""
        for at, one in enumerate(self.tokens):
            is_long = self.long and at == len(self.tokens) - 1
            yield one, LAST if is_long else len(one)


def choose_samples(
    folder: RunFolder, run: RunConfig, tokenizer: PreTrainedTokenizerFast, template: Template, model_limit: int
) -> Samples:
    """``model_limit``: tokens that the model is made for. Raises UserError where there are no conversations."""
    conversations = conversations_of(folder, run)
    chosen = conversations[:SAMPLES]
    whole = [one.input_ids.tolist() for one in tokenize(conversations, tokenizer, template)]
    tokens = [one[:LONGEST] for one in whole[:SAMPLES]]
    long = list(islice(cycle([token for one in whole for token in one]), min(LONG, model_limit)))
    prompts = [one[-LONGEST:] for one in tokenize_prompts(chosen, tokenizer, template)]
    is_longer = len(long) > max(map(len, tokens))
    return Samples(conversations, chosen, [*tokens, *([long] if is_longer else [])], prompts, len(long) * is_longer)


def conversations_of(folder: RunFolder, run: RunConfig) -> list[Conversation]:
    """Held-out ones, or where none are, those trained on; raises UserError as ``prepared_set`` does."""
    prepared = prepared_set(folder, run)
    store = ConversationStore(cache.conversations_of(prepared) / "conversations.arrow")
    for name in ("held_out", "train_conversations"):
        source: Sequence[Conversation] = store.choose(np.load(prepared / f"{name}.npy", mmap_mode="r"))
        if len(source):
            break
    return [source[at] for at in range(min(RENDERED, len(source)))]


def prepared_set(folder: RunFolder, run: RunConfig) -> Path:
    """What the run was trained on, from the cache, wherever its source is now; prepared anew where that is unchanged.

    Raises UserError where it is neither there nor can be made again.
    """
    trained_on = folder.read_provenance().get("data_fingerprint")
    known = _in_cache(folder, run, trained_on) if trained_on else None
    if known is not None:
        return known
    try:
        there = data_fingerprint(run)
    except (OSError, UserError) as error:
        raise UserError(
            f"data.path={run.data.path}: cannot be read ({str(error).splitlines()[0]}), nor is it in the cache any "
            f"more, and the check of an export asks what {folder.name} was trained on; put it back, or {WAY_OUT}"
        ) from error
    if trained_on and there != trained_on:
        raise UserError(
            f"data.path={run.data.path}: is not what {folder.name} was trained on any more, and the check of an export "
            f"asks that; put it back, or {WAY_OUT}"
        )
    return prepare_on_disk(run)


def _in_cache(folder: RunFolder, run: RunConfig, trained_on: str) -> Path | None:
    """The very set, or where templates/ is another one by now, one of the same conversations by the run's template."""
    try:
        exactly = cache.prepared_folder(run, trained_on)
    except (OSError, UserError):
        # The model is not there: whoever loads it says so.
        exactly = None
    if exactly is not None and cache.is_complete(exactly):
        return exactly
    conversations = cache.gathered_folder(run, trained_on)
    template = saved_tokenizer(folder.model).chat_template
    alike = [
        one
        for one in (conversations.parent.parent / cache.PREPARED).glob("*/")
        if cache.is_complete(one) and cache.conversations_of(one) == conversations and _template_of(one) == template
    ]
    return max(alike, key=lambda one: one.stat().st_mtime, default=None)


def _template_of(prepared: Path) -> str:
    text: str = json.loads((prepared / "template.json").read_text(encoding="utf-8"))["text"]
    return text
