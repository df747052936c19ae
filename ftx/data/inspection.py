"""What ``python -m ftx.data inspect`` shows: numbers of a data set as tables, figures and marked text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ftx.data.overlap import NEAR_FROM, Overlap
from ftx.figures import BLUE, INK, LOGARITHMIC_FROM, ORANGE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTHING = "–"
MOST_CLASSES = 50
LONGEST_CLASS = 64  # characters; beyond, an answer is a text and no label
BARS = 40
PALE_BLUE = "#a3b9cf"
SUPERVISED, PLAIN = "\x1b[1;32m", "\x1b[0m"
BEGIN, END = "⟦", "⟧"

# Control characters but for newline and tab, what turns the direction of writing, and halves of surrogate pairs.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKS = re.compile(f"[{BEGIN}{END}]")


@dataclass(frozen=True)
class Side:
    """Training or evaluation: tokens and supervised tokens of each conversation, and tokens of each row.

    A row is what enters the model: a pack of conversations when packing, else one conversation.
    """

    tokens: np.ndarray
    supervised: np.ndarray
    row_tokens: np.ndarray


def length_table(train: Side, evaluation: Side, max_length: int) -> str:
    """Markdown with a column for each side.

    The median and the lengths that 95 % and 99 % of the conversations have at most are lengths that occur.
    """
    names: tuple[tuple[str, Callable[[Side], str]], ...] = (
        ("conversations", lambda side: _number(len(side.tokens))),
        ("tokens", lambda side: _number(side.tokens.sum())),
        ("supervised tokens", lambda side: _number(side.supervised.sum())),
        ("supervised share", lambda side: _share(side.supervised.sum(), side.tokens.sum())),
        (f"rows of up to {_number(max_length)}", lambda side: _number(len(side.row_tokens))),
        ("packing efficiency", lambda side: _share(side.row_tokens.sum(), len(side.row_tokens) * max_length)),
        ("shortest conversation", lambda side: _at(side.tokens, 0)),
        ("median", lambda side: _at(side.tokens, 50)),
        ("mean", lambda side: f"{side.tokens.mean():,.1f}" if len(side.tokens) else NOTHING),
        ("95 % at most", lambda side: _at(side.tokens, 95)),
        ("99 % at most", lambda side: _at(side.tokens, 99)),
        ("longest conversation", lambda side: _at(side.tokens, 100)),
    )
    return markdown(["", "training", "evaluation"], [[name, show(train), show(evaluation)] for name, show in names])


def length_figure(train: Side, evaluation: Side, max_length: int) -> Figure:
    """How long the conversations are: the share of each side's that falls on each bar, and where rows end.

    Raises ``ValueError`` where neither side has a conversation.
    """
    every = np.concatenate([train.tokens, evaluation.tokens])
    if not len(every):
        raise ValueError("a figure of lengths needs at least one conversation")
    low, high = max(int(every.min()), 1), int(every.max())
    logarithmic = max(high, max_length) / low >= LOGARITHMIC_FROM
    edges = _edges(low, high, logarithmic=logarithmic)
    looks: tuple[tuple[np.ndarray, str, dict[str, Any]], ...] = (
        (train.tokens, "training", {"color": PALE_BLUE, "fill": True, "linewidth": 0}),
        (evaluation.tokens, "evaluation", {"color": ORANGE, "linewidth": 1.5}),
    )
    with _drawn("Lengths of conversations", 6.2, 3.6, grid="y") as (figure, axes):
        for tokens, name, look in looks:
            if len(tokens):
                counts, _ = np.histogram(np.maximum(tokens, 1), edges)
                axes.stairs(100 * counts / len(tokens), edges, label=f"{name} (n = {len(tokens):,})", **look)
        axes.axvline(max_length, color=INK, linewidth=1, linestyle=(0, (5, 3)), label=f"max_length ({max_length:,})")
        axes.set_ylim(bottom=0)
        axes.set(xlabel="length (tokens)", ylabel="share of conversations (%)")
        _lay_out_lengths(axes, logarithmic=logarithmic)
    return figure


def class_balance(answers: Iterable[str]) -> dict[str, int] | None:
    """How often each label is the answer, the most frequent first; None where the answers are no labels.

    They are when every answer is a JSON object with one key, the same throughout, and a text of at most
    ``LONGEST_CLASS`` characters, and there are at most ``MOST_CLASSES`` different ones.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for answer in answers:
        labelled = _label(answer)
        if labelled is None:
            return None
        counts[labelled] += 1
        if len(counts) > MOST_CLASSES or labelled[0] != next(iter(counts))[0]:
            return None
    return {label: count for (_, label), count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))} or None


def class_table(train: Mapping[str, int], evaluation: Mapping[str, int]) -> str:
    """Markdown with a line for each label and its share of either side; either may be empty."""
    totals = sum(train.values()), sum(evaluation.values())
    counts = [(label, train.get(label, 0), evaluation.get(label, 0)) for label in _labels(train, evaluation)]
    rows = [
        [printable(label), _number(ours), _share(ours, totals[0]), _number(theirs), _share(theirs, totals[1])]
        for label, ours, theirs in [*counts, ("all", totals[0], totals[1])]
    ]
    return markdown(["label", "training", "share", "evaluation", "share"], rows)


