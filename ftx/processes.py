"""Which process holds something, whether it is still there, and which process ends with which."""

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from ftx.errors import ExitCode

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    host: str
    pid: int
    started: float
    """Start of the process in seconds since boot (0 where there is no /proc): tells a recycled pid apart."""
    job_id: str | None
    since: str
    """When the lock was asked for: ISO 8601, UTC."""
    boot: str
    """Boot and pid namespace: only where both are ours does ``pid`` mean anything to us."""
    token: str
    """Random: tells two locks of one process apart."""
    attempt: int = 0
    """How often SLURM had started the job before."""

    def __str__(self) -> str:
        job = f", job {self.job_id}" if self.job_id else ""
        job += f", attempt {self.attempt}" if self.attempt else ""
        return f"process {self.pid} on {self.host}{job}" if self.pid else "an unknown process"


UNKNOWN = Holder(host="unknown", pid=0, started=0.0, job_id=None, since="", boot="", token="")
"""Stands for the holder of a lock file that cannot be read."""


def this_process(job_id: str | None, attempt: int = 0) -> Holder:
    """Ourselves, as a holder with a new token."""
    process = _state_and_start(os.getpid())
    return Holder(
        host=os.uname().nodename,
        pid=os.getpid(),
        started=process[1] if process else 0.0,
        job_id=job_id,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        boot=_boot(),
        token=os.urandom(8).hex(),
        attempt=attempt,
    )


def is_earlier_attempt(holder: Holder, job_id: str | None, attempt: int) -> bool:
    """Whether it is of the same job, from before SLURM started it again: whatever it still does, its time is over."""
    return job_id is not None and holder.job_id == job_id and holder.attempt < attempt


def is_here(holder: Holder) -> bool:
    """On this machine and in our pid namespace, so that its pid can be looked up."""
    return (holder.host, holder.boot) == (os.uname().nodename, _boot())


def is_running(holder: Holder) -> bool:
    """Whether a process here is alive, and not another one with the same pid."""
    process = _state_and_start(holder.pid)
    if process is not None:
        return process[0] not in ("Z", "X") and process[1] == holder.started
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, and hidden from /proc
        return True
    return True


def die_with(launcher: int) -> None:
    """On Linux, get SIGTERM when the launcher dies, however it dies; elsewhere the run goes on alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher:  # it died while this process was still importing
            sys.exit(ExitCode.INTERRUPTED)


@cache
def _boot() -> str:
    """Containers may share a host's name and boot, but not its pids; empty where there is no /proc."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _state_and_start(pid: int) -> tuple[str, float] | None:
    """A process's state (``Z``: killed, but its parent has not noticed yet) and start; None where it is not seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # what follows the name, which may itself hold blanks and brackets
    return fields[0].decode(), int(fields[19]) / os.sysconf("SC_CLK_TCK")
