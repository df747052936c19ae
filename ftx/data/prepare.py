"""From a source to rows on disk: prepared once for each fingerprint, whoever needs it next maps it."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ftx.config.evaluation_checks import held_out_tasks
from ftx.config.schema import RunConfig
from ftx.data import cache
from ftx.data.conversation_store import ConversationStore
from ftx.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ftx.data.cost import Cost
    from ftx.data.store import RowStore
    from ftx.templates import Template

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What became of the source: nothing is left out without being counted."""

    train_conversations: int
    evaluation_conversations: int
    train_rows: int
    train_tokens: int
    train_supervised_tokens: int
    skipped_rows: int
    dropped_too_long: int
    truncated: int
    filtered_out: int = 0
    dropped_unsupervised: int = 0
    split: int = 0
    cut_tokens: int = 0
    lost_reasoning: int = 0
    refused: int = 0
    not_drawn: int = 0

    def describe(self) -> str:
        """In one line."""
        left_out = self.skipped_rows + self.filtered_out + self.refused
        left_out += self.dropped_too_long + self.dropped_unsupervised
        return (
            f"data: {self.train_conversations:,} conversations to train on ({self.train_tokens:,} tokens, "
            f"{self.train_supervised_tokens:,} supervised, {self.train_rows:,} rows), "
            f"{self.evaluation_conversations:,} held out, {left_out:,} left out, {self.truncated:,} truncated"
            + (f", {self.not_drawn:,} not drawn" if self.not_drawn else "")
        )


@dataclass(frozen=True)
class Prepared:
    """Rows to train on and to evaluate on, the conversations themselves, and what renders and reads them.

    With ``data.packing_scope=global_batch`` each training row is one conversation, packed only when its step is known.
    """

    train: "RowStore"
    evaluation: "RowStore"
    train_conversations: ConversationStore
    held_out: ConversationStore
    tokenizer: "PreTrainedTokenizerFast"
    template: "Template"
    counts: Counts
    cost: "Cost"
    folder: Path


def prepare(run: RunConfig) -> Prepared:
    """The run's data, from the cache where it is there, else built once under a lock."""
    from ftx.data.model_parts import cost_for, load_tokenizer

    folder, built_with = _on_disk(run)
    prepared = _open(folder, built_with or load_tokenizer(run, folder), cost_for(run))
    asking = held_out_tasks(run)
    if asking and not len(prepared.held_out):
        counts = prepared.counts
        raise UserError(
            f"evaluation.tasks=[{', '.join(asking)}]: no conversation is left to score on, "
            f"{counts.dropped_too_long + counts.dropped_unsupervised} were too long; raise data.max_length or say "
            "evaluation.tasks=[]"
        )
    return prepared


def prepare_on_disk(run: RunConfig) -> Path:
    """The folder of the run's prepared data, built where it is not there; what is there is not even opened."""
    return _on_disk(run)[0]


def read_counts(folder: Path) -> Counts:
    """Of a prepared set."""
    return Counts(**json.loads((folder / "counts.json").read_text(encoding="utf-8")))


def _on_disk(run: RunConfig) -> "tuple[Path, PreTrainedTokenizerFast | None]":
    """The folder, and the tokenizer where one was loaded to build it."""
    folder = cache.prepared_folder(run)
    tokenizer = None
    with cache.build(folder, lambda: cache.is_complete(folder)) as writing:
        if writing is not None:
            from ftx.data.build import build_prepared

            tokenizer = build_prepared(run, writing)
    cache.mark_used(folder)
    return folder, tokenizer


def _open(folder: Path, tokenizer: "PreTrainedTokenizerFast", cost: "Cost") -> Prepared:
    from ftx.data.store import RowStore, TokenStore
    from ftx.templates import Template

    template = Template(**json.loads((folder / "template.json").read_text(encoding="utf-8")))
    tokenizer.chat_template = template.text
    tokens = TokenStore(folder / "tokens.arrow")
    conversations = ConversationStore(cache.conversations_of(folder) / "conversations.arrow")
    return Prepared(
        RowStore.open(tokens, folder / "train.arrow"),
        RowStore.open(tokens, folder / "evaluation.arrow"),
        conversations.choose(np.load(folder / "train_conversations.npy", mmap_mode="r")),
        conversations.choose(np.load(folder / "held_out.npy", mmap_mode="r")),
        tokenizer,
        template,
        read_counts(folder),
        cost,
        folder,
    )
