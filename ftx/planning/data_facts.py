"""How much data a run learns from, as far as that can be told without reading all of it."""

from dataclasses import dataclass

from ftx.config.schema import RunConfig
from ftx.data import cache
from ftx.data.prepare import read_counts
from ftx.data.sources import is_file, sources_of
from ftx.errors import UserError

# How full packed rows get, of long conversations; of short ones fuller.
PACKED = 0.97


@dataclass(frozen=True)
class DataSize:
    """Of one epoch. ``tokens`` are at most so many where ``at_most``; ``source`` says who knows."""

    conversations: int
    rows: int
    tokens: int
    supervised: int
    source: str
    at_most: bool = False


def data_size(run: RunConfig) -> DataSize | None:
    """As counted when it was prepared, else as the choice of data knows; None where nobody does."""
    return _prepared(run) or _known(run)


def _prepared(run: RunConfig) -> DataSize | None:
    if any(not is_file(source) for source in sources_of(run.data).values()):
        return None  # to ask the hub for the commit takes its time, and a network
    try:
        folder = cache.prepared_folder(run)
    except (UserError, OSError):
        return None
    if not cache.is_complete(folder):
        return None
    counts = read_counts(folder)
    return DataSize(
        counts.train_conversations,
        counts.train_rows,
        counts.train_tokens,
        counts.train_supervised_tokens,
        "as prepared",
    )


def _known(run: RunConfig) -> DataSize | None:
    data = run.data
    conversations, tokens = data.size.conversations, data.size.tokens
    if conversations is None:
        return None
    share = 1 - data.holdout if 0 < data.holdout < 1 and not (data.holdout_path or data.holdout_split) else 1.0
    left = min(round(conversations * share), data.limit or conversations)
    at_most = tokens is None
    held = left * data.max_length if tokens is None else round(tokens * left / conversations)
    if held > left * data.max_length:
        held, at_most = left * data.max_length, True
    together = data.packing and data.packing_scope == "dataset"
    rows = min(-(-held // round(data.max_length * PACKED)), left) if together and not at_most else left
    return DataSize(left, rows, held, held, "as published", at_most)
