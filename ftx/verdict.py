"""Is the best arm of a sweep better than the others, in words: each comparison with it, before and after correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from ftx.contrast import Contrast, contrast, p_value
from ftx.markdown import Column, to_table
from ftx.significance import holm
from ftx.sweep_arms import NOTHING, Arm, Metric, format_interval, format_score, rank, swept_keys

ALPHA = 0.05


@dataclass(frozen=True)
class Versus:
    """The best arm beside another one; ``holm`` is p corrected for all comparisons with the best."""

    arm: Arm
    contrast: Contrast
    holm: float | None


@dataclass(frozen=True)
class Verdict:
    """``among_pairs`` are the arms that the best is told apart from when all pairs of arms are corrected for."""

    metric: Metric
    best: Arm
    others: tuple[Versus, ...]
    among_pairs: tuple[Arm, ...]
    pairs: int
    arms: tuple[Arm, ...]


def judge(arms: Sequence[Arm], metric: Metric) -> Verdict | None:
    """Compare the best arm with every other that has a score; None where none has."""
    ranking = [arm for arm, _ in rank(arms, metric)]
    if not ranking:
        return None
    best, *others = ranking
    contrasts = [(other, found) for other in others if (found := contrast(metric, best, other))]
    corrected = iter(holm([found.p for _, found in contrasts if found.p is not None]))
    versus = tuple(Versus(arm, found, None if found.p is None else next(corrected)) for arm, found in contrasts)
    apart, pairs = _apart_among_pairs(ranking, metric)
    return Verdict(metric, best, versus, apart, pairs, tuple(arms))


def describe(verdict: Verdict) -> list[str]:
    """Sentences: the best arm, what it can be told from before correction and after, and what choosing it costs."""
    best = _best(verdict)
    if not verdict.others:
        return [f"{best}; no other arm has a score."]
    tested = [one for one in verdict.others if one.contrast.p is not None]
    untested = [one.arm for one in verdict.others if one.contrast.p is None]
    if not tested:
        return [
            f"{best}. No test says whether another arm differs: there are neither counts that {verdict.metric.name} is "
            "a share of nor answers to the same items that it is the mean of."
        ]
    sentences = [f"{best}. {_before(verdict, tested)} {_after(verdict, tested)}"]
    if untested:
        sentences.append(f"Not tested, for lack of counts or of the same items: {_listed(untested, verdict)}.")
    if len(tested) > 1:
        sentences.append(_choosing(verdict))
    return sentences


def to_markdown(verdict: Verdict) -> str:
    """The comparisons as a table, the nearest first; empty without any."""
    if not verdict.others:
        return ""
    rate = verdict.metric.is_rate(verdict.arms)
    tests = list(dict.fromkeys(one.contrast.test for one in verdict.others if one.contrast.test))
    table = to_table(
        [
            Column(f"{_short(verdict.best, verdict)} minus", [_short(o.arm, verdict) for o in verdict.others], False),
            Column(
                f"{verdict.metric.name} (points)" if rate else verdict.metric.name,
                [format_difference(one.contrast, rate=rate) for one in verdict.others],
            ),
            Column("p", [format_p(one.contrast.p) for one in verdict.others]),
            Column("p (Holm)", [format_p(one.holm) for one in verdict.others]),
        ]
    )
    return f"{table}\n\nTwo-sided p by {' and '.join(tests)}." if tests else table


def format_difference(found: Contrast, *, rate: bool) -> str:
    """``+1.4 [-12.5, +15.1]``"""
    if rate:
        value = f"{100 * found.difference:+.1f}"
    else:
        value = f"{found.difference:+.3f}" if abs(found.difference) >= 0.001 else f"{found.difference:+.2g}"
    return f"{value} [{format_interval(found.interval, rate=rate)}]" if found.interval else value


def format_p(p: float | None) -> str:
    """Two decimals, three below 0.1, four where rounding would hide on which side of 0.05 it is; 1 is written 1.0."""
    if p is None:
        return NOTHING
    if p < 0.001:
        return "< 0.001"
    if p >= 0.995:
        return "1.0"
    if 0.0495 <= p < 0.0505:
        return f"{p:.4f}"
    return f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def _apart_among_pairs(ranking: Sequence[Arm], metric: Metric) -> tuple[tuple[Arm, ...], int]:
    """Holm over all pairs allows for any choice among them, so also for that of the best."""
    pairs = [(one, other, p_value(metric, one, other)[0]) for one, other in combinations(ranking, 2)]
    tested = [(one, other, p) for one, other, p in pairs if p is not None]
    corrected = holm([p for *_, p in tested])
    apart = [
        other
        for (one, other, _), p in zip(tested, corrected, strict=True)
        if one is ranking[0] and p <= ALPHA  # the best comes first in each of its pairs
    ]
    return tuple(apart), len(tested)


def _best(verdict: Verdict) -> str:
    score = verdict.metric.score(verdict.best)
    shown = format_score(score, rate=verdict.metric.is_rate(verdict.arms))
    return f"Best {verdict.metric.name}: {verdict.best.title} with {shown}"


def _before(verdict: Verdict, tested: Sequence[Versus]) -> str:
    same = [one for one in tested if (one.contrast.p or 0) > ALPHA]
    apart = [one for one in tested if one not in same]
    parts = []
    if same:
        parts.append(f"not distinguishable from {_with_p(same, verdict, corrected=False)}")
    if apart:
        parts.append(f"distinguishable from {_with_p(apart, verdict, corrected=False)}")
    test = " or ".join(dict.fromkeys(one.contrast.test for one in tested))
    return f"It is {', but '.join(parts)} by {test} before correction."


def _after(verdict: Verdict, tested: Sequence[Versus]) -> str:
    if len(tested) == 1:
        return "With a single comparison there is nothing to correct for."
    apart = [one for one in tested if one.holm is not None and one.holm <= ALPHA]
    held = _with_p(apart, verdict, corrected=True) if apart else "none of them"
    return f"After Holm's correction for the {len(tested)} comparisons it is distinguishable from {held}."


def _choosing(verdict: Verdict) -> str:
    apart = _listed(verdict.among_pairs, verdict) if verdict.among_pairs else "none"
    return (
        "These same scores made it the best, which favours it in every comparison; corrected for all "
        f"{verdict.pairs} pairs of arms, which allows for that, it is distinguishable from {apart}."
    )


def _with_p(found: Sequence[Versus], verdict: Verdict, *, corrected: bool) -> str:
    names = _names([one.arm for one in found], verdict)
    values = [format_p(one.holm if corrected else one.contrast.p) for one in found]
    signs = ["p" if value.startswith("<") else "p =" for value in values]
    return _joined([f"{name} ({sign} {value})" for name, sign, value in zip(names, signs, values, strict=True)])


def _listed(arms: Sequence[Arm], verdict: Verdict) -> str:
    return _joined(_names(arms, verdict))


def _names(arms: Sequence[Arm], verdict: Verdict) -> list[str]:
    """By what they differ in from the best; where that is one key, it is named the first time only."""
    names, known = [], ""
    for arm in arms:
        differing = _differing(arm, verdict)
        key = next(iter(differing)) if len(differing) == 1 else ""
        names.append(differing[key] if key and key == known else _title(differing) or arm.name)
        known = key
    return names


def _short(arm: Arm, verdict: Verdict) -> str:
    """For a cell: the value alone where only one key was swept."""
    keys = swept_keys(verdict.arms)
    if len(keys) == 1:
        return arm.swept.get(keys[0], arm.title)
    return arm.title if arm is verdict.best else _title(_differing(arm, verdict)) or arm.name


def _differing(arm: Arm, verdict: Verdict) -> dict[str, str]:
    return {key: value for key, value in arm.swept.items() if verdict.best.swept.get(key) != value}


def _title(swept: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in swept.items())


def _joined(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
