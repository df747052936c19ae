"""Where conversations come from, by ``data.source``: one after another, in memory that does not grow with them."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftx.config.data_checks import COLUMN_ORDER, PLAIN_ORDERS
from ftx.config.schema import DataConfig, RunConfig, SourceConfig
from ftx.data import stdlib_docs
from ftx.data.conversation import Conversation
from ftx.data.files import read_rows
from ftx.data.filters import filter_columns, parse_filter
from ftx.data.formats import FORMAT_COLUMNS, to_conversation
from ftx.data.hooks import ORDERS, TRANSFORMS, load_hook
from ftx.data.hub import Columns, HubSplit, read_hub_rows
from ftx.data.hub_names import hub_commit
from ftx.data.rows import BadRow, Row
from ftx.errors import UserError

OnPosition = Callable[[int], None]


@dataclass(frozen=True)
class Skipped:
    """A bad row that ``data.on_bad_row=skip`` leaves out, and why."""

    reason: str


@dataclass(frozen=True)
class FilteredOut:
    """A row that ``data.filter`` or a transform of the user's leaves out."""


Read = Conversation | Skipped | FilteredOut


def is_file(source: SourceConfig) -> bool:
    """Whether a source is a file here, whose path a composed run has absolute; else it is on the hub."""
    return Path(source.path).is_absolute()


def sources_of(data: DataConfig) -> dict[str, SourceConfig]:
    """The sources that conversations are read from, by name; a single one has an empty name."""
    if data.source == "mixture":
        return dict(data.sources)
    if data.source == "stdlib_docs":
        return {}
    return {"": _single(data, str(data.path), data.split)}


def held_out_source(data: DataConfig) -> SourceConfig | None:
    """Where the conversations for evaluation come from, if not from among the others."""
    if data.holdout_path is None and data.holdout_split is None:
        return None
    return _single(data, data.holdout_path or str(data.path), data.holdout_split or data.split)


def read_stdlib(run: RunConfig) -> tuple[list[Conversation], list[Conversation]]:
    """Training and held-out conversations of ``data=stdlib_docs``, in seeded order."""
    train, held_out = stdlib_docs.conversations(stdlib_docs.scan(), seed=run.seed, holdout=run.data.holdout)
    random.Random(run.seed).shuffle(train)
    return train, held_out


def read_source(
    name: str, source: SourceConfig, data: DataConfig, *, cache: Path, on_position: OnPosition | None = None
) -> Iterator[Read]:
    """Every row of a source, as a conversation or as what became of it instead.

    Raises UserError for a bad row that is not to be skipped. ``on_position`` hears how many bytes of a file are read.
    """
    with _mistakes_of(name):
        where, rows = _rows(name, source, data, cache, on_position)
        holds = parse_filter(source.filter)
        transforms = [load_hook(TRANSFORMS, "data.transforms", hook) for hook in data.transforms]
        rank = _ranking(data.order)
        for row in rows:
            try:
                if isinstance(row, BadRow):
                    raise row
                versions = _versions(row, holds, transforms, where)
                for version, number in versions:
                    conversation = to_conversation(version, where, source.format, data.group_by)
                    yield _placed(conversation, number, len(versions), rank, version, where)
                if not versions:
                    yield FilteredOut()
            except BadRow as bad:
                if data.on_bad_row == "error":
                    raise UserError(f"{bad}; mend it, or skip such rows with data.on_bad_row=skip") from bad
                yield Skipped(str(bad))


def hub_split(source: SourceConfig, word: str, cache: Path) -> HubSplit:
    """The split of a data set on the hub that a source names, at the commit of its revision."""
    commit = hub_commit(source.path, source.revision, kind="dataset", word=word, cache=cache)
    return HubSplit(source.path, source.subset, source.split, commit)


def word_of(name: str) -> str:
    """How the path of a source is called in messages."""
    return f"data.sources.{name}.path" if name else "data.path"


