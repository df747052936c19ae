"""The table of a sweep: what each arm was, what it reached, and how sure that is."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ftx.errors import UserError

BASE_KEY = "schedule.epochs"
NOTHING = "—"


@dataclass(frozen=True)
class Arm:
    """One run of a sweep.

    ``swept`` has this arm's value for each swept key, ``scores`` is its ``scores.json`` (empty while there is none)
    and ``train`` the last training row of its ``metrics.jsonl`` (empty for an arm that only scored).
    """

    name: str
    swept: dict[str, str]
    state: str
    reason: str
    scores: dict[str, dict[str, dict[str, Any]]]
    train: dict[str, Any]

    @property
    def is_base(self) -> bool:
        """Whether this is the untrained model of a sweep over epochs."""
        return _number(self.swept.get(BASE_KEY)) == 0

    @property
    def title(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.swept.items()) or self.name


@dataclass(frozen=True)
class Score:
    """A metric's value with its 95 % interval; ``interval`` and ``n`` are None where there is none."""

    value: float
    interval: tuple[float, float] | None
    n: int | None


@dataclass(frozen=True)
class Metric:
    task: str
    name: str

    @property
    def full_name(self) -> str:
        return f"{self.task}.{self.name}"

    @property
    def lower_is_better(self) -> bool:
        return any(word in self.name for word in ("loss", "perplexity", "invalid", "error"))

    def score(self, arm: Arm) -> Score | None:
        """What the arm reached, None while it has no such score."""
        entry = arm.scores.get(self.task, {}).get(self.name)
        if entry is None or entry["value"] is None:
            return None
        low, high = entry.get("ci95") or (None, None)
        return Score(entry["value"], None if low is None or high is None else (low, high), entry.get("n"))

    def is_rate(self, arms: Iterable[Arm]) -> bool:
        """Whether it reads as a percentage: not a loss, and nothing outside [0, 1] in any arm."""
        if "loss" in self.name or "perplexity" in self.name:
            return False
        scores = [score for arm in arms if (score := self.score(arm))]
        return all(0 <= number <= 1 for score in scores for number in (score.value, *(score.interval or ())))


@dataclass(frozen=True)
class Table:
    """Cells as text. ``best`` is the (row, column) of the best arm's primary metric, None when no arm is scored."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right_aligned: tuple[bool, ...]
    best: tuple[int, int] | None
    sentence: str
    footnotes: tuple[str, ...]


@dataclass(frozen=True)
class _Column:
    title: str
    cells: Sequence[str]
    right_aligned: bool = True


def table(arms: Sequence[Arm], metrics: Sequence[str] | None = None) -> Table:
    """The arms in order with their scores; the first metric is the primary one, by which the best arm is named.

    ``metrics`` are names like ``accuracy`` or ``classification.accuracy``; without, all that any arm has.
    Raises ``UserError`` for a metric that no arm has.
    """
    arms = in_order(arms)
    shown = metrics_of(arms, metrics)
    swept = _swept_columns(arms)
    columns = [*swept, *_metric_columns(arms, shown), *_n_columns(arms, shown), *_state_columns(arms)]
    ranking = rank(arms, shown[0]) if shown else []
    return Table(
        header=tuple(column.title for column in columns),
        rows=tuple(zip(*(column.cells for column in columns), strict=True)),
        right_aligned=tuple(column.right_aligned for column in columns),
        best=(arms.index(ranking[0][0]), len(swept)) if ranking else None,
        sentence=_sentence(ranking, shown[0], shown[0].is_rate(arms)) if ranking else "No arm has a score yet.",
        footnotes=_tie(ranking, shown[0]) if ranking else (),
    )


def in_order(arms: Sequence[Arm]) -> list[Arm]:
    """The untrained base first, then by each swept key: as numbers where all are, else in the order they came."""
    places = {key: _places(key, arms) for key in swept_keys(arms)}
    return sorted(arms, key=lambda arm: (not arm.is_base, [places[key][arm.swept.get(key)] for key in places]))


def swept_keys(arms: Iterable[Arm]) -> list[str]:
    return list(dict.fromkeys(key for arm in arms for key in arm.swept))


def metrics_of(arms: Iterable[Arm], wanted: Sequence[str] | None = None) -> list[Metric]:
    """The metrics to show, the primary one first: the wanted ones, else all in order of first appearance."""
    named = [(task, name) for arm in arms for task, scores in arm.scores.items() for name in scores]
    tasks = list(dict.fromkeys(task for task, _ in named))
    present = sorted((Metric(*pair) for pair in dict.fromkeys(named)), key=lambda metric: tasks.index(metric.task))
    if wanted is None or not present:
        return present
    return list(dict.fromkeys(metric for name in wanted for metric in _called(name, present)))


def rank(arms: Iterable[Arm], metric: Metric) -> list[tuple[Arm, Score]]:
    """The arms that have a finite score, best first; equal ones keep their order."""
    sign = 1 if metric.lower_is_better else -1
    scored = [(arm, score) for arm in arms if (score := metric.score(arm)) and math.isfinite(score.value)]
    return sorted(scored, key=lambda pair: sign * pair[1].value)


def format_score(score: Score | None, *, rate: bool) -> str:
    """``63.2 % [59.1, 67.1]`` for a rate, else ``1.234 [1.200, 1.268]``; no brackets where there is no interval."""
    if score is None:
        return NOTHING
    shown = _percent if rate else _plain
    value = shown(score.value) + (" %" if rate else "")
    return f"{value} [{', '.join(map(shown, score.interval))}]" if score.interval else value


def to_markdown(table: Table) -> str:
    """A markdown table, padded so that it also reads well in a terminal; the best cell is bold."""
    rows = [[_escaped(cell) for cell in row] for row in table.rows]
    if table.best:
        row, column = table.best
        rows[row][column] = f"**{rows[row][column]}**"
    rows.insert(0, [_escaped(title) for title in table.header])
    widths = [max(3, *map(len, cells)) for cells in zip(*rows, strict=True)]
    rows.insert(1, [_rule(width, right) for width, right in zip(widths, table.right_aligned, strict=True)])
    lines = [_line(cells, widths, table.right_aligned) for cells in rows]
    return "\n\n".join(["\n".join(lines), table.sentence, *table.footnotes]) + "\n"


def to_csv(arms: Sequence[Arm], metrics: Sequence[str] | None = None) -> str:
    """The arms in the table's order with every number in full: per metric its value, ``.low``, ``.high`` and ``.n``.

    The last training row of each arm follows in columns ``train.*``.
    """
    arms = in_order(arms)
    shown = metrics_of(arms, metrics)
    rows = [_csv_row(arm, shown) for arm in arms]
    first_columns = ["run", *swept_keys(arms), "state", "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys([*first_columns, *(name for row in rows for name in row)])), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv_row(arm: Arm, metrics: Iterable[Metric]) -> dict[str, Any]:
    row: dict[str, Any] = {"run": arm.name, **arm.swept, "state": arm.state, "reason": arm.reason}
    for metric in metrics:
        score = metric.score(arm)
        low, high = (score and score.interval) or (None, None)
        values = (score.value, low, high, score.n) if score else (None,) * 4
        row |= dict(zip((metric.full_name + end for end in ("", ".low", ".high", ".n")), values, strict=True))
    return row | {f"train.{key}": value for key, value in arm.train.items()}


def _called(name: str, present: Sequence[Metric]) -> list[Metric]:
    found = [metric for metric in present if name in (metric.name, metric.full_name)]
    if not found:
        known = ", ".join(metric.full_name for metric in present)
        raise UserError(f"no arm of this sweep has the metric {name!r}; there are {known}")
    return found


def _places(key: str, arms: Iterable[Arm]) -> dict[str | None, float]:
    """What a swept key's values sort by."""
    values = list(dict.fromkeys(arm.swept.get(key) for arm in arms))
    numbers = {value: number for value in values if (number := _number(value)) is not None}
    return numbers if len(numbers) == len(values) else {value: float(place) for place, value in enumerate(values)}


