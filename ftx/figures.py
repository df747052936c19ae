"""The style of all figures, and confusion matrices.

Figures read in grey as well as in colour, and the same numbers give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, BLUE, ORANGE, GREY = "#222222", "#2b5c8a", "#c4501b", "#7a7a7a"
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "legend.fontsize": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "ftx",
}
# From this ratio of the largest to the smallest value on, a linear axis would crowd the small ones together.
LOGARITHMIC_FROM = 25
DOTS_PER_INCH = 200
# Inches of an entry of a legend: its mark with the gaps beside it, and a letter of its text on average.
LEGEND_MARK, LEGEND_LETTER = 0.5, 0.07
# From this share of its row on, white reads better on a cell than ink.
DARK_FROM = 0.65


def confusion_matrix(
    counts: Sequence[Sequence[int]], row_labels: Sequence[str], column_labels: Sequence[str], title: str
) -> Figure:
    """Counts of gold rows against answered columns, shaded by their share of the row.

    Columns beyond the number of rows (``invalid``) stand apart behind a line.
    """
    import numpy as np
    from matplotlib import style
    from matplotlib.figure import Figure

    cells = np.asarray(counts)
    if cells.shape != (len(row_labels), len(column_labels)):
        raise ValueError(f"{len(row_labels)} rows and {len(column_labels)} columns do not fit counts {cells.shape}")
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    inches = 0.8 if len(column_labels) <= 10 else 0.42
    with style.context(["default", STYLE]):
        figure = Figure(
            figsize=(inches * len(column_labels) + 2.6, inches * len(row_labels) + 1.5), layout="constrained"
        )
        axes = figure.add_subplot()
        image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="equal")
        _write_counts(axes, cells, shares, size=10 if len(column_labels) <= 10 else 7.5)
        _name_cells(axes, row_labels, column_labels, turned=6 * max(map(len, column_labels)) > 72 * inches)
        axes.set_title(title, fontweight="bold", wrap=True)
        bar = figure.colorbar(image, ax=axes, pad=0.03, aspect=7 * inches * len(row_labels))
        bar.set_label("share of the gold class (%)")
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
    return figure


def confusion_matrices(
    of_arms: Mapping[str, Sequence[Sequence[int]]], row_labels: Sequence[str], column_labels: Sequence[str], title: str
) -> Figure:
    """One matrix for each arm, named by its title, on one scale; at most four side by side."""
    import numpy as np
    from matplotlib import style
    from matplotlib.figure import Figure

    across = min(len(of_arms), 4)
    down = -(-len(of_arms) // across)
    inches = 0.62 if len(column_labels) <= 10 else 0.34
    with style.context(["default", STYLE]):
        size = inches * len(column_labels) * across + 2.6, (inches * len(row_labels) + 0.5) * down + 1.4
        figure = Figure(figsize=size, layout="constrained")
        grid = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in grid[len(of_arms) :]:
            axes.remove()
        used = grid[: len(of_arms)]
        for place, (axes, (arm, counts)) in enumerate(zip(used, of_arms.items(), strict=True)):
            cells = np.asarray(counts)
            shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
            image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="equal")
            _write_counts(axes, cells, shares, size=8)
            _name_cells(axes, row_labels, column_labels, turned=True)
            axes.set(title=arm, xlabel="", ylabel="")
            axes.tick_params(labelleft=place % across == 0, labelbottom=place + across >= len(of_arms))
        figure.supxlabel("answered", fontsize=10)
        figure.supylabel("gold", fontsize=10)
        figure.suptitle(title, fontweight="bold", fontsize=11, x=0.02, ha="left")
        bar = figure.colorbar(image, ax=used, pad=0.02)
        bar.set_label("share of the gold class (%)")
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
    return figure


def save(figure: Figure, path_without_suffix: Path) -> tuple[Path, Path]:
    """Write the figure as PNG and as SVG, whose text stays text; dots in the name are kept. Returns both paths."""
    from matplotlib import style

    png, svg = (path_without_suffix.with_name(path_without_suffix.name + suffix) for suffix in (".png", ".svg"))
    save_png(figure, png)
    with style.context(["default", STYLE]):
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg


def save_png(figure: Figure, path: Path) -> None:
    """Where no SVG is wanted, as on the hub, which shows none."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        figure.savefig(path, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})


def _write_counts(axes: Axes, cells: np.ndarray, shares: np.ndarray, *, size: float) -> None:
    """In white on dark cells; what never happened is pale."""
    for row, column in product(*map(range, cells.shape)):
        count = cells[row, column]
        colour = "white" if shares[row, column] >= DARK_FROM else INK if count else GREY
        axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=size, color=colour)


def _name_cells(axes: Axes, row_labels: Sequence[str], column_labels: Sequence[str], *, turned: bool) -> None:
    turn: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    rows, columns = len(row_labels), len(column_labels)
    axes.set_xticks(range(columns), column_labels, **turn)
    axes.set_yticks(range(rows), row_labels)
    axes.set(xlabel="answered", ylabel="gold")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.vlines([i - 0.5 for i in range(1, columns)], -0.5, rows - 0.5, color="white", linewidth=1)
    axes.hlines([i - 0.5 for i in range(1, rows)], -0.5, columns - 0.5, color="white", linewidth=1)
    if columns > rows:
        axes.axvline(rows - 0.5, color=INK, linewidth=1)


def columns_within(inches: float, labels: Sequence[str]) -> int:
    """As many columns of a legend as the figure is wide for; matplotlib fills one after the other."""
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        longest = [max(map(len, labels[begin : begin + rows])) for begin in range(0, len(labels), rows)]
        if sum(LEGEND_MARK + LEGEND_LETTER * length for length in longest) <= inches:
            return columns
    return 1