def _single(data: DataConfig, path: str, split: str) -> SourceConfig:
    return SourceConfig(
        path=path,
        subset=data.subset,
        split=split,
        revision=data.revision,
        columns=list(data.columns),
        format=data.format,
        filter=list(data.filter),
    )


def _rows(
    name: str, source: SourceConfig, data: DataConfig, cache: Path, on_position: OnPosition | None
) -> tuple[Path | str, Iterator[Row | BadRow]]:
    if is_file(source):
        path = Path(source.path)
        return path, read_rows(path, columns=source.columns or None, on_position=on_position)
    split = hub_split(source, word_of(name), cache)
    return f"{split.name}/{split.split}", read_hub_rows(split, _needed_columns(source, data))


def _needed_columns(source: SourceConfig, data: DataConfig) -> Columns | None:
    """The columns of a hub data set that this run looks at; None for all, where a function might look at any."""
    of_format = FORMAT_COLUMNS.get(source.format)
    if not source.columns and (data.transforms or not of_format):
        return None
    needed = [*source.columns, *filter_columns(source.filter), *([data.group_by] if data.group_by else [])]
    if data.order.startswith(COLUMN_ORDER):
        needed.append(data.order.removeprefix(COLUMN_ORDER).removeprefix("-"))
    return Columns(tuple(needed), () if source.columns else of_format or ())


def _versions(
    row: Row, holds: Callable[[dict[str, Any]], bool], transforms: Sequence[Callable[..., Any]], where: Path | str
) -> list[tuple[Row, int]]:
    """The row as filter and transforms leave it, numbered: none, one, or several of them."""
    values = [row.value]
    try:
        if not holds(row.value):
            return []
        for transform in transforms:
            values = [changed for value in values for changed in _as_rows(transform(dict(value)))]
    except ValueError as error:
        raise BadRow(where, row.number, str(error)) from None
    return [(Row(row.number, value), number) for number, value in enumerate(values)]


def _as_rows(changed: Any) -> list[dict[str, Any]]:
    """A transform gives a row, a list of rows, or None to leave the row out."""
    rows = [] if changed is None else changed if isinstance(changed, list) else [changed]
    if not all(isinstance(row, dict) for row in rows):
        raise UserError("data.transforms: a transform must give a row (a dict), a list of rows, or None")
    return rows


def _ranking(order: str) -> Callable[[Conversation, dict[str, Any]], float] | None:
    """A conversation's place in the curriculum that ``data.order`` asks for; None where it looks at no row."""
    if order in PLAIN_ORDERS:
        return None
    if not order.startswith(COLUMN_ORDER):
        function = load_hook(ORDERS, "data.order", order)
        return lambda conversation, row: float(function(conversation, row))
    column = order.removeprefix(COLUMN_ORDER)
    sign, column = (-1.0, column[1:]) if column.startswith("-") else (1.0, column)

    def rank(_: Conversation, row: dict[str, Any]) -> float:
        if row.get(column) is None:
            raise ValueError(f"has no {column}, which data.order asks for")
        try:
            return sign * float(row[column])
        except (TypeError, ValueError):
            raise ValueError(f"{column} is {row[column]!r}, no number to order by") from None

    return rank


def _placed(
    conversation: Conversation,
    number: int,
    versions: int,
    rank: Callable[[Conversation, dict[str, Any]], float] | None,
    row: Row,
    where: Path | str,
) -> Conversation:
    """With its rank; versions of one row get ids of their own and stay on one side of the held-out split."""
    if versions > 1:
        group = conversation.group or conversation.id
        conversation = replace(conversation, id=f"{conversation.id}.{number + 1}", group=group)
    if rank is None:
        return conversation
    try:
        return replace(conversation, rank=rank(conversation, row.value))
    except ValueError as error:
        raise BadRow(where, row.number, str(error)) from None


@contextmanager
def _mistakes_of(name: str) -> Iterator[None]:
    """Within it a mistake in a source's file is told of that source's own key."""
    try:
        yield
    except UserError as error:
        if not name or not str(error).startswith("data.path"):
            raise
        raise UserError(word_of(name) + str(error).removeprefix("data.path")) from error
