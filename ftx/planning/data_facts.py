"""How much data a run learns from, as far as that can be told without reading all of it."""

from dataclasses import dataclass
from pathlib import Path

from ftx.config.data_checks import has_held_out_source
from ftx.config.schema import DataSizeConfig, RunConfig
from ftx.data import cache
from ftx.data.file_checks import check_is_file
from ftx.data.hub_names import UnknownCommit, asking_nobody
from ftx.data.prepare import read_counts
from ftx.data.sources import held_out_source, is_file, sources_of, word_of
from ftx.errors import UserError

# How full packed rows get, of long conversations; of short ones fuller.
PACKED = 0.97
# Who knows the sizes in conf/data; what somebody else says is as said.
WHO_SAYS = {
    DataSizeConfig(51_389, 200_000_000): "as published",
    DataSizeConfig(939_344): "as published",
    DataSizeConfig(120_000, 12_000_000): "count as published, tokens estimated from 2,000 of them",
    DataSizeConfig(113_000, 64_000_000): "count as published, tokens estimated from 300 of them",
    DataSizeConfig(15_692, 9_300_000): "the sets' own counts, tokens estimated from 500 of them",
}


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
    """As counted when it was prepared, else as the choice of data knows; None where nobody does.

    Raises UserError for a file that is not there.
    """
    _check_files(run)
    return _prepared(run) or _known(run)


def _check_files(run: RunConfig) -> None:
    named = [(word_of(name), source) for name, source in sources_of(run.data).items()]
    if (held_out := held_out_source(run.data)) is not None:
        named.append(("data.holdout_path", held_out))
    for word, source in named:
        if is_file(source):
            try:
                check_is_file(Path(source.path))
            except UserError as error:
                raise UserError(word + str(error).removeprefix("data.path")) from error


def _prepared(run: RunConfig) -> DataSize | None:
    """Of data and models on the hub, what was prepared at the commits that are known here: the hub is not asked."""
    try:
        with asking_nobody():
            folder = cache.prepared_folder(run)
    except (UnknownCommit, OSError):
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
    left = min(_without_held_out(run, conversations), data.limit or conversations)
    at_most = tokens is None
    held = left * data.max_length if tokens is None else round(tokens * left / conversations)
    if held > left * data.max_length:
        held, at_most = left * data.max_length, True
    together = data.packing and data.packing_scope == "dataset"
    rows = min(-(-held // round(data.max_length * PACKED)), left) if together and not at_most else left
    return DataSize(left, rows, held, held, WHO_SAYS.get(data.size, "as data.size says"), at_most)


def _without_held_out(run: RunConfig, conversations: int) -> int:
    """Below 1 data.holdout is a share, from 1 on a number of conversations."""
    aside = run.data.holdout
    if has_held_out_source(run):
        return conversations
    if aside >= conversations:
        raise UserError(f"data.holdout={aside:g}: there are {conversations:,} conversations; keep fewer aside")
    return conversations - int(aside) if aside >= 1 else round(conversations * (1 - aside))
