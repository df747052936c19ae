"""The numbers that an experiment states others have published, as scores beside ours, or as arms of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ftx.config.keys import flat
from ftx.config.schema import ExpectedConfig, PublishedResult, RunConfig
from ftx.statistics import wilson
from ftx.sweep_arms import Arm

PublishedScores = dict[str, dict[str, dict[str, Any]]]


def published_of(run: RunConfig) -> PublishedScores:
    """What is published of this run's setting, in the form of scores.json."""
    values = {name: str(value) for name, value in flat(run).items()}
    here = [result for result in run.expected.results if _setting(result).items() <= values.items()]
    return _as_scores(here)


def published_arms(expected: ExpectedConfig) -> list[Arm]:
    """Every published setting as an arm that is scored by what was published of it."""
    settings: dict[tuple[tuple[str, str], ...], list[PublishedResult]] = {}
    for result in expected.results:
        settings.setdefault(tuple(_setting(result).items()), []).append(result)
    return [
        Arm("published", _that_differ(dict(setting), settings), "finished", "", _as_scores(results), {})
        for setting, results in settings.items()
    ]


def _setting(result: PublishedResult) -> dict[str, str]:
    return {name: str(value) for name, value in result.arm.items()}


def _that_differ(setting: dict[str, str], settings: Iterable[tuple[tuple[str, str], ...]]) -> dict[str, str]:
    values: dict[str, set[str]] = {}
    for other in settings:
        for name, value in other:
            values.setdefault(name, set()).add(value)
    return {name: value for name, value in setting.items() if len(values[name]) > 1}


def _as_scores(results: Iterable[PublishedResult]) -> PublishedScores:
    scores: PublishedScores = {}
    for result in results:
        task, _, name = result.metric.partition(".")
        scores.setdefault(task, {})[name] = _entry(result)
    return scores


def _entry(result: PublishedResult) -> dict[str, Any]:
    """A share of counted items is that of the counts, which the published value rounds."""
    if result.n is None:
        return {"value": result.value, "n": None, "ci95": None, "decimals": 2}
    count = round(result.value * result.n)
    return {"value": count / result.n, "n": result.n, "ci95": list(wilson(count, result.n)), "decimals": 2}
