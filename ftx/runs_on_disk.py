"""Runs as folders: find one, make one, move one aside, clear away what a killed writer left in one."""

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftx.config.identity import run_hash
from ftx.config.keys import did_you_mean
from ftx.config.schema import RunConfig
from ftx.config.stored import run_to_yaml
from ftx.errors import UserError
from ftx.run_folder import FIRST_FAILURE, RunFolder
from ftx.writing import of_this_attempt, put_away, write_json, write_text

# What is not complete, or only of use to the start that made it.
LEFTOVERS = (
    *(".model.*", ".first-failure-*", ".allocation-*", ".code-*", "checkpoints/.*", "weights/.*"),
    *("exports/.*", "exports/gguf/.*"),
)


def find_run_folder(run: RunConfig, data_fingerprint: str, model_fingerprint: str) -> RunFolder:
    """Where this run lives; nothing is made yet."""
    name = f"{run.name}-{run_hash(run, data_fingerprint, model_fingerprint)}"
    return RunFolder(Path(run.run_root) / name)


def run_called(word: str, run_root: Path) -> RunFolder | None:
    """A run by its folder or by its name under ``run_root``."""
    for path in (Path(word).expanduser(), run_root / word):
        if (path / "run.yaml").is_file():
            return RunFolder(path.absolute())
    return None


def find_run(word: str, run_root: Path) -> RunFolder:
    """The same; raises UserError where there is none."""
    if (folder := run_called(word, run_root)) is not None:
        return folder
    known = sorted(file.parent.name for file in run_root.glob("*/run.yaml"))
    there = f"; {run_root} has {', '.join(known[:8])}{' …' if len(known) > 8 else ''}" if known else ""
    raise UserError(f"{word}: no such run{did_you_mean(word, known)}{there or f'; there is none under {run_root}'}")


def open_run_folder(
    folder: RunFolder,
    run: RunConfig,
    words: Sequence[str],
    provenance: dict[str, Any],
    scoring: RunConfig | None = None,
) -> RunFolder:
    """Make the folder, or bring the description of an existing one up to date with today's words.

    What the identity covers is the same by construction; the rest (tasks, tracking, intervals) may have changed.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    write_text(folder.path / "run.yaml", run_to_yaml(run))
    if scoring is None:
        (folder.path / "scoring.yaml").unlink(missing_ok=True)
    else:
        write_text(folder.path / "scoring.yaml", run_to_yaml(scoring))
    write_text(folder.path / "overrides.txt", "".join(f"{word}\n" for word in words))
    if not (folder.path / "provenance.json").exists():
        write_json(folder.path / "provenance.json", provenance)
    if not (folder.path / "status.json").exists():
        folder.write_status()
    return folder


def move_aside(folder: RunFolder) -> Path | None:
    """``fresh=true``: rename the folder to ``<folder>.old-<n>``; returns the new path, None when there was none."""
    if not folder.path.exists():
        return None
    number = 1
    while (aside := folder.path.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.path.rename(aside)
    return aside


def remove_leftovers(folder: RunFolder) -> None:
    """What a killed writer left behind, and what one who lost the run is still at; only for who has taken the lock."""
    for pattern in LEFTOVERS:
        for leftover in folder.path.glob(pattern):
            if leftover.is_dir():
                put_away(leftover)
            elif leftover.name != of_this_attempt(FIRST_FAILURE):  # another of our ranks may have been quick
                leftover.unlink(missing_ok=True)
    for top, _, names in os.walk(folder.path):
        for name in fnmatch.filter(names, ".*.tmp"):
            if not name.startswith(f".{folder.lock.name}."):  # others may be asking for the lock
                Path(top, name).unlink(missing_ok=True)
