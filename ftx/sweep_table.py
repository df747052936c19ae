"""The table of a sweep: what each arm was, what it reached, and how sure that is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftx.markdown import Column, to_table
from ftx.sweep_arms import (
    NOTHING,
    Arm,
    Metric,
    format_score,
    in_order,
    main_metrics_of,
    metrics_of,
    number_in,
    rank,
    swept_keys,
)
from ftx.verdict import Verdict, describe, judge


@dataclass(frozen=True)
class Table:
    """``best`` is the (row, column) of the best arm's primary metric, None when no arm is scored."""

    columns: tuple[Column, ...]
    verdict: Verdict | None
    best: tuple[int, int] | None
    sentences: tuple[str, ...]

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(column.title for column in self.columns)

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        return tuple(zip(*(column.cells for column in self.columns), strict=True))


def table(arms: Sequence[Arm], metrics: Sequence[str] | None = None) -> Table:
    """The arms in order with their scores; the first metric is the primary one, by which the best arm is named.

    ``metrics`` are names like ``accuracy`` or ``classification.accuracy``; without, all that any arm has but speed.
    Raises ``UserError`` for a metric that no arm has.
    """
    arms = in_order(arms)
    shown = main_metrics_of(arms, metrics)
    swept = _swept_columns(arms)
    columns = [*swept, *_metric_columns(arms, shown), *_n_columns(arms, shown)]
    verdict = judge(arms, shown[0]) if shown else None
    return Table(
        columns=(*columns, *_seed_columns(arms), *_state_columns(arms)),
        verdict=verdict,
        best=(arms.index(verdict.best), len(swept)) if verdict else None,
        sentences=(*describe(verdict), *_notes(arms, shown[0])) if verdict else ("No arm has a score yet.",),
    )


def to_markdown(table: Table) -> str:
    """The table with its sentences; the best cell is bold."""
    shown = to_table(table.columns, table.best)
    return "\n\n".join([shown, *table.sentences]) + "\n"


def to_csv(arms: Sequence[Arm], more: Mapping[str, Mapping[str, float | None]] | None = None) -> str:
    """The arms in the table's order with every number in full: per metric its value, ``.low``, ``.high`` and ``.n``,
    and ``.spread`` over seeds and ``.published`` where they are known.

    The last training row of each arm follows in columns ``train.*``, then ``more`` by the arm's name.
    """
    arms = in_order(arms)
    shown = metrics_of(arms)
    rows = [_csv_row(arm, shown) | dict((more or {}).get(arm.name, {})) for arm in arms]
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
        if score and score.spread is not None:
            row[f"{metric.full_name}.spread"] = score.spread
        if published := metric.published(arm):
            row[f"{metric.full_name}.published"] = published.value
    return row | {f"train.{key}": value for key, value in arm.train.items()}


def _swept_columns(arms: Sequence[Arm]) -> list[Column]:
    keys = swept_keys(arms)
    if not keys:
        return [Column("run", [arm.name for arm in arms], right_aligned=False)]
    columns = [(key, [arm.swept.get(key, NOTHING) for arm in arms]) for key in keys]
    return [Column(key, cells, all(number_in(cell) is not None for cell in cells)) for key, cells in columns]


def _metric_columns(arms: Sequence[Arm], metrics: Sequence[Metric]) -> list[Column]:
    """Each metric, and beside it what somebody else reports of it."""
    one_task = len({metric.task for metric in metrics}) == 1
    columns = []
    for metric in metrics:
        rate, title = metric.is_rate(arms), metric.name if one_task else metric.full_name
        columns.append(Column(title, [format_score(metric.score(arm), rate=rate) for arm in arms]))
        published = [metric.published(arm) for arm in arms]
        if any(published):
            columns.append(Column(f"{title} (published)", [format_score(score, rate=rate) for score in published]))
    return columns


def _n_columns(arms: Sequence[Arm], metrics: Sequence[Metric]) -> list[Column]:
    """How many items were scored: one column a task, by the first of its metrics that is shown."""
    first_of_task = {metric.task: metric for metric in reversed(metrics)}
    tasks = list(dict.fromkeys(metric.task for metric in metrics))
    columns = [(task, [first_of_task[task].score(arm) for arm in arms]) for task in tasks]
    return [
        Column(
            "n" if len(tasks) == 1 else f"{task}.n",
            [NOTHING if score is None or score.n is None else str(score.n) for score in scores],
        )
        for task, scores in columns
    ]


def _seed_columns(arms: Sequence[Arm]) -> list[Column]:
    return [Column("seeds", [str(arm.seeds) for arm in arms])] if any(arm.seeds > 1 for arm in arms) else []


def _state_columns(arms: Sequence[Arm]) -> list[Column]:
    if all(arm.state == "finished" for arm in arms):
        return []
    cells = [f"{arm.state}: {arm.reason}" if arm.reason else arm.state for arm in arms]
    return [Column("state", cells, right_aligned=False)]


def _notes(arms: Sequence[Arm], metric: Metric) -> list[str]:
    ranking = rank(arms, metric)
    tied = [arm.title for arm, score in ranking if score.value == ranking[0][1].value]
    notes = []
    if len(tied) > 1:
        notes.append(f"Tied for the best {metric.name}: {'; '.join(tied)}. The first is marked.")
    if any(arm.seeds > 1 for arm in arms):
        notes.append(
            "Several seeds are one row: their mean ± standard deviation, and an interval over items, each with all its "
            "seeds, since answers to one item are not independent."
        )
    return notes
