"""The losses of all arms of a sweep while they trained, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftx.figures import GREY, INK, LOGARITHMIC_FROM, STYLE, columns_within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSSES = {"train_loss": "training loss (nats a token)", "eval_loss": "held-out loss (nats a token)"}
COLOURS = ("#2b5c8a", "#c4501b", INK, "#4f8f5b", "#8a5a9e", "#a08020", GREY, "#3f9aa8")
# A shape every few points, every second one hollow, and a dash: grey tells lines apart by them.
SHAPES, DASHES = "o^sDvPX*", ("-", "--", ":", "-.")
MARKS_ON_A_LINE = 8


@dataclass(frozen=True)
class Curve:
    """One arm's rows of metrics.jsonl; arms of one ``group``, such as the seeds of a setting, look alike."""

    title: str
    rows: Sequence[dict[str, Any]]
    group: str


def learning_curves(curves: Sequence[Curve], title: str) -> Figure | None:
    """Training and held-out loss against epochs, side by side; None where no arm has trained."""
    from matplotlib import style
    from matplotlib.figure import Figure

    losses = [loss for loss in LOSSES if any(_points(curve, loss) for curve in curves)]
    trained = [curve for curve in curves if any(_points(curve, loss) for loss in losses)]
    if not trained:
        return None
    groups = list(dict.fromkeys(curve.group for curve in trained))
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(4.6 * len(losses) + 0.6, 3.9), layout="constrained")
        panels = figure.subplots(1, len(losses), squeeze=False)[0]
        for axes, loss in zip(panels, losses, strict=True):
            for curve in trained:
                _draw(axes, curve, loss, groups.index(curve.group))
            _lay_out(axes, LOSSES[loss], [value for curve in trained for _, value in _points(curve, loss)])
        figure.suptitle(title, fontweight="bold", fontsize=11, x=0.02, ha="left")
        handles = {handle.get_label(): handle for axes in panels for handle in axes.get_legend_handles_labels()[0]}
        figure.legend(
            list(handles.values()),
            [str(label) for label in handles],
            loc="outside lower center",
            ncols=min(columns_within(figure.get_figwidth(), [str(label) for label in handles]), 6),
            frameon=False,
            columnspacing=1.6,
        )
    return figure


def _points(curve: Curve, loss: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[loss]) for row in curve.rows if row.get(loss) is not None and "epoch" in row]


def _draw(axes: Axes, curve: Curve, loss: str, place: int) -> None:
    points = _points(curve, loss)
    axes.plot(
        [epoch for epoch, _ in points],
        [value for _, value in points],
        color=COLOURS[place % len(COLOURS)],
        linestyle=DASHES[place % len(DASHES)],
        linewidth=1.2,
        marker=SHAPES[place % len(SHAPES)],
        markersize=5,
        markerfacecolor="white" if place % 2 else COLOURS[place % len(COLOURS)],
        # Not all lines at once: marks of lines that begin alike would hide each other.
        markevery=(place % max(1, len(points) // MARKS_ON_A_LINE or 1), max(1, len(points) // MARKS_ON_A_LINE)),
        label=curve.group,
    )


def _lay_out(axes: Axes, label: str, losses: Sequence[float]) -> None:
    """Logarithmic where the first losses would press the others together."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axes.set(xlabel="epoch", ylabel=label)
    if min(losses) > 0 and max(losses) / min(losses) >= LOGARITHMIC_FROM:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