def class_figure(train: Mapping[str, int], evaluation: Mapping[str, int]) -> Figure:
    """The share of each label in either side, side by side. Raises ``ValueError`` without labels."""
    labels = _labels(train, evaluation)
    if not labels:
        raise ValueError("a figure of labels needs at least one label")
    sides: tuple[tuple[str, Mapping[str, int], dict[str, Any]], ...] = (
        ("training", train, {"color": BLUE}),
        ("evaluation", evaluation, {"facecolor": "white", "edgecolor": ORANGE, "linewidth": 1.2}),
    )
    sides = tuple(side for side in sides if sum(side[1].values()))
    places = np.arange(len(labels))
    with _drawn("Balance of labels", 6.2, 1.6 + 0.3 * len(labels), grid="x") as (figure, axes):
        for at, (name, counts, look) in enumerate(sides):
            total = sum(counts.values())
            shares = [100 * counts.get(label, 0) / total for label in labels]
            aside = 0.4 * (at - (len(sides) - 1) / 2)
            axes.barh(places + aside, shares, height=0.36, label=f"{name} (n = {total:,})", **look)
        axes.set_yticks(places, [_shortened(printable(label)) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel="share of conversations (%)")
    return figure


def overlap_table(overlap: Overlap) -> str:
    """Markdown with a line for each kind of overlap, and below it the examples, one a line."""
    repeats, exact, near = overlap.train_duplicates, overlap.evaluation_exact, overlap.evaluation_near
    grams = f"of the user's {overlap.n}-grams in training"
    rows = [
        ("training: repeats an earlier one", repeats.count, overlap.train),
        ("evaluation: equals a training conversation", exact.count, overlap.evaluation),
        (f"evaluation: {NEAR_FROM:.0%} or more {grams}".replace("%", " %"), near.count, overlap.evaluation),
        (f"evaluation: any {grams}", overlap.evaluation_touched, overlap.evaluation),
    ]
    cells = [[name, _number(count), _number(of), _share(count, of)] for name, count, of in rows]
    examples = [
        *(f"- {later} repeats {earlier}" for later, earlier in repeats.examples),
        *(f"- {id} equals {source}" for id, source in exact.examples),
        *(f"- {id}: {_share(share, 1)} of the user's {overlap.n}-grams are in training" for id, share in near.examples),
    ]
    table = markdown(["conversations", "found", "of", "share"], cells)
    return table + ("\nFor example:\n\n" + printable("\n".join(examples)) + "\n" if examples else "")


def coloured(pieces: Sequence[str], colour: bool) -> str:
    """A rendered sample, whose pieces are by turns not supervised (the first) and supervised, for a terminal.

    Supervised pieces are bold green, or stand between ⟦ and ⟧. Whatever the data itself could drive or confuse a
    terminal with is escaped (``\\x1b``), and without colour also the two marks.
    """
    before, after = (SUPERVISED, PLAIN) if colour else (BEGIN, END)
    shown = [printable(piece) if colour else _MARKS.sub(_escape, printable(piece)) for piece in pieces]
    return "".join(f"{before}{text}{after}" if at % 2 and text else text for at, text in enumerate(shown))


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would obey instead of showing it; newline and tab stay."""
    return _UNPRINTABLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _label(answer: str) -> tuple[str, str] | None:
    """The key and the label of an answer that is one."""
    try:
        # An object as its pairs: a key given twice is two of them.
        pairs = json.loads(answer, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, tuple) or len(pairs) != 1:
        return None
    key, label = pairs[0]
    return (key, label) if isinstance(label, str) and len(label) <= LONGEST_CLASS else None


def _labels(train: Mapping[str, int], evaluation: Mapping[str, int]) -> list[str]:
    """The labels of both sides, the most frequent in training first."""
    return sorted({*train, *evaluation}, key=lambda label: (-train.get(label, 0), -evaluation.get(label, 0), label))


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 32 else f"{words[:31]}…"


def _edges(low: int, high: int, *, logarithmic: bool) -> np.ndarray:
    """The ends of about ``BARS`` bars, halfway between whole numbers.

    On a logarithmic axis bars grow with the length, but none is below 4 tokens where the range has room for that: bars
    of one token beside bars of two would look like a comb.
    """
    even = -(-(high + 1 - low) // BARS)
    narrowest, growth = (min(4, even), (high / low) ** (1 / BARS)) if logarithmic else (even, 1.0)
    ends = [low]
    while ends[-1] <= high:
        ends.append(ends[-1] + max(narrowest, round(ends[-1] * (growth - 1))))
    return np.array(ends) - 0.5


@contextmanager
def _drawn(title: str, width: float, height: float, *, grid: Literal["x", "y"]) -> Iterator[tuple[Figure, Axes]]:
    """Axes in the house's style (inches) to draw into, with the title above and the legend below."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        yield figure, axes
        axes.set_title(title, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis=grid, color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, columnspacing=1.6)


def _lay_out_lengths(axes: Axes, *, logarithmic: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if logarithmic:
        axes.set_xscale("log")
        left, right = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if right / left < 1000 else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda length, _: f"{length:,.0f}"))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is words and the others numbers, padded so that it reads well in a terminal."""
    cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    lines = [
        " | ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    return "".join(f"| {line} |\n" for line in lines)


def _number(value: int) -> str:
    return f"{value:,}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else NOTHING


def _at(lengths: np.ndarray, percent: int) -> str:
    return _number(int(np.percentile(lengths, percent, method="inverted_cdf"))) if len(lengths) else NOTHING
