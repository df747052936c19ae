"""The schema of ``launcher``: how jobs are started."""

from dataclasses import dataclass
from typing import Any

from ftx.config.schema_keys import key, section


@dataclass(frozen=True)
class ContainerConfig:
    """What the processes of a SLURM job run in; the code, the runs and the data have to be seen inside."""

    # pyxis: srun's own option for enroot images. apptainer: each process is started through it.
    kind: str = key("none", choices=("none", "pyxis", "apptainer"))
    image: str | None = None
    # As the container program writes them, for example /data:/data:ro.
    mounts: list[str] = key([])
    # The Python inside.
    python: str = "python3"


@dataclass(frozen=True)
class LauncherConfig:
    """How jobs are started. All but the first keys are read by launcher=slurm only."""

    name: str = key("local", choices=("local", "slurm"))
    # How many runs of a sweep may work side by side.
    parallel: int = key(1, minimum=1)
    # Print what would be submitted, and submit nothing.
    dry_run: bool = False
    # Submit although the sweep may take more GPU-hours than launcher.max_gpu_hours.
    yes: bool = False
    max_gpu_hours: float = key(100.0, minimum=0)
    # Minutes until SLURM ends a job, which goes on in the next one; null: the partition's own limit.
    time_min: int | None = key(60, minimum=1)
    # Seconds before the time limit at which a checkpoint is written: SLURM looks at its clock every 30 to 60 seconds.
    warning_s: int = key(180, minimum=10, maximum=65535)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    # Of one node, as SLURM writes it: 64G; 0 is all of it.
    memory: str | None = None
    cpus_per_task: int | None = key(None, minimum=1)
    constraint: str | None = None
    # A whole node for each job, whatever it asks for.
    exclusive: bool = False
    container: ContainerConfig = section(ContainerConfig)
    # Shell lines before anything else of a job: module load …, export …
    setup: list[str] = key([])
    # Further options by name: {reservation: maintenance, nice: 100}; true is an option without a value.
    sbatch: dict[str, Any] = key({})
    srun: dict[str, Any] = key({})
    # How often a run that crashed is started again; a mistake of yours never is.
    retries: int = key(1, minimum=0)
    # How often a job may begin again in all: after its time limit, a preemption, a dead node, a crash.
    restarts: int = key(50, minimum=0)
    # Minutes without any progress of a rank until the job is taken for stuck, ended and started again; null: never.
    watchdog_min: float | None = key(30.0, above=0)
