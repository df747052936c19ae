"""What SLURM says of jobs: the queue, then the controller's memory, then accounting where a site has it."""

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from shutil import which

from ftx.environment import slurm_job_id
from ftx.errors import UserError
from ftx.processes import Holder

# States of a job that SLURM will still work on; of a requeued one, what it shows on its way back into the queue.
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
WORKING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Job:
    """A job, or one element of an array, as SLURM sees it."""

    id: str
    state: str
    reason: str = ""
    nodes: str = ""
    comment: str = ""

    @property
    def is_waiting(self) -> bool:
        return self.state in WAITING

    @property
    def is_active(self) -> bool:
        """Queued, running, or on its way back into the queue."""
        return self.state in WAITING | WORKING

    def __str__(self) -> str:
        if self.is_waiting:
            return f"job {self.id} is queued" + (f" ({self.reason})" if self.reason not in ("", "None") else "")
        return f"job {self.id} on {self.nodes}" if self.is_active and self.nodes else f"job {self.id}: {self.state}"


def is_here() -> bool:
    """Whether this machine can talk to SLURM at all."""
    return which("squeue") is not None


def queue() -> dict[str, Job]:
    """Every job of this user's that SLURM still works on, elements of arrays one by one.

    Raises UserError where SLURM does not answer.
    """
    return {job.id: job for job in _read(["squeue", "--me", "-h", "-r", "-o", "%i|%T|%r|%N|%k"]) if job.is_active}


def ended(ids: Iterable[str]) -> dict[str, Job]:
    """Those of the jobs that are no longer in the queue, as far as anybody remembers them."""
    wanted = set(ids)
    found: dict[str, Job] = {}
    for base in sorted({one.split("_")[0] for one in wanted}):
        found |= {job.id: job for job in _remembered(base) if job.id in wanted and not job.is_active}
    return found


def look(name: str) -> Job | None:
    """The job as slurmctld knows it now."""
    return next(iter(_shown(name) or []), None)


def has_lost_its_job(at_it: Holder) -> bool:
    """Whether SLURM has given up the job of whoever holds the run: he may live on a node that it cannot reach."""
    if at_it.job_id is None or at_it.job_id == slurm_job_id():
        return False
    job = look(at_it.job_id)
    return job is not None and not job.is_active


def steps_of(name: str) -> list[str]:
    """What of a job srun has started, as ``123_4.0``."""
    listed = _output(["squeue", "--steps", "-h", "-j", name, "-o", "%i"]) or ""
    return [step for step in listed.split() if step.rpartition(".")[2].isdigit()]


def _remembered(base: str) -> list[Job]:
    """By slurmctld for some minutes (MinJobAge), by accounting for ever; by nobody at a site without it."""
    shown = _shown(base)
    if shown is not None:
        return shown
    if which("sacct") is None:
        return []
    listed = _output(["sacct", "-X", "-n", "-P", "-j", base, "-o", "JobID,State,NodeList"]) or ""
    rows = [line.split("|") for line in listed.splitlines()]
    return [Job(row[0], row[1].split()[0], nodes=row[2]) for row in rows if len(row) == 3 and row[1]]


def _shown(name: str) -> list[Job] | None:
    """None where slurmctld has forgotten it."""
    said = _output(["scontrol", "-o", "show", "job", name])
    return None if said is None else [_from_record(line) for line in said.splitlines() if line.startswith("JobId=")]


def _from_record(line: str) -> Job:
    """A line of ``scontrol -o show job``."""

    def value(key: str) -> str:
        found = re.search(rf"(?:^| ){key}=(\S*)", line)
        return found[1] if found and found[1] != "(null)" else ""

    array, element = value("ArrayJobId"), value("ArrayTaskId")
    return Job(f"{array}_{element}" if array else value("JobId"), value("JobState"), value("Reason"), value("NodeList"))


def _read(command: list[str]) -> list[Job]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
    except FileNotFoundError:
        raise UserError(f"launcher=slurm: no {command[0]} on this machine; run it on a node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"SLURM does not answer ({command[0]}: nothing for {TIMEOUT_SECONDS} s); try again") from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"SLURM does not answer ({first_line(error.stderr)}); try again") from None
    return [Job(*line.split("|", 4)) for line in done.stdout.splitlines()]


def _output(command: list[str]) -> str | None:
    """What it says; None where it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def first_line(text: str) -> str:
    """The first line of what a SLURM command complained of."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
