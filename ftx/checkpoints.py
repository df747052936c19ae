"""Checkpoints under ``checkpoints/step-<n>/``: complete, or not there."""

import re
import shutil
from pathlib import Path

from ftx.run_folder import RunFolder, publish_folder

WRITING = ".writing"


def writing_folder(folder: RunFolder) -> Path:
    """Where Trainer writes before a checkpoint is published."""
    return folder.checkpoints / WRITING


def published(folder: RunFolder) -> list[tuple[int, Path]]:
    """(step, folder) of every complete checkpoint, oldest first."""
    found = []
    for path in folder.checkpoints.glob("step-*"):
        match = re.fullmatch(r"step-(\d+)", path.name)
        if match:
            found.append((int(match[1]), path))
    return sorted(found)


def latest(folder: RunFolder) -> tuple[int, Path] | None:
    """The checkpoint to resume from."""
    found = published(folder)
    return found[-1] if found else None


def publish(folder: RunFolder, step: int, keep: int) -> Path:
    """Move what Trainer wrote for ``step`` to its place, then remove all but the newest ``keep``."""
    final = folder.checkpoints / f"step-{step}"
    publish_folder(writing_folder(folder) / f"checkpoint-{step}", final)
    for _, old in published(folder)[:-keep]:
        _remove(old)
    return final


def _remove(path: Path) -> None:
    """A checkpoint disappears whole too: a half-removed one must not be resumed from."""
    hidden = path.with_name(f".removing-{path.name}")
    path.rename(hidden)
    shutil.rmtree(hidden)
