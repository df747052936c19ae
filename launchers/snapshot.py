"""The code that queued jobs run: a copy of it as it is now, so that nothing edited afterwards changes them."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ftx.environment import CHECKOUT

PARTS = ("ftx", "launchers", "templates")
SUFFIXES = {".py", ".jinja"}
HASH_LENGTH = 12


def snapshot_path(run_root: Path) -> Path:
    """Where a copy of today's code belongs: under a hash of it, so that runs of the same code share one."""
    digest = hashlib.sha256()
    for file in _files():
        content = file.read_bytes()
        digest.update(f"{file.relative_to(CHECKOUT)} {len(content)}\n".encode())
        digest.update(content)
    return run_root / ".code" / digest.hexdigest()[:HASH_LENGTH]


def take_snapshot(run_root: Path) -> Path:
    """Make that copy unless it is there; it appears complete or not at all."""
    final = snapshot_path(run_root)
    if final.is_dir():
        return final
    writing = final.with_name(f".{final.name}.{os.getpid()}")
    for file in _files():
        copy = writing / file.relative_to(CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    try:
        writing.rename(final)
    except OSError:  # somebody else has just made the same
        shutil.rmtree(writing)
    return final


def _files() -> Iterator[Path]:
    for part in PARTS:
        yield from sorted(file for file in (CHECKOUT / part).rglob("*") if file.suffix in SUFFIXES)
