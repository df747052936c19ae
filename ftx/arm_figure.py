"""The figure of a sweep: a metric against what was swept, with 95 % intervals and what others have published."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ftx.figures import BLUE, GREY, INK, LOGARITHMIC_FROM, ORANGE, STYLE, columns_within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

# Typographic points: between an interval's end and its value (half of the largest marker), between lines at one place,
# between arms of one line at one place, and from an arm to what is published of it.
VALUE_GAP, LINE_GAP, ARM_GAP, PUBLISHED_GAP = 7, 14, 26, 8
# Each line of several has a colour and a shape of its own, so that grey tells them apart as well.
LINES = ((BLUE, "o"), (INK, "^"), ("#4f8f5b", "D"), ("#8a5a9e", "v"), ("#a08020", "P"), (GREY, "X"))
LAST_IN_LEGEND = ("base model", "fine-tuned", "best", "best (base model)", "published", "95 % interval", "chance")


@dataclass(frozen=True)
class Point:
    """One arm: its place on the x axis, its value with the 95 % interval, and the axis' word for it (empty: ``x``).

    ``low`` and ``high`` are NaN where there is no interval. Points of one ``line`` are joined; ``published`` is a
    number of somebody else's.
    """

    x: float
    value: float
    low: float
    high: float
    label: str
    line: str = ""
    published: bool = False


@dataclass(frozen=True)
class _Kind:
    """The filling of a mark says whether the arm was trained, the shape which line it is on or whether it is best."""

    is_base: bool
    is_best: bool
    line: str
    place: int
    """Of its line among the lines."""

    @property
    def name(self) -> str:
        if self.is_best:
            return "best (base model)" if self.is_base else "best"
        return self.line or ("base model" if self.is_base else "fine-tuned")

    @property
    def mark(self) -> dict[str, Any]:
        colour, shape = LINES[self.place % len(LINES)]
        colour = ORANGE if self.is_best else colour
        return {
            "marker": "*" if self.is_best else "s" if self.is_base and not self.line else shape,
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
    joined: bool = True,
    scattered: bool = False,
) -> Figure:
    """A metric with its 95 % intervals against what was swept; the base and the best arm stand out.

    ``percent`` shows shares of 1 in percent and adds the unit to ``y_label``. ``base_at`` is the x of the untrained
    model; None where 0 of what was swept is a trained arm like any other. ``joined=False`` draws no lines, for an axis
    of words; nor does ``scattered``, for arms of which each has an x of its own, with ordinary ticks and the best value
    alone. Raises ``ValueError`` without rows.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    scale = 100.0 if percent else 1.0
    everything = sorted((_scaled(point, scale) for point in rows), key=lambda point: point.x)
    arms = [point for point in everything if not point.published]
    if not arms:
        raise ValueError("a figure needs at least one row")
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(5.4 if scattered else max(5.4, 0.75 * len(arms)), 3.7), layout="constrained")
        axes = figure.add_subplot()
        best = (min if lower_is_better else max)(arms, key=lambda point: point.value)
        lines, has_published = _lines(arms), len(arms) < len(everything)
        for place, line in enumerate(lines):
            points = [point for point in arms if point.line == line]
            kinds = [_Kind(point.x == base_at, point is best, line, place) for point in points]
            # The first stands on its ticks, the others step aside.
            shift = 0 if scattered else place * (LINE_GAP + has_published * PUBLISHED_GAP)
            _draw_line(axes, points, kinds, shift, joined=joined and not scattered)
            _draw_published(axes, [point for point in everything if point.published and point.line == line], shift)
            beside = math.nan if scattered else _side(place, len(lines), has_published)
            _write_values(axes, points, kinds, shift, beside, "{:.1f}" if percent else "{:.3g}")
        if len(lines) > 1 and any(point.x == base_at for point in arms):
            axes.plot([], [], "o", markerfacecolor="white", markeredgecolor=INK, label="base model")
        if chance is not None:
            axes.axhline(scale * chance, color=GREY, linewidth=1, linestyle=(0, (5, 3)), zorder=1, label="chance")
        _lay_out_x(axes, everything, at_the_arms=not scattered)
        # Beside the outermost marks of several lines there are values, and lines that have stepped aside.
        axes.margins(x=0.08 if len(lines) == 1 else min(0.12 + 0.05 * len(lines), 0.4), y=0.14)
        axes.autoscale_view()
        axes.set(xlabel=x_label, ylabel=f"{y_label} (%)" if percent else y_label)
        axes.set_title(title, fontweight="bold", wrap=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        _name_kinds(figure, axes)
    return figure


def _scaled(point: Point, scale: float) -> Point:
    return replace(point, value=scale * point.value, low=scale * point.low, high=scale * point.high)


def _lines(arms: Sequence[Point]) -> list[str]:
    """The longest first; else by name."""
    counts = Counter(point.line for point in arms)
    return sorted(counts, key=lambda line: (-counts[line], line))


def _draw_line(axes: Axes, points: Sequence[Point], kinds: Sequence[_Kind], shift: float, *, joined: bool) -> None:
    """Intervals and marks. The arms are joined where no x is there twice, else those of one x stand side by side."""
    if joined and all(left.x < right.x for left, right in pairwise(points)):
        axes.plot(
            [p.x for p in points],
            [p.value for p in points],
            color=LINES[kinds[0].place % len(LINES)][0],
            linewidth=1,
            alpha=0.4,
            zorder=2,
            transform=_aside_by(axes, shift),
        )
    for i, (point, kind) in enumerate(zip(points, kinds, strict=True)):
        aside = shift + _aside(i, points)
        _draw_interval(axes, point, aside, INK)
        place = _aside_by(axes, aside)
        axes.plot(point.x, point.value, linestyle="none", transform=place, zorder=6, label=kind.name, **kind.mark)


def _draw_published(axes: Axes, points: Sequence[Point], shift: float) -> None:
    """Beside the arm, hollow and grey; the table has the numbers."""
    for point in points:
        _draw_interval(axes, point, shift + PUBLISHED_GAP, GREY)
        axes.plot(
            point.x,
            point.value,
            linestyle="none",
            marker="D",
            markersize=5.5,
            markerfacecolor="white",
            markeredgecolor=GREY,
            markeredgewidth=1.3,
            transform=_aside_by(axes, shift + PUBLISHED_GAP),
            zorder=5.5,
            label="published",
        )


def _draw_interval(axes: Axes, point: Point, aside: float, colour: str) -> None:
    # Autoscaling passes over what is drawn aside of its place.
    axes.update_datalim([(point.x, y) for y in (point.low, point.value, point.high)])
    # About its own middle: a bootstrap interval need not contain the value.
    middle, half = (point.low + point.high) / 2, (point.high - point.low) / 2
    if math.isfinite(half):
        place = _aside_by(axes, aside)
        bar = axes.errorbar(point.x, middle, half, fmt="none", color=colour, elinewidth=1, capsize=3, transform=place)
        if not point.published:
            bar.set_label("95 % interval")


def _aside_by(axes: Axes, points: float) -> Transform:
    """Data coordinates, moved right by so many typographic points."""
    from matplotlib.transforms import ScaledTranslation

    assert axes.figure is not None
    return axes.transData + ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)


