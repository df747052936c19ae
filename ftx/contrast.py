"""The difference between two arms in one metric: how large, how sure, and whether it could be chance."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from ftx.outcomes import Outcomes, differences, is_right_or_wrong, mean, of_metric
from ftx.significance import fisher, mcnemar, paired_t, sign_flip
from ftx.statistics import Interval, cluster_bootstrap, difference_interval, paired_difference_interval
from ftx.sweep_arms import Arm, Metric, Score

MCNEMAR, FISHER = "McNemar's exact test", "Fisher's exact test"
SIGN_FLIP = "an exact permutation test over items (McNemar's, with all answers to an item kept together)"
PAIRED_T = "a paired t-test over items"


@dataclass(frozen=True)
class Contrast:
    """``first - second``. ``interval`` holds 95 %, ``p`` is two-sided; each is None where nothing can be said."""

    difference: float
    interval: Interval | None
    p: float | None
    test: str


def contrast(metric: Metric, first: Arm, second: Arm) -> Contrast | None:
    """None where an arm has no finite score. Paired where both arms answered the same items, else by their counts."""
    scores = metric.score(first), metric.score(second)
    if scores[0] is None or scores[1] is None or not all(math.isfinite(score.value) for score in scores if score):
        return None
    p, test = p_value(metric, first, second)
    return Contrast(scores[0].value - scores[1].value, _interval(metric, first, second), p, test)


def p_value(metric: Metric, first: Arm, second: Arm) -> tuple[float | None, str]:
    """(p, the name of the test); (None, "") where the metric is neither a mean over items nor a share of them."""
    pair = _paired(metric, first, second)
    if pair is None:
        if _same_items(metric, first, second):
            return None, ""  # Fisher's test is of independent counts, and which items they share is not said
        counts = _counts(metric.score(first)), _counts(metric.score(second))
        return (fisher(counts[0], counts[1]), FISHER) if counts[0] and counts[1] else (None, "")
    by_item = differences(*pair)
    if not is_right_or_wrong([*pair[0].values(), *pair[1].values()]):
        return paired_t(list(by_item.values())), PAIRED_T
    whole = [round(one) for one in by_item.values()]
    if len(by_item) < len(pair[0]):
        return sign_flip(whole), SIGN_FLIP
    return mcnemar(whole.count(1), whole.count(-1)), MCNEMAR


def _interval(metric: Metric, first: Arm, second: Arm) -> Interval | None:
    pair = _paired(metric, first, second)
    if pair is None:
        return _of_unpaired(metric.score(first), metric.score(second))
    ours, theirs = pair
    once_each = len({item for _, item in ours}) == len(ours)
    if once_each and is_right_or_wrong([*ours.values(), *theirs.values()]):
        cells = Counter((ours[key].total, theirs[key].total) for key in ours)
        return paired_difference_interval(cells[1, 1], cells[1, 0], cells[0, 1], cells[0, 0])
    if len(set(differences(ours, theirs).values())) == 1:  # nothing to draw from
        return _of_unpaired(metric.score(first), metric.score(second))
    return cluster_bootstrap(
        [ours[key].total - theirs[key].total for key in ours],
        [outcome.weight for outcome in ours.values()],
        [item for _, item in ours],
    )


def _of_unpaired(first: Score | None, second: Score | None) -> Interval | None:
    if first is None or second is None or first.interval is None or second.interval is None:
        return None
    return difference_interval(first.value, first.interval, second.value, second.interval)


def _paired(metric: Metric, first: Arm, second: Arm) -> tuple[Outcomes, Outcomes] | None:
    """Both arms' answers, where they are to the same items in the same draws and the metric is their mean."""
    ours, theirs = _answers(metric, first), _answers(metric, second)
    if not ours or not theirs or ours.keys() != theirs.keys():
        return None
    return (ours, theirs) if all(ours[key].weight == theirs[key].weight for key in ours) else None


def _same_items(metric: Metric, first: Arm, second: Arm) -> bool:
    ours, theirs = (arm.outcomes.get(metric.task, {}).keys() for arm in (first, second))
    return bool(ours) and ours == theirs


def _answers(metric: Metric, arm: Arm) -> Outcomes | None:
    """What the metric is the mean of; None where the predictions do not say."""
    score = metric.score(arm)
    outcomes = of_metric(arm.outcomes.get(metric.task, {}), metric.name, list(arm.scores.get(metric.task, {})))
    if not outcomes or score is None:
        return None
    return outcomes if math.isclose(mean(outcomes), score.value, rel_tol=1e-6, abs_tol=1e-9) else None


def _counts(score: Score | None) -> tuple[int, int] | None:
    if score is None or score.n is None or score.successes is None:
        return None
    return score.successes, score.n
