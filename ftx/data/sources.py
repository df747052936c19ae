"""Where conversations come from, by ``data.source``: one after another, in memory that does not grow with them."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice, starmap
from pathlib import Path
from typing import Any

from ftx.config.data_checks import COLUMN_ORDER, ORDERS, PLAIN_ORDERS
from ftx.config.keys import did_you_mean
from ftx.config.made_up import is_made_up
from ftx.config.schema import DataConfig, RunConfig, SourceConfig
from ftx.data import stdlib_docs
from ftx.data.conversation import Conversation, Stored, to_stored
from ftx.data.files import read_rows
from ftx.data.filters import filter_columns, parse_filter
from ftx.data.formats import FORMAT_COLUMNS, to_conversation
from ftx.data.hooks import TRANSFORMS, load_hook
from ftx.data.hub import Columns, HubSplit, read_hub_rows
from ftx.data.hub_names import hub_commit
from ftx.data.made_up import made_up_rows
from ftx.data.rows import BadRow, Row
from ftx.data.workers import MANY_ROWS, Workers, processes_for
from ftx.errors import UserError

# Rows that are converted at once, and about how many bytes of a file at most.
CHUNK, CHUNK_BYTES = 256, 2**21

OnPosition = Callable[[int], None]


@dataclass
class Converted:
    """What became of some rows: conversations as they are stored, and what was left out."""

    conversations: list[Stored]
    filtered_out: int = 0
    # The reason for each bad row that data.on_bad_row=skip leaves out.
    skipped: tuple[str, ...] = ()


def is_file(source: SourceConfig) -> bool:
    """Whether a source is a file here, whose path a composed run has absolute; else it is on the hub, or made up."""
    return Path(source.path).is_absolute()


def sources_of(data: DataConfig) -> dict[str, SourceConfig]:
    """The sources that conversations are read from, by name; a single one has an empty name."""
    if data.source == "mixture":
        return dict(sorted(data.sources.items()))
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
    name: str,
    source: SourceConfig,
    data: DataConfig,
    *,
    cache: Path,
    on_position: OnPosition | None = None,
) -> Iterator[Converted]:
    """Every row of a source, converted some at a time, once there are many by several processes.

    Raises UserError for a bad row that is not to be skipped. ``on_position`` hears how many bytes of a file are read.
    """
    with _mistakes_of(name):
        position = _Position(on_position)
        where, rows = _rows(name, source, data, cache, position)
        chunks = _chunks(rows, position)
        if data.processes is None:
            yield from map(Converter(where, source, data), islice(chunks, MANY_ROWS // CHUNK))
        yield from _converted_by_several(chunks, processes_for(data, many=True), where, source, data)


class _Position:
    """How many bytes of a file have been read, for whoever wants to know."""

    def __init__(self, on_position: OnPosition | None) -> None:
        self.at, self._on_position = 0, on_position

    def __call__(self, at: int) -> None:
        self.at = at
        if self._on_position is not None:
            self._on_position(at)


def _chunks(rows: Iterator[Row | BadRow], position: _Position) -> Iterator[list[Row | BadRow]]:
    """Some rows at a time, fewer of them where they are long."""
    chunk: list[Row | BadRow] = []
    began = 0
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK or position.at - began > CHUNK_BYTES:
            yield chunk
            chunk, began = [], position.at
    if chunk:
        yield chunk


def _converted_by_several(
    chunks: Iterator[list[Row | BadRow]], processes: int, where: Path | str, source: SourceConfig, data: DataConfig
) -> Iterator[Converted]:
    first = next(chunks, None)
    if first is None:
        return
    remaining = chain([first], chunks)
    if processes == 1:
        yield from map(Converter(where, source, data), remaining)
        return
    with Workers(processes, Converter, where, source, data) as workers:
        yield from workers.map(remaining)


def check_first_row(name: str, source: SourceConfig, data: DataConfig, *, cache: Path) -> None:
    """Raises UserError for a file that cannot be read, and for a bad first row that is not to be skipped."""
    with _mistakes_of(name):
        where, rows = _rows(name, source, data, cache, None)
        try:
            Converter(where, source, data)(list(islice(rows, 1)))
        except BadRow as bad:
            raise UserError(f"{word_of(name)}: {_how_to_mend(bad)}") from bad


class Converter:
    """Rows into conversations: filter, transforms, format, and the place in a curriculum."""

    def __init__(self, where: Path | str, source: SourceConfig, data: DataConfig) -> None:
        self._where, self._source, self._data = where, source, data
        self._holds = parse_filter(source.filter)
        self._transforms = [load_hook(TRANSFORMS, "data.transforms", hook) for hook in data.transforms]
        self._rank = _ranking(data.order)

    def __call__(self, rows: Sequence[Row | BadRow]) -> Converted:
        """Raises BadRow for one that is not to be skipped."""
        converted = Converted([])
        for row in rows:
            try:
                if isinstance(row, BadRow):
                    raise row
                versions = self._versions(row)
                converted.conversations += [to_stored(one) for one in self._conversations(row.number, versions)]
                converted.filtered_out += not versions
            except BadRow as bad:
                if self._data.on_bad_row == "error":
                    raise
                converted.skipped = (*converted.skipped, str(bad))
        return converted

    def _versions(self, row: Row) -> list[dict[str, Any]]:
        """The row as filter and transforms leave it: none, one, or several of it."""
        values = [row.value]
        try:
            if not self._holds(row.value):
                return []
        except ValueError as error:
            raise BadRow(self._where, row.number, str(error)) from None
        for name, transform in zip(self._data.transforms, self._transforms, strict=True):
            try:
                values = [changed for value in values for changed in _as_rows(transform(dict(value)))]
            except Exception as error:
                reason = f"data.transforms={name} raised {type(error).__name__}: {error}"
                raise BadRow(self._where, row.number, reason) from error
        return values

    def _conversations(self, number: int, versions: Sequence[dict[str, Any]]) -> Iterator[Conversation]:
        """With their ranks; versions of one row get ids of their own and stay on one side of the held-out split."""
        for version, value in enumerate(versions, 1):
            one = to_conversation(Row(number, value), self._where, self._source.format, self._data.group_by)
            if len(versions) > 1:
                one = replace(one, id=f"{one.id}.{version}", group=one.group or one.id)
            if self._rank is not None:
                try:
                    one = replace(one, rank=self._rank(one, value))
                except ValueError as error:
                    raise BadRow(self._where, number, str(error)) from None
            yield one


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
    if is_made_up(source.path):
        return f"{source.path}/{source.split}", starmap(Row, enumerate(made_up_rows(source), 1))
    split = hub_split(source, word_of(name), cache)
    return f"{split.name}/{split.split}", read_hub_rows(split, _needed_columns(source, data))


def _needed_columns(source: SourceConfig, data: DataConfig) -> Columns | None:
    """The columns of a hub data set that this run looks at; None for all, where a function might look at any."""
    if data.transforms and not source.columns:
        return None
    formats = FORMAT_COLUMNS.values() if source.format == "auto" else [FORMAT_COLUMNS[source.format]]
    of_format = tuple(dict.fromkeys(chain.from_iterable(formats)))
    needed = [*source.columns, *filter_columns(source.filter), *([data.group_by] if data.group_by else [])]
    if data.order.startswith(COLUMN_ORDER):
        needed.append(data.order.removeprefix(COLUMN_ORDER).removeprefix("-"))
    return Columns(tuple(needed), () if source.columns else of_format)


def _as_rows(changed: Any) -> list[dict[str, Any]]:
    """A transform gives a row, a list of rows, or None to leave the row out."""
    rows = [] if changed is None else changed if isinstance(changed, list) else [changed]
    if not all(isinstance(row, dict) for row in rows):
        raise TypeError("it must give a row (a dict), a list of rows, or None")
    return rows


def _ranking(order: str) -> Callable[[Conversation, dict[str, Any]], float] | None:
    """A conversation's place in the curriculum that ``data.order`` asks for; None where it looks at no row."""
    if order in PLAIN_ORDERS:
        return None
    if not order.startswith(COLUMN_ORDER):
        function = load_hook(ORDERS, "data.order", order)

        def place(conversation: Conversation, row: dict[str, Any]) -> float:
            try:
                return float(function(conversation, row))
            except Exception as error:
                raise ValueError(f"data.order={order} raised {type(error).__name__}: {error}") from error

        return place
    column = order.removeprefix(COLUMN_ORDER)
    sign, column = (-1.0, column[1:]) if column.startswith("-") else (1.0, column)

    def rank(_: Conversation, row: dict[str, Any]) -> float:
        if row.get(column) is None:
            guess = did_you_mean(column, list(row))
            raise ValueError(f"has no {column}{guess}, which data.order asks for")
        try:
            return sign * float(row[column])
        except (TypeError, ValueError):
            raise ValueError(f"{column} is {row[column]!r}, no number to order by") from None

    return rank


def _how_to_mend(bad: BadRow) -> str:
    return f"{bad}; mend it, or skip such rows with data.on_bad_row=skip"


@contextmanager
def _mistakes_of(name: str) -> Iterator[None]:
    """Within it a bad row says how to mend it, and a mistake in a source's file is told of that source's own key."""
    try:
        yield
    except BadRow as bad:
        raise UserError(_how_to_mend(bad)) from bad
    except UserError as error:
        if not name or not str(error).startswith("data.path"):
            raise
        raise UserError(word_of(name) + str(error).removeprefix("data.path")) from error
