"""A JSON file that is one list of rows, or an object that holds one, read a piece at a time."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ftx.data.rows import BadRow, Row, check_is_text, not_utf8, row_or_bad
from ftx.errors import UserError

_CHUNK = 2**20
_EDGE = 16  # no number, literal or escape is cut further than this from the end of a chunk
_SPACE = re.compile(r"[ \t\r\n]*")


def read_json(path: Path, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    """All rows; ``UserError`` where the file stops being JSON."""
    text = _JsonText(path, stream)
    if text.peek() == "":
        return
    if text.take("[{", "a list of rows or an object that holds one") == "[":
        yield from _listed_rows(path, text)
    else:
        yield from _rows_of_object(path, text)
    if text.peek():
        raise text.error(f"text after the end: {text.peek()!r}")


def _listed_rows(path: Path, text: "_JsonText") -> Iterator[Row | BadRow]:
    """The elements of a list whose opening bracket has been taken, and the closing one."""
    number, separator = 1, text.take("]", "]") if text.peek() == "]" else ","
    while separator == ",":
        try:
            yield row_or_bad(path, number, text.value())
        except ValueError as error:
            yield BadRow(path, number, str(error))
        separator = text.take(",]", "',' or ']'")
        number += 1


def _rows_of_object(path: Path, text: "_JsonText") -> Iterator[Row | BadRow]:
    """The elements of the one list among the values of an object whose opening brace has been taken."""
    found, separator = "", text.take("}", "}") if text.peek() == "}" else ","
    while separator == ",":
        key = text.key()
        if text.peek() != "[":
            text.scan()
        elif found or key in ("messages", "prompt"):
            what = f"more than one list ({found!r}, {key!r})" if found else "a single row at its top"
            raise UserError(f"data.path: {path} holds {what}; write one list of rows, or one row a line as .jsonl")
        else:
            found = key
            text.take("[", "[")
            yield from _listed_rows(path, text)
        separator = text.take(",}", "',' or '}'")
    if not found:
        raise UserError(f"data.path: {path} holds an object without a list; write one list of rows, or .jsonl")


class _JsonText:
    """A place in a JSON file of which about one chunk, or one value where that is longer, is held at a time."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path = path
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._scanner = json.JSONDecoder()
        self._text, self._at, self._line, self._column = "", 0, 1, 1

    def peek(self) -> str:
        """The next character that is not white space, left in place; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, allowed: str, expected: str) -> str:
        char = self.peek()
        if not char or char not in allowed:
            raise self.error(f"expected {expected}, found {char!r}" if char else f"expected {expected}, found the end")
        self._at += 1
        return char

    def key(self) -> str:
        if self.peek() != '"':
            raise self.error("expected a key in double quotes")
        key: str = self.scan()[0]
        self.take(":", "':'")
        return key

    def value(self) -> Any:
        """The next value; ``ValueError`` where its strings cannot be text."""
        value, source = self.scan()
        check_is_text(value, source)
        return value

    def scan(self) -> tuple[Any, str]:
        """The next value, and the text that it was read from."""
        self.peek()
        while True:
            try:
                value, end = self._scanner.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - _EDGE
                if cut and self._more():
                    continue
                raise self.error(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise self.error(str(error)) from None
            if end <= len(self._text) - _EDGE or not self._more():
                break
        start, self._at = self._at, end
        return value, self._text[start:end]

    def error(self, reason: str, at: int | None = None) -> UserError:
        line, column = self._position(self._at if at is None else at)
        where = f"line {line} column {column}"
        return UserError(f"data.path: {self._path} is not valid JSON: {reason} ({where}); correct it there")

    def _more(self) -> bool:
        """Drops what has been read and adds as much again as is left, so that long values cost linear time."""
        data = self._stream.read(max(_CHUNK, len(self._text) - self._at))
        try:
            added = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            lines = self._line + self._text.count("\n") + error.object.count(b"\n", 0, error.start)
            reason = not_utf8(error.object[error.start])
            raise UserError(f"data.path: {self._path} is {reason} (line {lines})") from None
        if data:
            self._line, self._column = self._position(self._at)
            self._text, self._at = self._text[self._at :] + added, 0
        return bool(data)

    def _position(self, at: int) -> tuple[int, int]:
        newlines = self._text.count("\n", 0, at)
        if not newlines:
            return self._line, self._column + at
        return self._line + newlines, at - self._text.rfind("\n", 0, at)
