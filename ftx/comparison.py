"""Two scored runs beside each other: how their metrics differ, which items flipped, and what both said to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftx.contrast import contrast
from ftx.errors import UserError
from ftx.markdown import Column, to_table
from ftx.outcomes import read_outcomes, read_records
from ftx.run_folder import RunFolder
from ftx.significance import holm
from ftx.sweep_arms import NOTHING, Arm, Metric, format_score, metrics_of
from ftx.verdict import format_difference, format_p

# How many flipped items are named, and of how many all that was said is shown, of each direction.
MOST_IDS, MOST_SHOWN = 10, 2
# An agent's transcript may have any length.
MOST_CHARACTERS = 2000

Records = dict[str, dict[str, Any]]


def compare(base: RunFolder, tuned: RunFolder) -> str:
    """Markdown: the differences ``tuned - base``, then each task's flipped items, a few of them in full.

    Raises ``UserError`` where the two have no task's scores in common.
    """
    arms = [_arm(folder) for folder in (base, tuned)]
    shared = [task for task in arms[0].scores if task in arms[1].scores]
    if not shared:
        scored = [f"{arm.name} has scores of {', '.join(arm.scores) or 'none'}" for arm in arms]
        raise UserError(f"no task in common: {' and '.join(scored)}; score both with the same evaluation.tasks")
    parts = [f"base:  {base.path}\ntuned: {tuned.path}", _differences(arms[0], arms[1], shared)]
    parts += [_flips(task, *(_records(folder, task) for folder in (base, tuned))) for task in shared]
    return "\n\n".join(part for part in parts if part)


def _arm(folder: RunFolder) -> Arm:
    scores = folder.read_scores()
    outcomes = {task: read_outcomes(folder.predictions(task)) for task in scores}
    return Arm(folder.name, {}, "finished", "", scores, {}, outcomes=outcomes)


def _records(folder: RunFolder, task: str) -> Records:
    file = folder.predictions(task)
    return {str(record["id"]): record for record in read_records(file)} if file.is_file() else {}


def _differences(base: Arm, tuned: Arm, tasks: Sequence[str]) -> str:
    """Every metric that both have; p is corrected for how many are tested."""
    both = (base, tuned)
    in_both = [one for one in metrics_of(both) if one.task in tasks and all(one.score(arm) for arm in both)]
    found = [(metric, one) for metric in in_both if (one := contrast(metric, tuned, base))]
    corrected = iter(holm([one.p for _, one in found if one.p is not None]))
    adjusted = [None if one.p is None else next(corrected) for _, one in found]
    rates = [metric.is_rate(both) for metric, _ in found]
    columns = [
        Column("metric", [metric.full_name for metric, _ in found], False),
        Column("base", [_score(metric, base, rate) for (metric, _), rate in zip(found, rates, strict=True)]),
        Column("tuned", [_score(metric, tuned, rate) for (metric, _), rate in zip(found, rates, strict=True)]),
        Column(
            "tuned - base",
            [format_difference(one, rate=rate) for (_, one), rate in zip(found, rates, strict=True)],
        ),
        Column("p", [format_p(one.p) for _, one in found]),
    ]
    if any(one.p is not None for _, one in found):
        columns.append(Column("p (Holm)", [format_p(p) for p in adjusted]))
        columns.append(Column("by", [one.test or NOTHING for _, one in found], False))
    return f"{to_table(columns)}\n\nPercentages differ in points, brackets hold 95 % intervals, p is two-sided."


def _score(metric: Metric, arm: Arm, rate: bool) -> str:
    return format_score(metric.score(arm), rate=rate)


def _flips(task: str, base: Records, tuned: Records) -> str:
    """What only one of the two got right; empty for a task whose answers are not right or wrong."""
    shared = [item for item in base if item in tuned and {"correct"} <= base[item].keys() & tuned[item].keys()]
    if not shared:
        return ""
    gained = [item for item in shared if tuned[item]["correct"] and not base[item]["correct"]]
    lost = [item for item in shared if base[item]["correct"] and not tuned[item]["correct"]]
    only_one = len(base.keys() ^ tuned.keys())
    lines = [
        f"## {task}: {len(shared):,} items in both",
        _named("wrong → right", gained),
        _named("right → wrong", lost),
    ]
    if only_one:
        lines.append(f"{only_one:,} items are in one of the two only and are left out here.")
    shown = [*gained[:MOST_SHOWN], *lost[:MOST_SHOWN]]
    return "\n\n".join([*lines, *(_side_by_side(item, base[item], tuned[item]) for item in shown)])


def _named(direction: str, items: Sequence[str]) -> str:
    if not items:
        return f"{direction}: none"
    more = f", … ({len(items) - MOST_IDS:,} more)" if len(items) > MOST_IDS else ""
    return f"{direction}: {len(items):,}: {', '.join(items[:MOST_IDS])}{more}"


def _side_by_side(item: str, base: Mapping[str, Any], tuned: Mapping[str, Any]) -> str:
    """All that both said, one below the other."""
    lines = [f"### {item}", f"gold: {base.get('gold', '?')}"]
    for name, record in (("base", base), ("tuned", tuned)):
        verdict = "right" if record["correct"] else "wrong"
        lines.append(
            f"{name} ({verdict}), read as {record.get('predicted')!r}:\n\n{_quoted(str(record.get('text', '')))}"
        )
    return "\n\n".join(lines)


def _quoted(text: str) -> str:
    """Indented, so that nothing in it is taken for markdown; what is left out is said."""
    more = f"\n… ({len(text) - MOST_CHARACTERS:,} more characters)" if len(text) > MOST_CHARACTERS else ""
    return "\n".join(f"    {line}" for line in (text[:MOST_CHARACTERS] + more).split("\n"))
