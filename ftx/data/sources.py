"""Where conversations come from, by ``data.source``."""

import random
from dataclasses import dataclass
from pathlib import Path

from ftx.config.schema import RunConfig
from ftx.data import stdlib_docs
from ftx.data.conversation import Conversation
from ftx.data.files import read_rows
from ftx.data.formats import to_conversation
from ftx.data.rows import BadRow
from ftx.data.split import split
from ftx.errors import UserError


@dataclass(frozen=True)
class Loaded:
    """Both sides of a source, and the reason for each row that was skipped."""

    train: list[Conversation]
    held_out: list[Conversation]
    skipped: list[str]


def load_conversations(run: RunConfig) -> Loaded:
    """Read the source, keep some aside, apply ``data.limit``; raises UserError for a bad row not to be skipped."""
    skipped: list[str] = []
    if run.data.source == "stdlib_docs":
        train, held_out = stdlib_docs.conversations(stdlib_docs.scan(), seed=run.seed, holdout=run.data.holdout)
        random.Random(run.seed).shuffle(train)
    else:
        conversations = _read_file(run, skipped)
        train, held_out = split(conversations, holdout=run.data.holdout, seed=run.seed)
    if run.data.holdout and run.evaluation.tasks and not held_out:
        raise UserError("data.holdout: too little data to keep any aside; say evaluation.tasks=[] data.holdout=0")
    return Loaded(train[: run.data.limit], held_out, skipped)


def _read_file(run: RunConfig, skipped: list[str]) -> list[Conversation]:
    path = Path(str(run.data.path))
    conversations = []
    for row in read_rows(path, columns=run.data.columns or None):
        try:
            if isinstance(row, BadRow):
                raise row
            conversations.append(to_conversation(row, path, run.data.format, run.data.group_by))
        except BadRow as bad:
            if run.data.on_bad_row == "error":
                raise UserError(f"{bad}; mend it, or skip such rows with data.on_bad_row=skip") from bad
            skipped.append(str(bad))
    if not conversations:
        raise UserError(f"data.path={path}: not one usable row; the first was refused with: {skipped[0]}")
    return conversations
