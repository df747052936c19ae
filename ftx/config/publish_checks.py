"""What the words say of publishing: a repository on the hub, a name in MLflow's model registry."""

import re
from collections.abc import Callable

from ftx.config.export_schema import UPLOADS
from ftx.config.keys import did_you_mean
from ftx.config.schema import RunConfig
from ftx.errors import UserError

# The hub's own rule for OWNER/NAME.
REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")


def _to_hub(run: RunConfig) -> bool:
    return run.export.hub


HUB_ONLY = (_to_hub, "only export=hub does")
# As READ_WHEN of ftx/config/checks.py, which these are part of.
PUBLISH_READ_WHEN: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    "export.repository": HUB_ONLY,
    "export.private": HUB_ONLY,
    "export.push": HUB_ONLY,
    "export.upload": HUB_ONLY,
}


def check_publish(run: RunConfig) -> None:
    """Raise UserError for what could not be published, whatever the run turns out to be."""
    export = run.export
    wants = {"export.hub": export.hub, "export.card": export.card, "export.register": export.register is not None}
    for key, wanted in wants.items():
        if wanted and run.schedule.epochs == 0:
            raise UserError(f"{key}: schedule.epochs=0 trains nothing that could be published; leave {key} out")
    if export.hub:
        _check_repository(export.repository)
        _check_upload(run)
    if export.register is not None:
        _check_register(run)


def _check_repository(repository: str | None) -> None:
    if repository is None:
        raise UserError("export.repository is not set: export=hub needs export.repository=OWNER/NAME")
    if not REPOSITORY.fullmatch(repository) or "--" in repository or ".." in repository:
        raise UserError(
            f"export.repository={repository}: not a name on the hub; write OWNER/NAME, of letters, digits and . _ -"
        )


def _check_upload(run: RunConfig) -> None:
    upload = run.export.upload
    if not upload:
        raise UserError(f"export.upload=[]: nothing to upload; choose of {', '.join(UPLOADS)}")
    for name in upload:
        if name not in UPLOADS:
            raise UserError(
                f"export.upload=[{name}]: no such part{did_you_mean(name, UPLOADS)}; there are {', '.join(UPLOADS)}"
            )
    if "merged" in upload and run.method.name == "full":
        raise UserError(
            "export.upload=[merged]: method=full has no adapter to merge, its model is whole; say export.upload=[model]"
        )


def _check_register(run: RunConfig) -> None:
    name = str(run.export.register)
    if not name.strip() or re.search(r"[/:]", name) or name in (".", ".."):
        raise UserError(f"export.register={name}: not a name for MLflow's registry; write one without / and :")
    if run.tracking.offline:
        raise UserError(
            f"export.register={name}: tracking.offline=true sends nothing to MLflow, where the registry is; leave one "
            "of them out"
        )


def check_can_stand_alone(run: RunConfig, *, is_merged: bool, merge_too: str) -> None:
    """Raise UserError for an adapter that MLflow could not load as it was trained, unless the merged model is taken.

    ``is_merged``: whether that is there; ``merge_too``: what to say to have it.
    """
    export = run.export
    if export.register is None or run.method.name == "full" or is_merged or export.merge or export.gguf:
        return
    if run.model.weights == "random":
        raise UserError(
            f"export.register={export.register}: an adapter on random weights is nothing without them; {merge_too}"
        )
    if run.method.name == "qlora":
        raise UserError(
            f"export.register={export.register}: MLflow would put the adapter on its base as it is, not in the 4 bits "
            f"that it was trained on; {merge_too}"
        )
