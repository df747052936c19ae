"""Every environment variable that ftx reads or sets; no other module touches ``os.environ``."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlsplit

CHECKOUT = Path(__file__).resolve().parent.parent

LIBRARY_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # W&B's reports of its own errors.
    "WANDB_ERROR_REPORTING": "false",
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # At the end of each run of a tracking server.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # PyTorch's profiler announces itself on stderr.
    "KINETO_LOG_LEVEL": "99",
    # Idle OpenMP threads give the core away soon: spinning, they cost a run on a shared machine most of its speed.
    "GOMP_SPINCOUNT": "1000",
    # A tracking server that is away must not hold the sender up: what is missing is sent later from metrics.jsonl.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}


def set_library_defaults() -> None:
    """Telemetry off and libraries quiet, unless the environment says otherwise. Call before they are imported."""
    for name, value in LIBRARY_DEFAULTS.items():
        os.environ.setdefault(name, value)


def announce_cpu() -> None:
    """Tell deepspeed that there is no accelerator to look for, before it is imported and warns that it found none."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


def server_environment() -> dict[str, str]:
    """The environment of an MLflow server that does nothing besides tracking: the rest takes most of its memory."""
    return {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def processors() -> int:
    """How many this process may use: a scheduler may give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slurm_job_id() -> str | None:
    """The SLURM job that this process belongs to, if any: ``123``, of an array ``123_4``."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def slurm_attempt() -> int:
    """How often SLURM has started this job before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def this_attempt() -> str:
    """Which start of which SLURM job this process belongs to: ``123_4-2``; empty outside of SLURM."""
    job_id = slurm_job_id()
    return f"{job_id}-{slurm_attempt()}" if job_id else ""


def submitting_environment() -> dict[str, str]:
    """Of this shell, for sbatch: without what it knows of a job that it may itself be running in."""
    inside = "SLURM_JOB_ID" in os.environ
    return {
        name: value
        for name, value in os.environ.items()
        if not (inside and name.startswith(("SLURM_", "SLURMD_", "SRUN_")) and name != "SLURM_CONF")
    }


@dataclass(frozen=True)
class SlurmJob:
    """The job that this process is the batch script of."""

    id: str
    index: int
    """In its array."""
    attempt: int
    nodes: str


def slurm_job() -> SlurmJob:
    """As SLURM describes it."""
    index = int(os.environ["SLURM_ARRAY_TASK_ID"])
    return SlurmJob(str(slurm_job_id()), index, slurm_attempt(), os.environ["SLURM_JOB_NODELIST"])


def slurm_hosts() -> list[str]:
    """The nodes of this job, in SLURM's order: ranks fill them one after another."""
    from submitit.slurm.slurm import SlurmJobEnvironment

    return list(SlurmJobEnvironment().hostnames)


def node_name() -> str:
    """Of the machine that this process is on, as SLURM calls it."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename


def visible_gpus() -> list[str] | None:
    """The devices that CUDA_VISIBLE_DEVICES allows; None when it is not set."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if value is None else [part for part in value.split(",") if part.strip()]


def hub_is_offline() -> bool:
    """Whether the user forbade look-ups on the model hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}


def wandb_mode() -> str | None:
    """Whether W&B sends, as the user's shell says."""
    return os.environ.get("WANDB_MODE") or None


def has_wandb_key() -> bool:
    """Whether W&B would find out whose runs these are without asking: in a variable, or where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        with suppress(OSError, NetrcParseError):
            if file and netrc(Path(file).expanduser()).authenticators(str(host)):
                return True
    return False


def openai_key() -> str:
    """What a server that speaks OpenAI's API asks for; most on one's own machine ask for nothing."""
    return os.environ.get("OPENAI_API_KEY") or "none"


@dataclass(frozen=True)
class Rank:
    """Which of a run's processes this is."""

    index: int = 0
    count: int = 1
    local: int = 0
    """Its number among those on the same machine: the device it uses."""

    @property
    def is_main(self) -> bool:
        """The one that writes and speaks."""
        return self.index == 0


@dataclass(frozen=True)
class Rendezvous:
    """Where the processes of a run meet: the address of rank 0."""

    host: str
    port: int


def this_rank() -> Rank:
    """As whoever started this process says; alone where nobody does."""
    values = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    index, count, local = (int(value) for value in values if value is not None) if None not in values else (0, 1, 0)
    return Rank(index, count, local)


def take_slurm_rank(hosts: Sequence[str]) -> Rank:
    """Become the rank that SLURM started this task as, and know where the ranks meet: on the first of the job's hosts.

    The port is another one for each job and each start of it, below those that outgoing connections take.
    """
    number, attempt = int(os.environ["SLURM_JOB_ID"]), slurm_attempt()
    port = 20000 + 4 * ((number + 131 * attempt) % 3000)
    rank = Rank(int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"]), int(os.environ["SLURM_LOCALID"]))
    if rank.count > 1:  # one alone meets nobody, and libraries would take it for one of several
        os.environ |= _of_rank(rank, Rendezvous(hosts[0], port))
    return rank


def meeting_point() -> Rendezvous:
    """Where whoever started the ranks wants them to meet."""
    return Rendezvous(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))


def child_environment(
    threads: int, rank: Rank | None = None, meet_at: Rendezvous | None = None, gpus: Sequence[str] = ()
) -> dict[str, str]:
    """The environment of a run, or of one rank of it, that gets a process of its own and ``threads`` CPU threads.

    ``gpus``: the only ones that it sees; all where none are named.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if rank is not None and meet_at is not None:
        environment |= _of_rank(rank, meet_at)
    return environment


def _of_rank(rank: Rank, meet_at: Rendezvous) -> dict[str, str]:
    """As torch.distributed and DeepSpeed read it."""
    return {
        "RANK": str(rank.index),
        "WORLD_SIZE": str(rank.count),
        "LOCAL_RANK": str(rank.local),
        "MASTER_ADDR": meet_at.host,
        "MASTER_PORT": str(meet_at.port),
    }
