"""Markdown tables, padded so that they also read well in a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column of a table, as text."""

    title: str
    cells: Sequence[str]
    right_aligned: bool = True


def to_table(columns: Sequence[Column], bold: tuple[int, int] | None = None) -> str:
    """The table, without a line break at its end; ``bold`` is the (row, column) of a cell that stands out."""
    cells = [[_escaped(cell) for cell in column.cells] for column in columns]
    if bold is not None:
        row, place = bold
        cells[place][row] = f"**{cells[place][row]}**"
    return "\n".join("| " + " | ".join(line) + " |" for line in zip(*map(_padded, columns, cells), strict=True))


def _padded(column: Column, cells: Sequence[str]) -> list[str]:
    """The title, the rule below it, and the cells."""
    title = _escaped(column.title)
    width = max(3, len(title), *map(len, cells)) if cells else max(3, len(title))
    rule = "-" * (width - 1) + ":" if column.right_aligned else "-" * width
    pad = str.rjust if column.right_aligned else str.ljust
    return [pad(title, width), rule, *(pad(cell, width) for cell in cells)]


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", r"\|")