def _number(value: str | None) -> float | None:
    try:
        return float(value or "")
    except ValueError:
        return None


def _swept_columns(arms: Sequence[Arm]) -> list[_Column]:
    keys = swept_keys(arms)
    if not keys:
        return [_Column("run", [arm.name for arm in arms], right_aligned=False)]
    columns = [(key, [arm.swept.get(key, NOTHING) for arm in arms]) for key in keys]
    return [_Column(key, cells, all(_number(cell) is not None for cell in cells)) for key, cells in columns]


def _metric_columns(arms: Sequence[Arm], metrics: Sequence[Metric]) -> list[_Column]:
    one_task = len({metric.task for metric in metrics}) == 1
    columns = [(metric, metric.is_rate(arms)) for metric in metrics]
    return [
        _Column(
            metric.name if one_task else metric.full_name,
            [format_score(metric.score(arm), rate=rate) for arm in arms],
        )
        for metric, rate in columns
    ]


def _n_columns(arms: Sequence[Arm], metrics: Sequence[Metric]) -> list[_Column]:
    """How many items were scored: one column a task, by the first of its metrics that is shown."""
    first_of_task = {metric.task: metric for metric in reversed(metrics)}
    tasks = list(dict.fromkeys(metric.task for metric in metrics))
    columns = [(task, [first_of_task[task].score(arm) for arm in arms]) for task in tasks]
    return [
        _Column(
            "n" if len(tasks) == 1 else f"{task}.n",
            [NOTHING if score is None or score.n is None else str(score.n) for score in scores],
        )
        for task, scores in columns
    ]


def _state_columns(arms: Sequence[Arm]) -> list[_Column]:
    if all(arm.state == "finished" for arm in arms):
        return []
    cells = [f"{arm.state}: {arm.reason}" if arm.reason else arm.state for arm in arms]
    return [_Column("state", cells, right_aligned=False)]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _plain(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.4g}"


def _sentence(ranking: Sequence[tuple[Arm, Score]], metric: Metric, rate: bool) -> str:
    """Which arm is best, and whether its interval keeps clear of the next best one's."""
    best, score = ranking[0]
    sentence = f"Best {metric.name}: {best.title} with {format_score(score, rate=rate)}"
    if len(ranking) == 1:
        return f"{sentence}; no other arm has a score."
    other, other_score = ranking[1]
    next_best = f"the next best, {other.title} ({format_score(other_score, rate=rate)})"
    if not score.interval or not other_score.interval:
        return f"{sentence}; there is no interval to compare with {next_best}."
    apart = score.interval[0] > other_score.interval[1] or other_score.interval[0] > score.interval[1]
    relation = "lies clear of" if apart else "overlaps with"
    return f"{sentence}; its 95 % interval {relation} that of {next_best}."


def _tie(ranking: Sequence[tuple[Arm, Score]], metric: Metric) -> tuple[str, ...]:
    tied = [arm.title for arm, score in ranking if score.value == ranking[0][1].value]
    return (f"Tied for the best {metric.name}: {'; '.join(tied)}. The first is marked.",) if len(tied) > 1 else ()


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", r"\|")


def _rule(width: int, right: bool) -> str:
    return "-" * (width - 1) + ":" if right else "-" * width


def _line(cells: Sequence[str], widths: Sequence[int], right_aligned: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, right_aligned, strict=True)
    )
    return f"| {' | '.join(padded)} |"
