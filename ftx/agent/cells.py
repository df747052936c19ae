"""What a cell said, cut to what a model is shown of it."""

from collections.abc import Callable
from dataclasses import dataclass

RESULT_LINES = 25
STREAM_LINES = 10
# A line of a wide table, or one that never ends.
LINE_CHARACTERS = 10_000

_ENDED = {
    "interrupted": "the cell took longer than {seconds:g} s and was interrupted; variables are kept",
    "killed": "the cell took longer than {seconds:g} s and did not stop when interrupted; the kernel was started "
    "again, and all variables are gone",
    "died": "the kernel died; it was started again, and all variables are gone",
    "ended": "the notebook was ended because {why}; it was started again, all variables and files are gone",
}


@dataclass(frozen=True)
class CellOutcome:
    """What became of a cell. ``state``: ok, error, interrupted, killed, died, or ended (with the reason in ``why``)."""

    state: str
    stdout: str = ""
    stderr: str = ""
    result: str = ""
    traceback: str = ""
    why: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return self.state != "ok"


def shown(cell: CellOutcome, wall_seconds: float) -> str:
    """What the model reads: each part under its name, cut with a mark that says so."""
    parts = [
        _part("stdout", cell.stdout, STREAM_LINES, _beginning),
        _part("stderr", cell.stderr, STREAM_LINES, _beginning),
        _part("result", cell.result, RESULT_LINES, _beginning),
        # What went wrong stands at a traceback's end.
        _part("traceback", cell.traceback, STREAM_LINES, _end),
    ]
    if cell.state in _ENDED:
        parts.append(f"[{_ENDED[cell.state].format(seconds=wall_seconds, why=cell.why)}]")
    return "\n".join(part for part in parts if part) or "[the cell ran and printed nothing]"


def _part(name: str, text: str, most: int, kept: Callable[[list[str], int], list[str]]) -> str:
    lines = [_cut_line(line) for line in text.rstrip("\n").splitlines()]
    if len(lines) > most:
        lines = kept(lines, most)
    return "\n".join([f"{name}:", *lines]) if lines else ""


def _beginning(lines: list[str], most: int) -> list[str]:
    return [*lines[:most], f"[… {len(lines) - most:,} more lines cut]"]


def _end(lines: list[str], most: int) -> list[str]:
    return [f"[… {len(lines) - most:,} lines before these cut]", *lines[-most:]]


def _cut_line(line: str) -> str:
    more = len(line) - LINE_CHARACTERS
    return line if more <= 0 else f"{line[:LINE_CHARACTERS]} [… {more:,} more characters cut]"