def _side(place: int, lines: int, has_published: bool) -> float | None:
    """How far beside its mark a value stands, in typographic points, where others would be in its way above it.

    None: above. Of several lines the first has room on its left and the last on its right; NaN: there is none.
    """
    if lines == 1:
        return None
    if place == 0:
        return -VALUE_GAP
    return VALUE_GAP + has_published * PUBLISHED_GAP if place == lines - 1 else math.nan


def _write_values(
    axes: Axes, points: Sequence[Point], kinds: Sequence[_Kind], shift: float, beside: float | None, form: str
) -> None:
    """Above or below the interval, or ``beside`` the mark; where there is no room the best arm's alone."""
    for i, (point, kind) in enumerate(zip(points, kinds, strict=True)):
        if beside is not None and math.isnan(beside) and not kind.is_best:
            continue
        free = beside is None or math.isnan(beside)
        below = free and _is_valley(i, points)
        end = point.value if not free else min(point.value, point.low) if below else max(point.value, point.high)
        axes.annotate(
            form.format(point.value),
            (point.x, end),
            xytext=(
                shift + _aside(i, points) + (0 if free else beside or 0),
                free * (-VALUE_GAP if below else VALUE_GAP),
            ),
            textcoords="offset points",
            ha="center" if free else "right" if (beside or 0) < 0 else "left",
            va="center" if not free else "top" if below else "bottom",
            fontsize=9,
            fontweight="bold" if kind.is_best else "normal",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
            zorder=5,
        )


def _aside(i: int, points: Sequence[Point]) -> float:
    """By how many typographic points the i-th arm steps aside for the others at its x."""
    company = [j for j, other in enumerate(points) if other.x == points[i].x]
    return ARM_GAP * (company.index(i) - (len(company) - 1) / 2)


def _is_valley(i: int, points: Sequence[Point]) -> bool:
    """Whether the line comes steeply from above, so that the value is better written below its interval."""
    neighbours = [points[j].value for j in (i - 1, i + 1) if 0 <= j < len(points)]
    return bool(neighbours) and min(neighbours) > points[i].value and max(neighbours) > points[i].high


def _name_kinds(figure: Figure, axes: Axes) -> None:
    """One legend entry for each kind of mark there is, below the axes; lines first."""
    handles, labels = axes.get_legend_handles_labels()
    kinds = dict(zip(labels, handles, strict=True))
    order = [label for label in kinds if label not in LAST_IN_LEGEND] + [
        kind for kind in LAST_IN_LEGEND if kind in kinds
    ]
    figure.legend(
        [kinds[label] for label in order],
        order,
        loc="outside lower center",
        ncols=columns_within(figure.get_figwidth(), order),
        frameon=False,
        handlelength=1.4,
        handletextpad=0.5,
        columnspacing=1.6,
    )


def _lay_out_x(axes: Axes, points: Sequence[Point], *, at_the_arms: bool) -> None:
    """Logarithmic beyond ``LOGARITHMIC_FROM``, with 0 half a decade before the smallest; ticks where the arms are."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

    positive = [point.x for point in points if point.x > 0]
    has_numbers = not all(point.label for point in points)
    if has_numbers and points[0].x >= 0 and positive and max(positive) / min(positive) >= LOGARITHMIC_FROM:
        if at_the_arms or points[0].x == 0:
            axes.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
    if not at_the_arms:
        return
    words: dict[float, set[str]] = {}
    for point in points:
        words.setdefault(point.x, set()).add(point.label)
    axes.set_xticks(list(words), [_word(x, labels) for x, labels in words.items()])


def _word(x: float, labels: set[str]) -> str:
    """The label that all arms at ``x`` share, else its number."""
    return next(iter(labels)) if len(labels) == 1 and labels != {""} else f"{x:,.6g}"
