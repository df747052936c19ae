"""attempts.jsonl: each start of a run by SLURM, and how it ended; one that says nothing was ended from outside."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ftx.run_folder import RunFolder
from ftx.writing import now

FINISHED, INTERRUPTED, CRASHED, MISTAKE = "finished", "interrupted", "crashed", "user mistake"


@dataclass(frozen=True)
class Attempt:
    """``number`` is SLURM's count of restarts of the job; ``outcome`` is empty until somebody could say it."""

    job_id: str
    number: int
    nodes: str
    began: str
    ended: str = ""
    outcome: str = ""
    reason: str = ""


def note_beginning(folder: RunFolder, job_id: str, number: int, nodes: str) -> None:
    """On its way to the disk when this returns."""
    _append(folder, Attempt(job_id, number, nodes, now()))


def note_end(folder: RunFolder, job_id: str, number: int, outcome: str, reason: str) -> None:
    """Of an attempt that has begun."""
    began = next(one for one in attempts(folder) if (one.job_id, one.number) == (job_id, number))
    _append(folder, Attempt(job_id, number, began.nodes, began.began, now(), outcome, reason))


def attempts(folder: RunFolder) -> list[Attempt]:
    """In the order in which they began."""
    found = {(one.job_id, one.number): one for one in _rows(folder)}
    return list(found.values())


def _rows(folder: RunFolder) -> Iterator[Attempt]:
    if folder.attempts.exists():
        for line in folder.attempts.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield Attempt(**json.loads(line))


def _append(folder: RunFolder, attempt: Attempt) -> None:
    with folder.attempts.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(attempt)) + "\n")
