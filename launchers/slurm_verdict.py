"""What the end of a job's ranks means for the run."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ftx.attempts import CRASHED, FINISHED, INTERRUPTED, MISTAKE
from ftx.environment import SlurmJob, slurm_attempt, slurm_job_id
from ftx.errors import ExitCode
from ftx.rank_failure import first_failure
from ftx.run_folder import RunFolder
from ftx.slurm_queue import first_line, look
from ftx.writing import write_text
from launchers.slurm_step import Death, End


@dataclass(frozen=True)
class Verdict:
    """One of the outcomes of ftx.attempts, and why."""

    outcome: str
    reason: str = ""


def judge(folder: RunFolder, end: End, *, told: bool) -> Verdict:
    """``told``: the job was ended from outside, so that nothing its ranks did says anything about the run."""
    code, status = read_code(folder), folder.read_status()
    failure = first_failure(folder)
    if code == ExitCode.FINISHED:
        return Verdict(FINISHED)
    if told:
        return Verdict(INTERRUPTED, "ended from outside (SIGTERM)")
    if code == ExitCode.USER_MISTAKE:
        return Verdict(MISTAKE, status.reason)
    if end.stuck:
        return Verdict(CRASHED, end.stuck)
    # Of a rank that is killed first the others only know that it is gone.
    if end.deaths and _by_a_signal(end.deaths[0]):
        return Verdict(CRASHED, str(end.deaths[0]))
    if failure is not None:
        return Verdict(MISTAKE if failure.mistake else CRASHED, str(failure))
    if code == ExitCode.INTERRUPTED:
        return Verdict(INTERRUPTED, status.reason)
    if code == ExitCode.FAILED and status.reason:
        return Verdict(CRASHED, status.reason)
    said = str(end.deaths[0]) if end.deaths else f"srun ended with {end.code}"
    return Verdict(CRASHED, f"{said}, without a word; see {folder.log}")


def _by_a_signal(death: Death) -> bool:
    """Not by the one that srun ends the others with."""
    return not re.match(r"Exited with|Terminated", death.how)


def write_code(folder: RunFolder, code: int) -> None:
    """For rank 0: how the run ended, as far as it could tell."""
    write_text(_code_file(folder), str(int(code)))


def read_code(folder: RunFolder) -> int | None:
    """None for a rank 0 that did not come to its end."""
    file = _code_file(folder)
    return int(file.read_text()) if file.exists() else None


def forget_code(folder: RunFolder) -> None:
    """Once it is read."""
    _code_file(folder).unlink(missing_ok=True)


def is_at_its_time_limit(job: SlurmJob) -> bool:
    """Whether that is why SLURM ends it."""
    said = look(job.id)
    return said is not None and said.reason == "TimeLimit"


def requeue(job: SlurmJob) -> str:
    """Back into the queue with the same job id; what SLURM has against it, empty where it does so."""
    done = subprocess.run(["scontrol", "requeue", job.id], capture_output=True, text=True, check=False)
    return first_line(done.stderr) if done.returncode else ""


def _code_file(folder: RunFolder) -> Path:
    """Of this start of this job only: one that is cut off from SLURM may still write its own."""
    return folder.path / f".code-{slurm_job_id()}-{slurm_attempt()}"
