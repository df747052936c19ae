"""Which rank failed first, and why: the others then fail too, of a connection that broke, and should not say that."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ftx.run_folder import FIRST_FAILURE, RunFolder, of_this_attempt, write_text


@dataclass(frozen=True)
class RankFailure:
    """How one of a run's processes came to its end."""

    rank: int
    reason: str

    def __str__(self) -> str:
        return f"rank {self.rank}: {self.reason}"


def note_failure(folder: RunFolder, failure: RankFailure) -> None:
    """Keep it unless another rank was first."""
    mine = folder.path / of_this_attempt(f".rank-{failure.rank}.failed")
    write_text(mine, json.dumps(asdict(failure)))
    try:
        _file(folder).hardlink_to(mine)
    except FileExistsError:
        pass
    finally:
        mine.unlink()


def first_failure(folder: RunFolder) -> RankFailure | None:
    """What was noted first since the last ``forget_failure``."""
    file = _file(folder)
    return RankFailure(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def forget_failure(folder: RunFolder) -> None:
    """Before the ranks start, and when the run's status says it."""
    _file(folder).unlink(missing_ok=True)


def _file(folder: RunFolder) -> Path:
    return folder.path / of_this_attempt(FIRST_FAILURE)
