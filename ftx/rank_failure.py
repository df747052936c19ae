"""Which rank failed first, and why: the others then fail too, of a connection that broke, and should not say that."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ftx.run_folder import FIRST_FAILURE, RunFolder
from ftx.writing import of_this_attempt, write_text


@dataclass(frozen=True)
class RankFailure:
    """How one of a run's processes came to its end."""

    rank: int
    reason: str
    mistake: bool = False
    """The user's: not worth another try."""

    def __str__(self) -> str:
        return f"rank {self.rank}: {self.reason}"


def in_words(ranks: Sequence[int]) -> str:
    """``ranks 0-2, 5``, of ascending numbers."""
    parts: list[list[int]] = []
    for rank in ranks:
        if parts and rank == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], rank]
        else:
            parts.append([rank])
    return f"rank{'s' if len(ranks) > 1 else ''} " + ", ".join("-".join(map(str, part)) for part in parts)


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
