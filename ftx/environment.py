"""Every environment variable that ftx reads or sets; no other module touches ``os.environ``."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

LIBRARY_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
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


def processors() -> int:
    """How many this process may use: a scheduler may give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slurm_job_id() -> str | None:
    """The SLURM job that this process belongs to, if any."""
    return os.environ.get("SLURM_JOB_ID")


def visible_gpus() -> list[str] | None:
    """The devices that CUDA_VISIBLE_DEVICES allows; None when it is not set."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if value is None else [part for part in value.split(",") if part.strip()]


def hub_is_offline() -> bool:
    """Whether the user forbade look-ups on the model hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}


def child_environment(threads: int) -> dict[str, str]:
    """The environment of a run that gets a process of its own and ``threads`` CPU threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}
