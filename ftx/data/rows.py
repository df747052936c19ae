"""A row of a chat file, good or bad, and what JSON text and values are."""

import json
import re
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from ftx.errors import UserError

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Row:
    """One row. ``number`` counts from 1: the line where it starts (jsonl, csv, tsv) or the row (json, parquet)."""

    number: int
    value: dict[str, Any]


class BadRow(UserError):
    """A row that cannot be used, and why; reads ``chats.jsonl:12: reason``."""

    def __init__(self, where: Path | str, number: int, reason: str) -> None:
        super().__init__(where, number, reason)
        self.where = where
        self.number = number
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.where}:{self.number}: {self.reason}"


def row_or_bad(path: Path | str, number: int, value: Any) -> Row | BadRow:
    """``value`` as a row; a bad one where it is no object."""
    if isinstance(value, dict):
        return Row(number, value)
    return BadRow(path, number, f"must be an object, not {json_type(value)}")


def parse_json(text: str) -> Any:
    """The value of one JSON text; ``ValueError`` with a one-line reason where it is none."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        raise ValueError(f"not valid JSON: {error.msg} ({where})") from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError("not valid JSON: nested too deeply") from None
    check_is_text(value, text)
    return value


def json_type(value: object) -> str:
    """What a value is called in JSON, with its article: ``a list``."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def not_utf8(byte: int) -> str:
    """What is said of a byte that cannot be decoded."""
    return f"not UTF-8: byte 0x{byte:02x}; save the file as UTF-8"


def check_is_text(value: Any, source: str) -> None:
    """``ValueError`` where a string in ``value``, parsed from the JSON text ``source``, cannot be text."""
    if not _SURROGATE_ESCAPE.search(source):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        escape = f"\\u{ord(error.object[error.start]):04x}"
        raise ValueError(f"holds {escape}, half of a surrogate pair, which is no character") from None


def plain(value: Any) -> Any:
    """A value of a parquet file as JSON would hold it, but for bytes, which stay."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, date | time):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value
