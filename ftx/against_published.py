"""Our numbers tested against those that others have published."""

from __future__ import annotations

from collections.abc import Sequence

from ftx.contrast import Contrast
from ftx.markdown import Column, to_table
from ftx.significance import fisher, holm
from ftx.statistics import difference_interval
from ftx.sweep_arms import Arm, Metric, Score, format_score
from ftx.verdict import ALPHA, format_difference, format_p


def against_published(arms: Sequence[Arm], metrics: Sequence[Metric]) -> str:
    """A row for each number that is published of a scored arm, and in words whether ours differ; markdown."""
    pairs = [
        (arm, metric, ours, theirs)
        for metric in metrics
        for arm in arms
        if (ours := metric.score(arm)) and (theirs := metric.published(arm))
    ]
    if not pairs:
        return "The experiment states no published number of an arm that is scored."
    found = [_contrast(ours, theirs) for *_, ours, theirs in pairs]
    corrected = iter(holm([one.p for one in found if one.p is not None]))
    adjusted = [None if one.p is None else next(corrected) for one in found]
    rates = [metric.is_rate(arms) for _, metric, *_ in pairs]
    table = to_table(
        [
            Column("arm", [arm.title for arm, *_ in pairs], False),
            Column("metric", [metric.full_name for _, metric, *_ in pairs], False),
            Column("ours", [format_score(pair[2], rate=rate) for pair, rate in zip(pairs, rates, strict=True)]),
            Column("published", [format_score(pair[3], rate=rate) for pair, rate in zip(pairs, rates, strict=True)]),
            Column(
                "difference (points)" if all(rates) else "difference",
                [format_difference(one, rate=rate) for one, rate in zip(found, rates, strict=True)],
            ),
            Column("p", [format_p(one.p) for one in found]),
            Column("p (Holm)", [format_p(p) for p in adjusted]),
        ]
    )
    return f"{table}\n\n{_in_words(adjusted)}"


def _contrast(ours: Score, theirs: Score) -> Contrast:
    """By counts alone: who published the number has shown no answers to pair ours with."""
    difference = ours.value - theirs.value
    if ours.interval is None or theirs.interval is None:
        return Contrast(difference, None, None, "")
    interval = difference_interval(ours.value, ours.interval, theirs.value, theirs.interval)
    if ours.n is None or theirs.n is None or ours.successes is None or theirs.successes is None:
        return Contrast(difference, interval, None, "")
    return Contrast(difference, interval, fisher((ours.successes, ours.n), (theirs.successes, theirs.n)), "")


def _in_words(adjusted: Sequence[float | None]) -> str:
    tested = [p for p in adjusted if p is not None]
    if not tested:
        return "Nothing can be tested: no published number comes with its n, or ours is no share of counted items."
    apart = sum(p <= ALPHA for p in tested)
    differ = f"{apart} differ" if apart > 1 else f"{apart or 'none'} differs"
    said = (
        f"Of the {len(tested)} that come with counts, {differ} from what is published by Fisher's exact test, "
        "two-sided, after Holm's correction."
    )
    return said + (" Without counts there is no test." if len(tested) < len(adjusted) else "")
