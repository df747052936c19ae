"""Which exports there are, and making those that are asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from ftx import progress
from ftx.config.export_schema import ExportConfig
from ftx.config.schema import RunConfig
from ftx.errors import ExportFailed
from ftx.exports.card import write_card
from ftx.exports.check import check_can_compare
from ftx.exports.hub import push
from ftx.exports.making import make_gguf, merge
from ftx.exports.registry import register
from ftx.heartbeat import beat, beating
from ftx.run_folder import RunFolder
from ftx.writing import now

# Makes it, and returns what exports.json says of it: nothing to add is None, and without a ``state`` it is ok.
Step = Callable[[RunFolder, RunConfig, ExportConfig], Mapping[str, Any] | None]


def _write_card(folder: RunFolder, run: RunConfig, export: ExportConfig) -> Mapping[str, Any]:
    return {"made": str(write_card(folder, run, export).relative_to(folder.path))}


def _push(folder: RunFolder, run: RunConfig, export: ExportConfig) -> Mapping[str, Any]:
    """A push that only shows what it would do counts where nothing more is asked for."""
    with beating("upload to the hub"):
        pushed = push(folder, run, export)
    how = {"state": "shown" if export.push == "dry" else "ok", "upload": list(export.upload), "private": export.private}
    return {**how, **asdict(pushed)}


def _register(folder: RunFolder, run: RunConfig, export: ExportConfig) -> Mapping[str, Any]:
    with beating("register the model"):
        registered = register(folder, run, export)
    state = "ok" if registered.is_checked else "unchecked"
    return {"state": state, "registered_as": registered.name, "uri": registered.uri}


STEPS: dict[str, Step] = {"merge": merge, "card": _write_card, "hub": _push, "register": _register}
# Those that read exports/merged/ are not tried where that is not what was trained.
FIRST = "merge"


def make_exports(folder: RunFolder, run: RunConfig, names: Sequence[str]) -> None:
    """Each of ``names``, in their order, kept in exports.json; ``run`` says how.

    Raises ExportFailed once all were tried, where one of them is not what was trained. What is there stays there.
    Raises UserError before anything is made, where it could not be compared.
    """
    if run.export.check and any(name == FIRST or name.startswith("gguf-") for name in names):
        check_can_compare(folder, run)
    failed: list[str] = []
    for name in names:
        try:
            _make(folder, run, name)
        except ExportFailed as failure:
            failed.append(str(failure))
            if name == FIRST:
                break
    if failed:
        raise ExportFailed(" · ".join(failed))


def _make(folder: RunFolder, run: RunConfig, name: str) -> None:
    progress.say(f"export: {name}")
    beat(f"export {name}")
    folder.write_export(name, state="running", since=now())
    try:
        entry = dict(step_called(name)(folder, run, run.export) or {})
    except Exception as error:
        # A check that found something has said so already.
        if folder.read_exports()[name]["state"] == "running":
            folder.write_export(name, state="failed", wrong=[str(error)], when=now())
        raise
    folder.write_export(name, **{"state": "ok", **entry, "when": now()})


def step_called(name: str) -> Step:
    """``gguf-<kind>`` is a step for each kind."""
    what, _, kind = name.partition("-")
    return partial(make_gguf, kind=kind) if what == "gguf" else STEPS[name]
