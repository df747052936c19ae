"""metrics.jsonl: every number of a run, one object a line; what MLflow shows is sent from here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftx.run_folder import RunFolder

# Where the newest row is looked for: many rows long.
TAIL_BYTES = 1 << 16


def append(folder: RunFolder, path: Path, row: dict[str, Any]) -> None:
    """Add a row to a file of the run; it is on its way to the disk when this returns.

    Raises Fenced. Opened before the last look at the lock: whoever takes the run over puts another file in its place
    (``cut_after``), and the row of one who slept in between goes to the old one.
    """
    with path.open("a", encoding="utf-8") as file:
        folder.check_ours()
        file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All complete rows; the half line of a killed writer is no row."""
    return list(_complete_rows(path))


class Follower:
    """Reads a file on from where it last stopped. What stands there stays: whoever cuts the file begins anew."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def fresh(self) -> list[dict[str, Any]]:
        """The complete rows that came since."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            complete = file.read().rpartition(b"\n")[0]
        self._offset += len(complete) + bool(complete)
        return [json.loads(line) for line in complete.splitlines()]


def last_training_row(path: Path) -> dict[str, Any]:
    """The newest row with a training loss near the end of the file, {} when there is none; cheap for a long file."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    return next((json.loads(line) for line in reversed(lines) if b'"train_loss"' in line and line[:1] == b"{"), {})


def cut_after(folder: RunFolder, step: int) -> int:
    """Keep the rows up to ``step``; later ones, which a resume writes again, move to ``metrics.cut-<n>.jsonl``.

    What is kept is in a new file, also where nothing is cut. Returns how many rows were moved.
    """
    path = folder.metrics
    if not path.exists():
        return 0
    rows = read(path)
    kept = [row for row in rows if row["step"] <= step]
    cut = [row for row in rows if row["step"] > step]
    if cut:
        number = 1
        while (aside := path.with_name(f"metrics.cut-{number}.jsonl")).exists():
            number += 1
        folder.write_text(aside, _lines(cut))
    folder.write_text(path, _lines(kept))
    return len(cut)


def _complete_rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield json.loads(line)


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
