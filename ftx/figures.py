"""Figures of a sweep, for a paper: they read in grey as well as in colour, and the same numbers give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

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
# From this ratio of the largest to the smallest swept value on, a linear axis would crowd the small ones together.
LOGARITHMIC_FROM = 25
# Between an interval's end and its value, in typographic points: half of the largest marker.
VALUE_GAP = 7
LEGEND_ORDER = ("base model", "fine-tuned", "best", "best (base model)", "95 % interval", "chance")
DOTS_PER_INCH = 200
# From this share of its row on, white reads better on a cell than ink.
DARK_FROM = 0.65


@dataclass(frozen=True)
class Point:
    """One arm: its place on the x axis, its value with the 95 % interval, and the axis' word for it (empty: ``x``).

    ``low`` and ``high`` are NaN where there is no interval.
    """

    x: float
    value: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class _Kind:
    """The filling of a mark says whether the arm was trained, the shape whether it is the best one."""

    is_base: bool
    is_best: bool

    @property
    def name(self) -> str:
        if self.is_base:
            return "best (base model)" if self.is_best else "base model"
        return "best" if self.is_best else "fine-tuned"

    @property
    def mark(self) -> dict[str, Any]:
        colour = ORANGE if self.is_best else BLUE
        return {
            "marker": "*" if self.is_best else "s" if self.is_base else "o",
            "markersize": 14 if self.is_best else 6.5,
            "markeredgecolor": colour,
            "markeredgewidth": 1.3,
            "markerfacecolor": "white" if self.is_base else colour,
        }


def metric_against(
    rows: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
    title: str,
    chance: float | None,
    percent: bool = True,
    lower_is_better: bool = False,
    base_at: float | None = 0,
) -> Figure:
    """A metric with its 95 % intervals against what was swept; the base and the best arm stand out.

    ``percent`` shows shares of 1 in percent and adds the unit to ``y_label``. ``base_at`` is the x of the untrained
    model; None where 0 of what was swept is a trained arm like any other. Raises ``ValueError`` without rows.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("a figure needs at least one row")
    scale = 100.0 if percent else 1.0
    points = sorted((_scaled(point, scale) for point in rows), key=lambda point: point.x)
    best = (min if lower_is_better else max)(points, key=lambda point: point.value)
    kinds = [_Kind(is_base=point.x == base_at, is_best=point is best) for point in points]
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(max(5.4, 0.75 * len(points)), 3.7), layout="constrained")
        axes = figure.add_subplot()
        _draw_points(axes, points, kinds, "{:.1f}" if percent else "{:.3g}")
        if chance is not None:
            axes.axhline(scale * chance, color=GREY, linewidth=1, linestyle=(0, (5, 3)), zorder=1, label="chance")
        _lay_out_x(axes, points)
        axes.margins(x=0.08, y=0.14)
        axes.autoscale_view()
        axes.set(xlabel=x_label, ylabel=f"{y_label} (%)" if percent else y_label)
        axes.set_title(title, fontweight="bold", wrap=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        _name_kinds(figure, axes)
    return figure


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
        _write_counts(axes, cells, shares)
        _name_cells(axes, row_labels, column_labels, turned=6 * max(map(len, column_labels)) > 72 * inches)
        axes.set_title(title, fontweight="bold", wrap=True)
        bar = figure.colorbar(image, ax=axes, pad=0.03, aspect=7 * inches * len(row_labels))
        bar.set_label("share of the gold class (%)")
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
    return figure


def save(figure: Figure, path_without_suffix: Path) -> tuple[Path, Path]:
    """Write the figure as PNG and as SVG, whose text stays text; dots in the name are kept. Returns both paths."""
    from matplotlib import style

    png, svg = (path_without_suffix.with_name(path_without_suffix.name + suffix) for suffix in (".png", ".svg"))
    with style.context(["default", STYLE]):
        figure.savefig(png, dpi=DOTS_PER_INCH, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg


def _scaled(point: Point, scale: float) -> Point:
    return replace(point, value=scale * point.value, low=scale * point.low, high=scale * point.high)


def _draw_points(axes: Axes, points: Sequence[Point], kinds: Sequence[_Kind], form: str) -> None:
    """Intervals, marks and values. A line joins the arms where no x is there twice, else those of one x stand side
    by side."""
    if all(left.x < right.x for left, right in pairwise(points)):
        axes.plot([p.x for p in points], [p.value for p in points], color=BLUE, linewidth=1, alpha=0.4, zorder=2)
    for i, (point, kind) in enumerate(zip(points, kinds, strict=True)):
        aside = _aside(i, points)
        _draw_arm(axes, point, kind, aside)
        value = _write_value(axes, point, form.format(point.value), aside, below=_is_valley(i, points))
        value.set_fontweight("bold" if kind.is_best else "normal")


def _draw_arm(axes: Axes, point: Point, kind: _Kind, aside: float) -> None:
    from matplotlib.transforms import ScaledTranslation

    assert axes.figure is not None
    place = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    # Autoscaling passes over what is drawn aside of its place.
    axes.update_datalim([(point.x, y) for y in (point.low, point.value, point.high)])
    # About its own middle: a bootstrap interval need not contain the value.
    middle, half = (point.low + point.high) / 2, (point.high - point.low) / 2
    if math.isfinite(half):
        bar = axes.errorbar(point.x, middle, half, fmt="none", color=INK, elinewidth=1, capsize=3, transform=place)
        bar.set_label("95 % interval")
    axes.plot(point.x, point.value, linestyle="none", transform=place, zorder=6, label=kind.name, **kind.mark)


def _write_value(axes: Axes, point: Point, text: str, aside: float, *, below: bool) -> Annotation:
    return axes.annotate(
        text,
        (point.x, min(point.value, point.low) if below else max(point.value, point.high)),
        xytext=(aside, -VALUE_GAP if below else VALUE_GAP),
        textcoords="offset points",
        ha="center",
        va="top" if below else "bottom",
        fontsize=9,
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        zorder=5,
    )


def _aside(i: int, points: Sequence[Point]) -> float:
    """By how many typographic points the i-th arm steps aside for the others at its x."""
    company = [j for j, other in enumerate(points) if other.x == points[i].x]
    return 26 * (company.index(i) - (len(company) - 1) / 2)


def _is_valley(i: int, points: Sequence[Point]) -> bool:
    """Whether the line comes steeply from above, so that the value is better written below its interval."""
    neighbours = [points[j].value for j in (i - 1, i + 1) if 0 <= j < len(points)]
    return bool(neighbours) and min(neighbours) > points[i].value and max(neighbours) > points[i].high


def _name_kinds(figure: Figure, axes: Axes) -> None:
    """One legend entry for each kind of mark there is, below the axes."""
    handles, labels = axes.get_legend_handles_labels()
    kinds = dict(zip(labels, handles, strict=True))
    order = [kind for kind in LEGEND_ORDER if kind in kinds]
    figure.legend(
        [kinds[label] for label in order],
        order,
        loc="outside lower center",
        ncols=len(order),
        frameon=False,
        handlelength=1.4,
        handletextpad=0.5,
        columnspacing=1.6,
    )


def _lay_out_x(axes: Axes, points: Sequence[Point]) -> None:
    """Ticks where the arms are; logarithmic beyond ``LOGARITHMIC_FROM``, with 0 half a decade before the smallest."""
    from matplotlib.ticker import NullLocator

    positive = [point.x for point in points if point.x > 0]
    if points[0].x >= 0 and positive and max(positive) / min(positive) >= LOGARITHMIC_FROM:
        axes.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
        axes.xaxis.set_minor_locator(NullLocator())
    words: dict[float, set[str]] = {}
    for point in points:
        words.setdefault(point.x, set()).add(point.label)
    axes.set_xticks(list(words), [_word(x, labels) for x, labels in words.items()])


def _word(x: float, labels: set[str]) -> str:
    """The label that all arms at ``x`` share, else its number."""
    return next(iter(labels)) if len(labels) == 1 and labels != {""} else f"{x:,.6g}"


def _write_counts(axes: Axes, cells: np.ndarray, shares: np.ndarray) -> None:
    """In white on dark cells; what never happened is pale."""
    size = 10 if cells.shape[1] <= 10 else 7.5
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
