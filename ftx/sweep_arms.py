"""The arms of a sweep: what each was, what it reached, which comes first and which is best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftx.errors import UserError
from ftx.outcomes import Outcomes
from ftx.statistics import wilson

BASE_KEY, SEED_KEY = "schedule.epochs", "seed"
NOTHING = "—"
# What a score costs: beside every task's own metrics, in a table of its own.
SPEED = ("success_rate", "seconds_per_item", "items_per_second", "tokens_per_second")
LOWER_IS_BETTER = ("loss", "perplexity", "invalid", "error", "seconds_per_item")


@dataclass(frozen=True)
class Arm:
    """One run of a sweep, or the runs of one setting under several seeds.

    ``swept`` has this arm's value for each swept key, ``scores`` is its ``scores.json`` (empty while there is none)
    and ``train`` the last training row of its ``metrics.jsonl`` (empty for an arm that only scored). ``published`` has
    what somebody else reports of it, in the form of scores, ``outcomes`` its answers by task, and ``seeds`` is how many
    seeds its scores are of.
    """

    name: str
    swept: dict[str, str]
    state: str
    reason: str
    scores: dict[str, dict[str, dict[str, Any]]]
    train: dict[str, Any]
    published: Mapping[str, Mapping[str, dict[str, Any]]] = field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    seeds: int = 1

    @property
    def is_base(self) -> bool:
        """Whether this is the untrained model of a sweep over epochs."""
        return number_in(self.swept.get(BASE_KEY)) == 0

    @property
    def title(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.swept.items()) or self.name


@dataclass(frozen=True)
class Score:
    """A metric's value with its 95 % interval; ``interval`` and ``n`` are None where there is none.

    ``spread`` is the standard deviation over seeds, ``decimals`` how many of a percentage are shown.
    """

    value: float
    interval: tuple[float, float] | None
    n: int | None
    spread: float | None = None
    decimals: int = 1

    @property
    def successes(self) -> int | None:
        """Of the ``n`` items, where it is a share of them: its interval is then Wilson's."""
        if not self.n or not self.interval or self.spread is not None:
            return None
        count = round(self.value * self.n)
        if not 0 <= count <= self.n or not math.isclose(count / self.n, self.value, rel_tol=0, abs_tol=1e-9):
            return None
        same = all(abs(ours - theirs) < 1e-6 for ours, theirs in zip(wilson(count, self.n), self.interval, strict=True))
        return count if same else None


@dataclass(frozen=True)
class Metric:
    task: str
    name: str

    @property
    def full_name(self) -> str:
        return f"{self.task}.{self.name}"

    @property
    def lower_is_better(self) -> bool:
        return any(word in self.name for word in LOWER_IS_BETTER)

    @property
    def is_speed(self) -> bool:
        return self.name in SPEED

    def score(self, arm: Arm) -> Score | None:
        """What the arm reached, None while it has no such score."""
        return _score(arm.scores.get(self.task, {}).get(self.name))

    def published(self, arm: Arm) -> Score | None:
        """What somebody else reports of it."""
        return _score(arm.published.get(self.task, {}).get(self.name))

    def is_rate(self, arms: Iterable[Arm]) -> bool:
        """Whether it reads as a percentage: not a loss or a speed, and nothing outside [0, 1] in any arm."""
        if any(word in self.name for word in ("loss", "perplexity", "_per_")):
            return False
        scores = [score for arm in arms if (score := self.score(arm))]
        return all(0 <= number <= 1 for score in scores for number in (score.value, *(score.interval or ())))


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


def main_metrics_of(arms: Iterable[Arm], wanted: Sequence[str] | None = None) -> list[Metric]:
    """The same without those of speed, unless they are wanted."""
    found = metrics_of(arms, wanted)
    return found if wanted is not None else [metric for metric in found if not metric.is_speed]


def rank(arms: Iterable[Arm], metric: Metric) -> list[tuple[Arm, Score]]:
    """The arms that have a finite score, best first; equal ones keep their order."""
    sign = 1 if metric.lower_is_better else -1
    scored = [(arm, score) for arm in arms if (score := metric.score(arm)) and math.isfinite(score.value)]
    return sorted(scored, key=lambda pair: sign * pair[1].value)


def format_score(score: Score | None, *, rate: bool) -> str:
    """``63.2 % [59.1, 67.1]`` for a rate, else ``1.234 [1.200, 1.268]``; no brackets where there is no interval.

    A spread over seeds follows the value: ``63.2 ± 0.8 % [59.1, 67.1]``.
    """
    if score is None:
        return NOTHING
    value = f"{100 * score.value:.{score.decimals}f}" if rate else _plain(score.value)
    if score.spread is not None:
        value += f" ± {_percent(score.spread) if rate else _plain(score.spread)}"
    value += " %" if rate else ""
    return f"{value} [{format_interval(score.interval, rate=rate)}]" if score.interval else value


def format_interval(interval: tuple[float, float], *, rate: bool) -> str:
    """``59.1, 67.1``"""
    return ", ".join(map(_percent if rate else _plain, interval))


def _score(entry: Mapping[str, Any] | None) -> Score | None:
    if entry is None or entry["value"] is None:
        return None
    low, high = entry.get("ci95") or (None, None)
    interval = None if low is None or high is None else (low, high)
    return Score(entry["value"], interval, entry.get("n"), entry.get("spread"), entry.get("decimals", 1))


def _called(name: str, present: Sequence[Metric]) -> list[Metric]:
    found = [metric for metric in present if name in (metric.name, metric.full_name)]
    if not found:
        known = ", ".join(metric.full_name for metric in present)
        raise UserError(f"no arm of this sweep has the metric {name!r}; there are {known}")
    return found


def _places(key: str, arms: Iterable[Arm]) -> dict[str | None, float]:
    """What a swept key's values sort by."""
    values = list(dict.fromkeys(arm.swept.get(key) for arm in arms))
    numbers = {value: number for value in values if (number := number_in(value)) is not None}
    return numbers if len(numbers) == len(values) else {value: float(place) for place, value in enumerate(values)}


def number_in(value: str | None) -> float | None:
    """The number that a swept value is, None for a word."""
    try:
        return float(value or "")
    except ValueError:
        return None


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _plain(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.4g}"
