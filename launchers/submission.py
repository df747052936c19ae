"""One array of jobs: its folder under ``<run_root>/.jobs``, and how it gets to SLURM exactly once.

A run's ticket names its submission before sbatch is asked, and the submission's folder is the job's comment in the
queue. Whoever submits again after a launcher that died in between finds out there whether sbatch had been answered.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from ftx.environment import submitting_environment
from ftx.errors import UserError
from ftx.run_folder import Phase, RunFolder, Ticket
from ftx.slurm_queue import Job, first_line
from ftx.writing import write_json, write_text

COMMENT = "ftx:"
# That a run has a job, and a ticket, of its own for.
PHASES = (Phase.ALL, Phase.SCORE)


@dataclass(frozen=True)
class Submission:
    """What the jobs of an array find in their submission's folder; ``runs`` are folders, by array index."""

    path: Path
    runs: tuple[Path, ...]
    phase: Phase = Phase.ALL
    sweep: Path | None = None

    def folders(self) -> list[RunFolder]:
        return [RunFolder(run) for run in self.runs]

    def save(self, script: str) -> None:
        self.path.mkdir(parents=True)
        said = {"phase": self.phase, "sweep": self.sweep and str(self.sweep), "runs": [str(run) for run in self.runs]}
        write_json(self.path / "runs.json", said)
        write_text(self.path / "script.sh", script)


def read_submission(path: Path) -> Submission:
    """What ``save`` wrote."""
    said = json.loads((path / "runs.json").read_text(encoding="utf-8"))
    sweep = said["sweep"] and Path(said["sweep"])
    return Submission(path, tuple(map(Path, said["runs"])), Phase(said["phase"]), sweep)


def next_number(run_root: Path, name: str) -> int:
    """Of the next submission of that name."""
    taken = [path.name.removeprefix(f"{name}.") for path in (run_root / ".jobs").glob(f"{name}.*")]
    return max((int(one) for one in taken if one.isdigit()), default=0) + 1


def path_of(run_root: Path, name: str, number: int) -> Path:
    """The folder of a submission."""
    return run_root / ".jobs" / f"{name}.{number}"


def submit(submission: Submission) -> str:
    """The array's job id. Its runs have their tickets before SLURM has the array, and the job ids afterwards.

    Raises UserError with sbatch's words where it refuses.
    """
    for index, folder in enumerate(submission.folders()):
        if submission.phase is not Phase.SCORE:
            folder.write_status(state="pending", reason="being submitted", job_id=None)
        folder.write_ticket(Ticket(str(submission.path), index), submission.phase)
    array = _sbatch(submission)
    for index, folder in enumerate(submission.folders()):
        folder.write_ticket(Ticket(str(submission.path), index, f"{array}_{index}"), submission.phase)
    return array


def adopt(folders: Iterable[RunFolder], queue: Mapping[str, Job]) -> None:
    """Write the job ids down that a launcher did not live to hear of."""
    by_comment = {(job.comment, job.id.rpartition("_")[2]): job.id for job in queue.values()}
    for folder, phase in product(folders, PHASES):
        ticket = folder.read_ticket(phase)
        if ticket and ticket.job_id is None:
            found = by_comment.get((f"{COMMENT}{ticket.submission}", str(ticket.index)))
            if found:
                folder.write_ticket(replace(ticket, job_id=found), phase)


def _sbatch(submission: Submission) -> str:
    command: Sequence[str] = ["sbatch", str(submission.path / "script.sh")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=submitting_environment())
    answered = re.search(r"Submitted batch job (\d+)", done.stdout)
    if done.returncode or not answered:
        said = first_line(done.stderr).removeprefix("sbatch: ").removeprefix("error: ")
        reason = f"sbatch refused the job: {said}"
        for folder in submission.folders():
            folder.write_status(state="failed", reason=reason)
        raise UserError(f"{reason} (the script is {submission.path / 'script.sh'}); mend launcher.* or the site file")
    return answered[1]
