"""Files and folders that appear complete or not at all, whoever is killed meanwhile."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftx.environment import this_attempt


def of_this_attempt(name: str) -> str:
    """A name that no other start of the run uses: what is unfinished in it nobody else adds to or takes for his."""
    attempt = this_attempt()
    return f"{name}-{attempt}" if attempt else name


def _always() -> None:
    """Nothing that could forbid a write."""


def write_text(path: Path, text: str, check: Callable[[], None] = _always) -> None:
    """The file appears complete or not at all, also when the writer is killed or the machine stops.

    ``check`` raises what forbids it, when all is ready.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        check()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, check: Callable[[], None] = _always) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", check)


def publish_folder(written: Path, final: Path, check: Callable[[], None] = _always) -> None:
    """Rename a complete folder to where readers look for it, replacing what was there.

    ``check`` raises what forbids it, when all is ready.
    """
    for file in written.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    final.parent.mkdir(parents=True, exist_ok=True)
    replaced = final.with_name(f".{final.name}.{os.urandom(8).hex()}.replaced")
    check()
    if final.exists():
        final.rename(replaced)
    try:
        written.rename(final)
    except OSError:  # put away by a new start of the run: then it is that one's folder which was moved
        with suppress(OSError):
            replaced.rename(final)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def put_away(hidden: Path) -> None:
    """Remove a folder, in one step for whoever would publish it at this moment: a half of it must not get a name."""
    away = hidden.with_name(f"{hidden.name}.{os.urandom(8).hex()}")
    with suppress(FileNotFoundError):
        hidden.rename(away)
    shutil.rmtree(away, ignore_errors=True)


def now() -> str:
    """UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
