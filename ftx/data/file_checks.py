"""What can be told of a file before its rows are read: whether it is there, what its name and first bytes say."""

import contextlib
import difflib
import gzip
import io
import json
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from ftx.errors import UserError

_HEAD = 2**16
_BUFFER = 2**18
_ARRAY_START = re.compile(r"\[\s*(\{|$)")
_JSON_LIST, _JSON_LINES, _PARQUET = "a JSON list", "JSON Lines", "parquet"
_CONTENT = {
    ".json": _JSON_LIST,
    ".jsonl": _JSON_LINES,
    ".ndjson": _JSON_LINES,
    ".csv": "",
    ".tsv": "",
    ".parquet": _PARQUET,
}  # of every suffix that is known; empty where the first bytes do not tell
_SUFFIX_FOR = {_JSON_LIST: ".json", _JSON_LINES: ".jsonl", _PARQUET: ".parquet"}
_GZIP = b"\x1f\x8b"
_SIGNATURES = (
    (b"PAR1", _PARQUET),
    (_GZIP, "gzip"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"ARROW1", "an Arrow file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"version https://git-lfs", "a Git LFS pointer (run git lfs pull)"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
)


def check_is_file(path: Path) -> None:
    """``UserError`` unless there is a file at ``path``."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"data.path: no such file: {path} ({_instead_of_missing(path)})") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        raise UserError(f"data.path: {path} is a folder, not a file ({_files_inside(path)})")
    if not stat.S_ISREG(mode):
        raise UserError(
            f"data.path: {path} is not a regular file; write the rows to a file ({_known_suffixes()}) first"
        )


def format_of(path: Path) -> tuple[str, bool]:
    """The suffix that says the format, and whether ``.gz`` follows it."""
    name = path.name.lower()
    compressed = name.endswith(".gz")
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix not in _CONTENT or (compressed and suffix == ".parquet"):
        ending = "".join(path.suffixes[-2:] if compressed else path.suffixes[-1:])
        what = f"unknown suffix {ending}" if ending else "a name without a suffix"
        raise UserError(f"data.path: {path}: {what} (known: {_known_suffixes()})")
    return suffix, compressed


def check_content(path: Path, suffix: str, compressed: bool) -> None:
    """``UserError`` where the first bytes show something else than the name says, or nothing."""
    raw = _head(path, compressed=False)
    if not raw:
        raise UserError(f"data.path: {path} is empty; give a file with at least one row")
    if compressed and not raw.startswith(_GZIP):
        raise UserError(f"data.path: {path} is not gzip, though its name says so; rename it to {path.stem}")
    if not compressed and raw.startswith(_GZIP):
        raise UserError(f"data.path: {path} is gzip; rename it to {path.name}.gz")
    head = _head(path, compressed=True) if compressed else raw
    if not head:
        raise UserError(f"data.path: {path} is empty inside the gzip; give a file with at least one row")
    content = _content_of(head)
    instead = f"; give a file in one of: {_known_suffixes()}"
    own = _CONTENT[suffix]
    if content not in ("", own):
        rename = f"; rename it to end in {_SUFFIX_FOR[content]}" if content in _SUFFIX_FOR else ""
        raise UserError(f"data.path: {path} holds {content}, not {suffix}{rename or instead}")
    if own == _PARQUET != content:
        raise UserError(f"data.path: {path} is not parquet, though its name says so{instead}")


class _Watched(io.FileIO):
    """A file that tells how far it has been read."""

    def __init__(self, path: Path, on_position: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._on_position = on_position

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self._on_position(self.tell())
        return count


@contextlib.contextmanager
def opened(path: Path, compressed: bool, on_position: Callable[[int], None] | None = None) -> Iterator[IO[bytes]]:
    """The file for reading; what keeps it from being read is a ``UserError``, also inside the block.

    ``on_position`` hears how many bytes of it have been read, each time that a buffer has been filled.
    """
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(_Watched(path, on_position) if on_position else io.FileIO(path))
            stream = stack.enter_context(io.BufferedReader(raw, _BUFFER))
            yield cast(IO[bytes], stack.enter_context(gzip.open(stream, "rb")) if compressed else stream)
    except EOFError:
        raise UserError(f"data.path: {path} is a gzip that is cut off; download or write it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"data.path: {path} is a damaged gzip ({error}); download or write it again") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _known_suffixes() -> str:
    return ", ".join(_CONTENT) + "; all but .parquet also with .gz"


def _head(path: Path, compressed: bool) -> bytes:
    with opened(path, compressed) as stream:
        return stream.read(_HEAD)


def _content_of(head: bytes) -> str:
    """What the first bytes of a file show it to be; empty where they leave it open."""
    named = (content for signature, content in _SIGNATURES if head.startswith(signature))
    return next(named, "") or _json_content(head.decode("utf-8-sig", errors="replace").strip())


def _json_content(head: str) -> str:
    if not head.startswith(("{", "[")):
        return ""
    first_line, _, rest = head.partition("\n")
    try:
        json.loads(first_line)
    except (ValueError, RecursionError):
        return _JSON_LIST if _ARRAY_START.match(first_line) else ""
    if rest:
        return _JSON_LINES
    return _JSON_LIST if head.startswith("[") else ""


def _unreadable(path: Path, error: OSError) -> UserError:
    if isinstance(error, PermissionError):
        return UserError(f"data.path: no permission to read {path}; give yourself the right to, or use a copy")
    return UserError(f"data.path: cannot read {path}: {error.strerror}; give the path of a file")


def _instead_of_missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    others = [name for name in _names_in(path.parent) if name != path.name]
    close = difflib.get_close_matches(path.name, others, n=1)
    return f"did you mean {path.parent / close[0]}?" if close else _files_inside(path.parent)


def _files_inside(folder: Path) -> str:
    usable = [name for name in _names_in(folder) if name.lower().removesuffix(".gz").endswith(tuple(_CONTENT))]
    if not usable:
        return f"{folder.absolute()} holds no file in one of: {_known_suffixes()}"
    return f"{folder.absolute()} holds {', '.join(usable[:3])}{', ...' if len(usable) > 3 else ''}"


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
