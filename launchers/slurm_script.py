"""The sbatch script of an array of runs: the same text whether it is submitted or only looked at."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import SlurmExecutor

from ftx.config.hardware_schema import HardwareConfig
from ftx.config.launcher_schema import LauncherConfig
from ftx.config.schema import RunConfig

# What another launcher, in whose process this one may have been started, says to its own ranks.
FOREIGN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Sites have at least so many elements of an array (MaxArraySize is 1001 unless set).
LARGEST_ARRAY = 1000


@dataclass(frozen=True)
class Shape:
    """What runs must have in common to be one array."""

    hardware: HardwareConfig
    launcher: LauncherConfig

    @property
    def tasks(self) -> int:
        return self.hardware.nodes * self.hardware.processes_per_node

    def __str__(self) -> str:
        hardware = self.hardware
        nodes = f"{hardware.nodes} node{'s' * (hardware.nodes > 1)}"
        each = hardware.gpus_per_node if hardware.device == "cuda" else hardware.processes_per_node
        kind = hardware.gpu or "GPU" if hardware.device == "cuda" else "process" + "es" * (each > 1)
        return f"{nodes} × {each} {kind}"


def shape_of(run: RunConfig) -> Shape:
    """Precision and the like make no difference to SLURM."""
    asked = HardwareConfig()
    for name in ("device", "gpu", "nodes", "gpus_per_node", "processes_per_node", "threads"):
        asked = replace(asked, **{name: getattr(run.hardware, name)})
    return Shape(asked, run.launcher)


@dataclass(frozen=True)
class Place:
    """Where a submission's files are, and what its jobs run."""

    folder: Path
    code: Path
    started_in: Path


class _Executor(SlurmExecutor):
    """Writes scripts also where SLURM is not installed."""

    @classmethod
    def affinity(cls) -> int:
        return 2


def executor(shape: Shape, place: Place, *, name: str, count: int, after: str | None = None) -> SlurmExecutor:
    """Submitit's, with the parameters of an array of ``count`` runs; ``after`` is a dependency of the array."""
    hardware, launcher = shape.hardware, shape.launcher
    made = _Executor(place.folder)
    made.update_parameters(
        job_name=name,
        partition=launcher.partition,
        account=launcher.account,
        qos=launcher.qos,
        constraint=launcher.constraint,
        time=launcher.time_min,
        nodes=hardware.nodes,
        ntasks_per_node=hardware.processes_per_node,
        gpus_per_node=hardware.gpus_per_node if hardware.device == "cuda" else None,
        cpus_per_task=launcher.cpus_per_task,
        exclusive=launcher.exclusive or None,
        signal_delay_s=launcher.warning_s,
        dependency=after,
        array_parallelism=launcher.parallel,
        comment=f"ftx:{place.folder}",
        wckey=None,
        setup=[*launcher.setup, *_environment(shape, place)],
        use_srun=False,
        stderr_to_stdout=True,
        additional_parameters=_additional(launcher, place, after),
    )
    made.parameters["map_count"] = count
    return made


def script(made: SlurmExecutor, shape: Shape, place: Place) -> str:
    """The supervisor of each job, with the srun that it starts the ranks by."""
    python = shlex.quote(sys.executable)
    command = f"exec {python} -u -m launchers.slurm_batch {shlex.quote(str(place.folder))} {shlex.join(srun(shape))}"
    return made._make_submission_file_text(command, uid="")


def srun(shape: Shape) -> list[str]:
    """One task for each rank; a rank that fails ends the others. The run's folder comes last."""
    launcher, container = shape.launcher, shape.launcher.container
    options: dict[str, Any] = {"kill-on-bad-exit": 1, "unbuffered": True, "ntasks": shape.tasks}
    python = [sys.executable]
    if container.kind == "pyxis":
        options["container-image"] = container.image
        if container.mounts:
            options["container-mounts"] = ",".join(container.mounts)
        python = [container.python]
    if container.kind == "apptainer":
        binds = [word for mount in container.mounts for word in ("--bind", mount)]
        gpus = ["--nv"] if shape.hardware.device == "cuda" else []
        python = ["apptainer", "exec", *gpus, *binds, str(container.image), container.python]
    return ["srun", *_flags(options | launcher.srun), *python, "-u", "-m", "launchers.slurm_task"]


def _additional(launcher: LauncherConfig, place: Place, after: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {"requeue": True, "output": str(place.folder / "%A_%a.txt")}
    if launcher.memory:
        options["mem"] = launcher.memory
    if after:
        options["kill-on-invalid-dep"] = "yes"
    return options | launcher.sbatch


def _environment(shape: Shape, place: Place) -> list[str]:
    """Besides that of the shell that submits, which sbatch passes on."""
    exported = {"PYTHONSAFEPATH": "1"}
    if shape.launcher.cpus_per_task:
        exported["SRUN_CPUS_PER_TASK"] = str(shape.launcher.cpus_per_task)
    threads = shape.hardware.threads or shape.launcher.cpus_per_task
    if threads:
        exported["OMP_NUM_THREADS"] = str(threads)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in exported.items()]
    # The code first, then what the user's own functions are found by: where he stood, and his own path.
    path = shlex.quote(f"{place.code}:{place.started_in}")
    return [f"unset {' '.join(FOREIGN)}", f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}", *exports]


def _flags(options: Mapping[str, Any]) -> list[str]:
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
