"""How fast a model answered, and how often at all: the same for every task whose records say when."""

from collections.abc import Sequence
from typing import Any

from ftx.statistics import bootstrap, wilson
from ftx.tasks.task import Record

# Those that depend on the machine and its load.
TIMED = ("seconds_per_item", "items_per_second", "tokens_per_second")


def speed_scores(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """``success_rate``, ``seconds_per_item`` (from asking to the answer), ``items_per_second``, ``tokens_per_second``
    (of what was written).

    Empty where the records have no times. The last two are over the time in which anything was asked, which counts
    once however many ranks were at it, and leaves out the time between two starts of a run.
    """
    import numpy as np

    timed = [record for record in records if "began" in record and "ended" in record]
    if not timed:
        return {}
    n, answered = len(timed), [record for record in timed if record.get("finish") != "failed"]
    scores = {"success_rate": _score(len(answered) / n, n, wilson(len(answered), n))}
    if answered:
        seconds = np.array([record["ended"] - record["began"] for record in answered])
        busy = max(_busy_seconds(answered), 1e-9)
        scores["seconds_per_item"] = _score(
            float(seconds.mean()), len(answered), bootstrap(lambda items: float(seconds[items].mean()), len(answered))
        )
        scores["items_per_second"] = _score(len(answered) / busy, len(answered), None)
        if all("tokens" in record for record in answered):
            tokens = sum(record["tokens"] for record in answered)
            scores["tokens_per_second"] = _score(tokens / busy, len(answered), None)
    return scores


def _busy_seconds(records: Sequence[Record]) -> float:
    """The length of the union of the records' times."""
    total, until = 0.0, float("-inf")
    for began, ended in sorted((record["began"], record["ended"]) for record in records):
        total += max(0.0, ended - max(began, until))
        until = max(until, ended)
    return total


def _score(value: float, n: int, interval: tuple[float, float] | None) -> dict[str, Any]:
    return {"value": value, "n": n, "ci95": list(interval or (None, None))}
