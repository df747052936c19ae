"""Rows of a chat file, one at a time, in memory that does not grow with the file."""

import codecs
import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from ftx.data.file_checks import check_content, check_is_file, format_of, opened
from ftx.data.json_list import read_json
from ftx.data.rows import BadRow, Row, not_utf8, parse_json, plain, row_or_bad
from ftx.errors import UserError
from ftx.progress import Progress

_Reader = Callable[[Path, IO[bytes]], Iterator[Row | BadRow]]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_CELL_LIMIT = 2**26  # characters; keeps a quote that is never closed from pulling the whole file into memory


def read_rows(
    path: Path, columns: Sequence[str] | None = None, on_position: Callable[[int], None] | None = None
) -> Iterator[Row | BadRow]:
    """All rows in the order of the file, the wrong ones as ``BadRow`` so that the caller may stop or skip.

    ``columns`` are the names for a csv or tsv without header. ``on_position`` hears now and then how many bytes of the
    file on disk have been read.

    What can be seen from the file's name and its first bytes is a ``UserError`` at the call; what shows only on the way
    (a cut-off gzip, a JSON array that stops parsing, no rows at all) is one while iterating.
    """
    check_is_file(path)
    suffix, compressed = format_of(path)
    check_content(path, suffix, compressed)
    if columns is None:
        return _rows(path, compressed, _READERS[suffix], on_position)
    if suffix not in _DELIMITERS:
        raise UserError(f"data.path: {path} is no csv or tsv, so its columns cannot be named")
    return _rows(path, compressed, partial(_read_csv, delimiter=_DELIMITERS[suffix], columns=columns), on_position)


def fingerprint(path: Path) -> str:
    """SHA-256 of the bytes on disk, as hex digits."""
    check_is_file(path)
    with (
        Progress(f"hash {path.name}", path.stat().st_size, unit="byte", delay=1) as progress,
        opened(path, compressed=False, on_position=progress.show) as stream,
    ):
        return hashlib.file_digest(cast(io.BufferedReader, stream), "sha256").hexdigest()


def _rows(
    path: Path, compressed: bool, read: _Reader, on_position: Callable[[int], None] | None
) -> Iterator[Row | BadRow]:
    row = None
    with opened(path, compressed, on_position) as stream:
        for row in read(path, stream):
            yield row
    if row is None:
        raise UserError(f"data.path: {path} has no rows; give a file with at least one")


def _read_jsonl(path: Path, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    for number, raw in enumerate(stream, 1):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        if line.strip():
            yield _row_of_line(path, number, line)


def _row_of_line(path: Path, number: int, line: bytes) -> Row | BadRow:
    try:
        return row_or_bad(path, number, parse_json(line.decode("utf-8").strip()))
    except UnicodeDecodeError as error:
        return BadRow(path, number, not_utf8(line[error.start]))
    except ValueError as error:
        return BadRow(path, number, str(error))


def _read_csv(
    path: Path, stream: IO[bytes], delimiter: str = ",", columns: Sequence[str] | None = None
) -> Iterator[Row | BadRow]:
    csv.field_size_limit(_CELL_LIMIT)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    header = _header(path, reader) if columns is None else columns
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
            if cells is None:
                return
            if cells:
                yield Row(number, _named_cells(header, cells))
        except (csv.Error, ValueError) as error:
            yield BadRow(path, number, _csv_reason(error))


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next((cells for cells in reader if cells), [])
        _check_is_decoded(header)
    except (csv.Error, ValueError) as error:
        raise UserError(f"data.path: {path}: the header, its first line, is {_csv_reason(error)}") from None
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise UserError(f"data.path: {path}: the header names column {twice[0]!r} more than once; rename one of them")
    return header


def _named_cells(header: Sequence[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise ValueError(f"has {len(cells)} cells, but the header names {len(header)} columns")
    _check_is_decoded(cells)
    return dict(zip(header, cells, strict=True))


def _check_is_decoded(cells: list[str]) -> None:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError as error:
        raise ValueError(not_utf8(ord(error.object[error.start]) - 0xDC00)) from None


def _csv_reason(error: Exception) -> str:
    if not isinstance(error, csv.Error):
        return str(error)
    if "field limit" in str(error):
        return f"not valid CSV: a cell of more than {_CELL_LIMIT:,} characters (a quote that is never closed?)"
    return f"not valid CSV: {error}"


def _read_parquet(path: Path, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=256):
            for index in range(len(batch)):
                number += 1
                yield _parquet_row(path, number, batch.slice(index, 1))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"data.path: {path} is not whole parquet: {reason}; download or write it again") from None


def _parquet_row(path: Path, number: int, batch: Any) -> Row | BadRow:
    try:
        return Row(number, plain(batch.to_pylist()[0]))
    except UnicodeDecodeError as error:
        return BadRow(path, number, not_utf8(error.object[error.start]))


_READERS: dict[str, _Reader] = {
    ".json": read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": partial(_read_csv, delimiter=_DELIMITERS[".tsv"]),
    ".parquet": _read_parquet,
}
