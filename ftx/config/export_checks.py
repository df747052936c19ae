"""What the words say of exporting, checked across their keys; and which exports a run asks for."""

from collections.abc import Callable, Mapping
from typing import Any

from ftx.config.export_schema import QUANTIZATIONS, ExportConfig
from ftx.config.keys import did_you_mean
from ftx.config.schema import RunConfig
from ftx.errors import UserError

# The steps that are a switch each, and so a choice of the group.
SWITCHES = ("merge", "gguf", "card", "hub")

EXPORT_READ_WHEN: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    "export.quantization": (lambda run: run.export.gguf, "only export=gguf does"),
    "export.check": (
        lambda run: run.export.merge or run.export.gguf or run.export.register is not None,
        "only export=merge, export=gguf and export.register do",
    ),
}


def asked_exports(run: RunConfig) -> list[str]:
    """What exports.json has to say ``ok`` of once the run is done, in the order in which it is made.

    A file for llama.cpp is made from whole weights, so that an adapter is merged first, asked for or not.
    """
    export = run.export
    merges = export.merge or (export.gguf and run.method.name != "full")
    files = [f"gguf-{kind}" for kind in export.quantization] if export.gguf else []
    others = [name for name, wanted in (("card", export.card), ("hub", export.hub)) if wanted]
    return [*(["merge"] if merges else []), *files, *others, *(["register"] if export.register else [])]


def is_as_asked(entry: Mapping[str, Any], export: ExportConfig) -> bool:
    """Whether an entry of exports.json is what is asked for: checked, and of a push or registration the same one."""
    good = {"ok", *(() if export.check else ("unchecked",)), *(("shown",) if export.push == "dry" else ())}
    wanted = {
        "repository": export.repository,
        "upload": list(export.upload),
        "private": export.private,
        "registered_as": export.register,
    }
    return entry.get("state") in good and all(entry.get(key, value) == value for key, value in wanted.items())


def check_export(run: RunConfig) -> None:
    """Raise UserError for an export that cannot be made of this run."""
    export = run.export
    asked = asked_exports(run)
    if asked and run.schedule.epochs == 0:
        raise UserError(
            f"export: schedule.epochs=0 trains nothing, so there is no model/ to make {asked[0]} of; say export=[], or "
            "train"
        )
    if export.merge and run.method.name == "full":
        others = ",".join(step for step in SWITCHES if step != "merge" and getattr(export, step))
        raise UserError(
            "export=merge: method=full has no adapter to merge, model/ is the whole model already; leave merge out, "
            f"as in export=[{others}]"
        )
    _check_quantization(export)


def _check_quantization(export: ExportConfig) -> None:
    kinds = export.quantization
    for kind in kinds:
        if kind not in QUANTIZATIONS:
            raise UserError(
                f"export.quantization=[{','.join(kinds)}]: no such value{did_you_mean(kind, QUANTIZATIONS)}; there are "
                f"{', '.join(QUANTIZATIONS)}"
            )
    if export.gguf and not kinds:
        raise UserError(f"export.quantization=[]: export=gguf needs at least one of {', '.join(QUANTIZATIONS)}")
    if len(set(kinds)) < len(kinds):
        raise UserError(f"export.quantization=[{','.join(kinds)}]: names one of them twice; drop it")
