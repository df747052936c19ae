"""What the words say of the launcher, and what jobs on other machines can track to."""

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import fields
from urllib.parse import urlsplit

from ftx.config.launcher_schema import ContainerConfig, LauncherConfig
from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.errors import UserError

SQLITE = "sqlite:///"
# Also what stands for every address of the machine that says it.
LOOPBACK = re.compile(r"localhost|ip6-localhost|localhost\.localdomain|127(\.\d+){1,3}|::1|0\.0\.0\.0|::")
MEMORY = re.compile(r"\d+[KMGT]?", re.IGNORECASE)


def _on_slurm(run: RunConfig) -> bool:
    return run.launcher.name == "slurm"


def _in_container(run: RunConfig) -> bool:
    return run.launcher.container.kind != "none"


SLURM_ONLY = (_on_slurm, "only launcher=slurm does")
# As READ_WHEN of ftx/config/checks.py, which these are part of.
LAUNCHER_READ_WHEN: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    **{
        f"launcher.{item.name}": SLURM_ONLY
        for item in fields(LauncherConfig)
        if item.name not in ("name", "parallel", "watchdog_min")
    },
    "launcher.watchdog_min": (
        lambda run: _on_slurm(run) or ranks(run) > 1,
        "only launcher=slurm and runs of several processes have something to watch",
    ),
    **{
        f"launcher.container.{item.name}": (_in_container, "launcher.container.kind=none uses no container")
        for item in fields(ContainerConfig)
        if item.name != "kind"
    },
}


def check_launcher(run: RunConfig) -> None:
    """Raise UserError for keys of ``launcher`` that no SLURM job can be made of."""
    launcher = run.launcher
    if not _on_slurm(run):
        return
    if launcher.memory is not None and not MEMORY.fullmatch(launcher.memory):
        raise UserError(
            f"launcher.memory={launcher.memory}: must be a number of megabytes, or one with K, M, G or T behind it, as "
            "in 64G"
        )
    if _in_container(run) and not launcher.container.image:
        raise UserError(
            f"launcher.container.kind={launcher.container.kind}: needs an image; say launcher.container.image=IMAGE"
        )
    for section, options in (("sbatch", launcher.sbatch), ("srun", launcher.srun)):
        for name, value in options.items():
            if not isinstance(value, str | int | float):
                raise UserError(f"launcher.{section}.{name}={value}: must be one text or number, or true")
    if launcher.time_min is not None and launcher.time_min * 60 <= launcher.warning_s:
        raise UserError(
            f"launcher.time_min={launcher.time_min}: no longer than launcher.warning_s={launcher.warning_s} seconds, "
            f"which are left for the last checkpoint; say launcher.time_min={launcher.warning_s // 60 + 1} or more"
        )


def check_tracking_of_jobs(runs: Sequence[RunConfig]) -> None:
    """Raise UserError where the jobs of these runs, all with launcher=slurm, cannot send to MLflow side by side."""
    for run in runs:
        uri = run.tracking.uri
        if run.tracking.offline:
            continue
        if uri.startswith(SQLITE) and len(runs) > 1:
            raise UserError(
                f"tracking.uri={uri}: {len(runs)} jobs cannot share one SQLite file over a shared file system; start "
                "`make server` and say tracking.uri=http://HOST:PORT, or say tracking.offline=true and afterwards "
                "python -m ftx.report --sync"
            )
        place = urlsplit(uri)
        if not uri.startswith(SQLITE) and LOOPBACK.fullmatch(place.hostname or ""):
            port = f":{place.port}" if place.port else ""
            raise UserError(
                f"tracking.uri={uri}: means the node itself to a job; name the machine that the server is on, if it is "
                f"this one tracking.uri={place.scheme}://{socket.gethostname()}{port}"
            )
