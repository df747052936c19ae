"""The two exports that are models: made beside, published by rename, and compared with what was trained."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftx import progress
from ftx.config.export_schema import ExportConfig
from ftx.config.schema import RunConfig
from ftx.disk import DiskFull, free_bytes, in_words, says_full
from ftx.errors import ExportFailed
from ftx.exports.check import compare_in_a_process
from ftx.exports.comparison import Findings, bound_of, describe, faults
from ftx.exports.merging import plan_merge, write_merged
from ftx.run_folder import RunFolder
from ftx.writing import of_this_attempt

SMALL_FILES = 32 << 20


def merge(folder: RunFolder, run: RunConfig, export: ExportConfig) -> dict[str, Any]:
    """``exports/merged/``; returns what exports.json says of it."""
    final = merged_folder(folder)
    plan = plan_merge(folder, run)
    with _written(folder, final, plan.bytes) as writing:
        write_merged(plan, writing)
    return _judged(folder, run, export, "merge", final)


def make_gguf(folder: RunFolder, run: RunConfig, export: ExportConfig, kind: str) -> dict[str, Any]:
    """``exports/gguf/<run>-<kind>.gguf``, of the merged model or of a full run's own; raises UserError."""
    from ftx.exports.gguf_file import plan_gguf, write_gguf

    final = folder.exports / "gguf" / f"{folder.name}-{kind}.gguf"
    plan = plan_gguf(folder.model if run.method.name == "full" else merged_folder(folder), kind)
    for fallback in plan.fallbacks:
        progress.say(f"{final.name}: {fallback}")
    with _written(folder, final, plan.bytes) as writing:
        write_gguf(plan, writing, folder.name)
    return {**_judged(folder, run, export, f"gguf-{kind}", final), "fallbacks": plan.fallbacks}


def merged_folder(folder: RunFolder) -> Path:
    """Where the merged model lies."""
    return folder.exports / "merged"


@contextmanager
def _written(folder: RunFolder, final: Path, needed: int) -> Iterator[Path]:
    """Where to write what then gets its name; what does not fit, or fails, leaves nothing behind."""
    final.parent.mkdir(parents=True, exist_ok=True)
    there, needed = free_bytes(final.parent), needed + SMALL_FILES
    if needed > there:
        raise DiskFull(f"{final}: takes {in_words(needed)}, {in_words(there)} are free; make room or move run_root")
    writing = final.with_name(of_this_attempt(f".{final.name}.writing"))
    _remove(writing)
    try:
        yield writing
        _publish(folder, writing, final)
    except OSError as error:
        if says_full(error):
            raise DiskFull(f"{final}: the disk is full ({error.strerror}); make room or move run_root") from error
        raise
    finally:
        _remove(writing)


def _publish(folder: RunFolder, written: Path, final: Path) -> None:
    if written.is_dir():
        folder.publish(written, final)
    else:
        folder.check_ours()
        written.replace(final)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _judged(folder: RunFolder, run: RunConfig, export: ExportConfig, name: str, made: Path) -> dict[str, Any]:
    """Compare, say what was found, and return the entry; raises ExportFailed, after writing it, for a mismatch."""
    where = str(made.relative_to(folder.path))
    if not export.check:
        progress.say(f"{made}: not compared with the trained model (export.check=false)")
        return {"state": "unchecked", "made": where}
    found = compare_in_a_process(folder, name, made)
    bound = bound_of(name, run.hardware.precision, found.computed_in)
    wrong = faults(found, bound)
    progress.say(f"{made}: {describe(found, bound)}")
    _show(found, progress.say)
    entry = {"state": "failed" if wrong else "ok", "made": where, "check": found.as_json(), "wrong": wrong}
    if wrong:
        folder.write_export(name, **entry)
        raise ExportFailed(f"{made}: is not the model that was trained: {'; '.join(wrong)}")
    return entry


def _show(found: Findings, say: Callable[[str], None]) -> None:
    for sample in found.samples:
        say(f"{sample.id}\n  trained:  {sample.trained!r}\n  exported: {sample.exported!r}")
