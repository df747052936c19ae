"""Chat files to read, and what reading them gives."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ftx.data.files import read_rows
from ftx.data.rows import Row
from ftx.errors import UserError

PAIRS = [
    {"prompt": "Was heißt 'cat'?", "completion": "Katze 🐈"},
    {"prompt": "two\nlines, one comma", "completion": 'a "quote"\tand a tab'},
    {"prompt": "3", "completion": "\u2028 is no line end"},
]


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(folder: Path, name: str, content: bytes) -> list[tuple[int, dict[str, Any]] | str]:
    """What comes out, rows as pairs and bad rows as texts without the folder."""
    path = written(folder, name, content)
    return [
        (row.number, row.value) if isinstance(row, Row) else str(row).removeprefix(f"{folder}/")
        for row in read_rows(path)
    ]


def refusal(folder: Path, name: str, content: bytes | None = None) -> str:
    """The one line that a file is refused with, without the folder."""
    path = folder / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_rows(path))
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "").replace(str(folder), "FOLDER")


FORMATS = {
    "chats.jsonl": as_jsonl(PAIRS),
    "chats.ndjson": as_jsonl(PAIRS),
    "chats.json": json.dumps(PAIRS).encode(),
    "pretty.json": json.dumps(PAIRS, indent=2, ensure_ascii=False).encode(),
    "wrapped.json": json.dumps({"version": 1, "rows": PAIRS, "meta": {"list": [1]}}).encode(),
    "chats.csv": as_csv(PAIRS),
    "chats.tsv": as_csv(PAIRS, "\t"),
    "CHATS.JSONL": as_jsonl(PAIRS),
}
