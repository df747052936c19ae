"""The harness's results as scores.json and predictions hold them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ftx.statistics import bootstrap, wilson
from ftx.tasks.task import Record

Scores = dict[str, dict[str, Any]]
NORMAL_95 = 1.959964


def scores_of(record: Record) -> Scores:
    """``TASK.METRIC``, with the filter of the answers behind it where it has one (``gsm8k.exact_match.strict-match``).

    What the harness has no number for has none here. Intervals: Wilson's for shares, bootstrapped for other means of
    the questions; else by the harness's standard error.
    """
    found: Scores = {}
    for task, results in record["results"].items():
        for key, value in results.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not _is_number(value):
                continue
            name = f"{task}.{metric}" + (f".{chosen}" if chosen != "none" else "")
            values = _values(record["samples"].get(task, []), metric, chosen)
            error = results.get(f"{metric}_stderr,{chosen}")
            # A group has the questions of its tasks.
            n = record["n"].get(task) or results.get("sample_count", {}).get(key) or sum(record["n"].values())
            found[name] = {"value": value, "n": n, "ci95": _interval(value, values, error)}
    return found


def predictions_of(record: Record) -> Iterator[dict[str, Any]]:
    """Each question once, by the task's first filter and metric; ``correct`` where that is right or wrong."""
    for task, samples in record["samples"].items():
        for sample in samples:
            if sample["filter"] != samples[0]["filter"]:
                continue
            value = sample.get(sample["metrics"][0]) if sample["metrics"] else None
            yield {
                "id": f"{task}/{sample['doc_id']}",
                "gold": sample["target"],
                "predicted": sample["filtered_resps"],
                **({"correct": bool(value)} if value in (0, 1) else {}),
                **{metric: sample.get(metric) for metric in sample["metrics"]},
                "text": sample["resps"],
            }


def _values(samples: Sequence[dict[str, Any]], metric: str, chosen: str) -> list[float]:
    """Of each question; empty where the metric has no number for each."""
    values: list[Any] = [sample.get(metric) for sample in samples if sample["filter"] == chosen]
    return list(map(float, values)) if all(map(_is_number, values)) else []


def _is_number(value: Any) -> bool:
    """The harness writes N/A and not-a-number where it has none."""
    return isinstance(value, int | float) and math.isfinite(value)


def _interval(value: float, values: Sequence[float], error: Any) -> list[float | None]:
    if values and math.isclose(sum(values) / len(values), value, rel_tol=1e-9, abs_tol=1e-12):
        if set(values) <= {0.0, 1.0}:
            return list(wilson(round(sum(values)), len(values)))
        return list(bootstrap(lambda items: sum(values[item] for item in items) / len(items), len(values)))
    if _is_number(error):
        return [value - NORMAL_95 * error, value + NORMAL_95 * error]
    return [None, None]
