"""Checkpoints under ``checkpoints/step-<n>/``: complete, or not there."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ftx.disk import DiskFull, free_bytes, in_words, size_of
from ftx.run_folder import RunFolder
from ftx.writing import of_this_attempt, write_json

log = logging.getLogger(__name__)

# Sizes of a checkpoint's files, written after them.
MANIFEST = "manifest.json"
# In a checkpoint: the best one up to it, so that a resume goes on from there. Beside them: the best one now.
BEST = "best.json"
DAMAGED = "damaged-"


@dataclass(frozen=True)
class Best:
    """The checkpoint with the lowest value of ``schedule.best_metric`` so far."""

    step: int
    metric: str
    value: float


def writing_folder(folder: RunFolder) -> Path:
    """Where Trainer writes before a checkpoint is published: all ranks, also those of an old start that goes on."""
    return folder.checkpoints / of_this_attempt(".writing")


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


def publish(folder: RunFolder, step: int, keep: int, best: Best | None = None) -> Path:
    """Move what Trainer wrote for ``step`` to its place, then remove the oldest beyond ``keep``.

    The newest and the best stay, whatever ``keep`` says.
    """
    written, final = writing_folder(folder) / f"checkpoint-{step}", folder.checkpoints / f"step-{step}"
    if best:
        write_json(written / BEST, asdict(best))
    files = {str(file.relative_to(written)): file.stat().st_size for file in written.rglob("*") if file.is_file()}
    write_json(written / MANIFEST, files)
    folder.publish(written, final)
    if best:
        folder.write_json(folder.checkpoints / BEST, asdict(best))
    spare = [path for path in removable(folder, best) if not path.name.startswith(DAMAGED)]
    for old in spare[: max(0, len(published(folder)) - keep)]:
        _remove(folder, old)
    return final


def best_up_to(checkpoint: Path) -> Best | None:
    """What was the best when ``checkpoint`` was written, None where no metric was asked for or it is gone since."""
    file = checkpoint / BEST
    if not file.exists():
        return None
    best = Best(**json.loads(file.read_text(encoding="utf-8")))
    if (checkpoint.parent / f"step-{best.step}").is_dir():
        return best
    log.warning("the best checkpoint so far, of step %d, is gone: the best is looked for from here on", best.step)
    return None


def removable(folder: RunFolder, best: Best | None) -> list[Path]:
    """What may go when there is no room, in this order: damaged checkpoints, then all but the newest and the best."""
    found = published(folder)
    protected = {step for step, _ in found[-1:]} | ({best.step} if best else set())
    damaged = sorted(folder.checkpoints.glob(f"{DAMAGED}*"))
    return [*damaged, *(path for step, path in found if step not in protected)]


def make_room(
    folder: RunFolder,
    needed: int,
    what: str,
    best: Best | None,
    *,
    free: Callable[[Path], int] = free_bytes,
) -> None:
    """Remove what may go until ``needed`` bytes are free; raises DiskFull, with nothing removed, if they cannot be."""
    spare = removable(folder, best)
    there = free(folder.path)
    if there >= needed:
        return
    if there + sum(map(size_of, spare)) < needed:
        raise DiskFull(f"{what} takes {in_words(needed)}, {ways_out(folder, there)}")
    while spare and free(folder.path) < needed:
        old = spare.pop(0)
        log.warning("%s takes %s, %s are free: removing %s", what, in_words(needed), in_words(free(folder.path)), old)
        _remove(folder, old)


def ways_out(folder: RunFolder, there: int) -> str:
    """What is free, where, and what helps."""
    newest = latest(folder)
    goes_on = f"resumes from step {newest[0]}" if newest else "starts from the beginning"
    return (
        f"{in_words(there)} are free in {folder.path}: make room there, or write less (schedule.save_every=never "
        f"schedule.save_weights=never); the same command then {goes_on}"
    )


def set_damaged_aside(folder: RunFolder) -> None:
    """Rename checkpoints that cannot be resumed from, newest first, until one can; for who holds the run's lock."""
    for step, path in reversed(published(folder)):
        found = damage_of(path)
        if not found:
            return
        aside = path.with_name(f"{DAMAGED}{path.name}")
        folder.check_ours()
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        log.warning("the checkpoint of step %d is damaged (%s): moved to %s, an older one is used", step, found, aside)


def damage_of(checkpoint: Path) -> str:
    """What is wrong with it, "" if nothing: a file that is missing, has another size, or whose header says nonsense."""
    from safetensors import SafetensorError, safe_open

    try:
        for name, size in _sizes_of(checkpoint).items():
            file = checkpoint / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes instead of {size}"
        for file in checkpoint.rglob("*.safetensors"):
            with safe_open(file, "pt"):
                pass
    except (OSError, ValueError, SafetensorError) as error:
        return str(error).splitlines()[0]
    return ""


def _sizes_of(checkpoint: Path) -> dict[str, int]:
    """Bytes of each file as they were written; none of a checkpoint without a list."""
    listed = checkpoint / MANIFEST
    sizes: dict[str, int] = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {}
    return sizes


def _remove(folder: RunFolder, path: Path) -> None:
    """A checkpoint disappears whole too: a half-removed one must not be resumed from."""
    folder.check_ours()
    hidden = path.with_name(f".removing-{path.name}")
    path.rename(hidden)
    shutil.rmtree(hidden)
