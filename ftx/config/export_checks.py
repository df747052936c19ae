"""What the words say of exporting, checked across their keys; and which exports a run asks for."""

import re
from collections.abc import Callable

from ftx.config.export_schema import QUANTIZATIONS, ExportConfig
from ftx.config.keys import did_you_mean
from ftx.config.schema import RunConfig
from ftx.errors import UserError

# The steps that are a switch each, and so a choice of the group.
SWITCHES = ("merge", "gguf", "card", "hub")
UPLOADS = ("model", "merged", "gguf")
OWNER_AND_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

EXPORT_READ_WHEN: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    "export.quantization": (lambda run: run.export.gguf, "only export=gguf does"),
    "export.repository": (lambda run: run.export.hub, "only export=hub does"),
    "export.private": (lambda run: run.export.hub, "only export=hub does"),
    "export.upload": (lambda run: run.export.hub, "only export=hub does"),
    "export.push": (lambda run: run.export.hub, "only export=hub does"),
    "export.check": (lambda run: run.export.merge or run.export.gguf, "only export=merge and export=gguf do"),
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


def check_export(run: RunConfig) -> None:
    """Raise UserError for an export that cannot be made of this run."""
    export = run.export
    asked = asked_exports(run)
    if asked and run.schedule.epochs == 0:
        raise UserError(
            f"export: schedule.epochs=0 trains nothing, so there is no model/ to make {asked[0]} of; leave export out, "
            "or train"
        )
    if export.merge and run.method.name == "full":
        raise UserError(
            "export=merge: method=full has no adapter to merge, model/ is the whole model already; leave merge out"
        )
    _check_quantization(export)
    _check_hub(export)


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


def _check_hub(export: ExportConfig) -> None:
    if export.hub and not export.repository:
        raise UserError("export.repository is not set: export=hub needs export.repository=OWNER/NAME")
    if export.repository and not OWNER_AND_NAME.fullmatch(export.repository):
        raise UserError(f"export.repository={export.repository}: must be OWNER/NAME of a repository on the hub")
    for what in export.upload:
        if what not in UPLOADS:
            raise UserError(
                f"export.upload=[{','.join(export.upload)}]: no such value{did_you_mean(what, UPLOADS)}; there are "
                f"{', '.join(UPLOADS)}"
            )
    if export.hub and not export.upload:
        raise UserError(f"export.upload=[]: export=hub needs at least one of {', '.join(UPLOADS)}")
    if export.register is not None and not export.register.strip():
        raise UserError("export.register=: must be a name; leave the word out to register nothing")
