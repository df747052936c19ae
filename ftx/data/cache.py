"""Where prepared data is kept, under what name, and how it is thrown away again."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftx import progress
from ftx.config.data_checks import PLAIN_ORDERS
from ftx.config.schema import RunConfig
from ftx.data.fingerprint import cache_folder, data_fingerprint, model_fingerprint
from ftx.data.sources import held_out_source, sources_of
from ftx.data.special_tokens import BY_TEMPLATE, CUT_ITS_WAY
from ftx.environment import CHECKOUT
from ftx.heartbeat import beat
from ftx.lock import acquire_or_wait, holder
from ftx.writing import publish_folder

# Raised when the same input would become other conversations, or other rows, than before.
GATHER_VERSION, PREPARE_VERSION = 1, 3
GATHERED, PREPARED = "conversations", "prepared"
# Its time says when a set was last used; the file system's own record of that is often off.
USED = "used"


def gathered_folder(run: RunConfig, data_was: str | None = None) -> Path:
    """The conversations of the run's sources; ``data_was``: their fingerprint then, so that they need not be there."""
    data = run.data
    sources = {name: _how_read(asdict(source)) for name, source in sources_of(data).items()}
    held_out = held_out_source(data)
    parts: dict[str, Any] = {
        "version": GATHER_VERSION,
        "data": data_was or data_fingerprint(run),
        "sources": sources,
        "held_out": _how_read(asdict(held_out)) if held_out else None,
        "rows": [data.on_bad_row, data.group_by, list(data.transforms)],
        "order": None if data.order in PLAIN_ORDERS else data.order,
        "stdlib_docs": [run.seed, data.holdout] if data.source == "stdlib_docs" else None,
    }
    return cache_folder(run) / GATHERED / _hash(parts)


def prepared_folder(run: RunConfig, data_was: str | None = None) -> Path:
    """Tokens and rows for the run's model; ``data_was`` as above."""
    data = run.data
    templates = sorted((CHECKOUT / "templates").glob("*.jinja"))
    text = [file.read_text("utf-8") for file in templates if run.model.template in ("auto", file.stem)]
    weights = {name: [source.weight, source.rows] for name, source in sources_of(data).items()}
    parts = {
        "version": PREPARE_VERSION,
        "conversations": gathered_folder(run, data_was).name,
        "model": model_fingerprint(run) or trained_tokenizer(run),
        "template": [run.model.template, data.thinking, *text],
        "selection": [data.limit, data.holdout, run.seed, weights],
        "rows": [data.max_length, data.packing, data.packing_scope, data.too_long, data.order],
    }
    return cache_folder(run) / PREPARED / _hash(parts)


def trained_tokenizer(run: RunConfig) -> str:
    """What the tokenizer of a random model depends on, beside its texts."""
    architecture, template = run.model.architecture, run.model.template
    parts = [f"tokenizer of {architecture.vocabulary_size} entries"]
    parts += [f"for {template}"] if template in BY_TEMPLATE else []
    parts += [f"cut as {architecture.family}"] if architecture.family in CUT_ITS_WAY else []
    return " ".join(parts)


def is_complete(folder: Path) -> bool:
    """Whether a prepared set is there with the conversations that it refers to."""
    return (folder / "conversations").is_file() and conversations_of(folder).is_dir()


def root_of(folder: Path) -> Path:
    """The cache that a prepared set lies in."""
    return folder.parent.parent


def conversations_of(folder: Path) -> Path:
    """The conversations that a prepared set was made of."""
    return root_of(folder) / GATHERED / (folder / "conversations").read_text(encoding="utf-8").strip()


@contextmanager
def build(folder: Path, ready: Callable[[], bool]) -> Iterator[Path | None]:
    """A folder to write into, published as ``folder`` when the block ends; None where it is ready.

    One process builds, the others wait. What an interrupted build left behind is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)

    def look() -> bool:
        beat(f"waiting for {folder.parent.name}/{folder.name}")
        return ready()

    with acquire_or_wait(folder.with_suffix(".lock"), look, on_wait=_say_who_builds) as must_build:
        if not must_build:
            yield None
            return
        beat(f"preparing {folder.parent.name}/{folder.name}")
        writing = folder.with_suffix(".writing")
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir()
        try:
            yield writing
        except BaseException:
            shutil.rmtree(writing)
            raise
        publish_folder(writing, folder)


def mark_used(folder: Path) -> None:
    """Remember that the set was used now."""
    (folder / USED).touch()


@dataclass(frozen=True)
class Pruned:
    """A set of the cache that prune removed, or would remove."""

    folder: Path
    size: int
    days_unused: float


def prune(cache: Path, *, unused_days: float, dry_run: bool) -> list[Pruned]:
    """Remove what no run has used for so many days, and what interrupted builds left; what is being built stays.

    Conversations stay as long as a prepared set refers to them.
    """
    removed = []
    for folder in sorted((cache / PREPARED).glob("*/")):
        if _is_unused(folder, unused_days):
            removed.append(_remove(folder, dry_run))
    gone = {one.folder for one in removed}
    kept = [folder for folder in (cache / PREPARED).glob("*/") if folder not in gone]
    # Also what is being built says first which conversations it reads.
    needed = {conversations_of(folder) for folder in kept if (folder / "conversations").is_file()}
    for folder in sorted((cache / GATHERED).glob("*/")):
        if folder not in needed and _is_unused(folder, unused_days):
            removed.append(_remove(folder, dry_run))
    return removed


def _is_unused(folder: Path, days: float) -> bool:
    if holder(folder.with_suffix(".lock")) is not None:
        return False
    return folder.suffix == ".writing" or _days_unused(folder) >= days


def _days_unused(folder: Path) -> float:
    used = folder / USED
    return (time.time() - (used if used.exists() else folder).stat().st_mtime) / 86400


def _remove(folder: Path, dry_run: bool) -> Pruned:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    pruned = Pruned(folder, size, _days_unused(folder))
    if not dry_run:
        # Out of the way first: nobody finds half a set.
        doomed = folder.with_suffix(".writing")
        if doomed != folder:
            folder.rename(doomed)
        shutil.rmtree(doomed)
    return pruned


def _say_who_builds(who: object) -> None:
    progress.say(f"{who} is preparing the same data; waiting for it")


def _how_read(source: dict[str, Any]) -> dict[str, Any]:
    """The fingerprint says which content it is: a branch, and the commit that it stands for, are the same."""
    return {name: value for name, value in source.items() if name not in ("path", "revision", "weight", "rows")}


def _hash(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
