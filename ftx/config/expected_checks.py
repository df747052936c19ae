"""Whether the published numbers of an experiment can be what they say."""

import math
from collections.abc import Sequence

from ftx.config.keys import did_you_mean, schema_fields
from ftx.config.schema import PublishedResult, RunConfig
from ftx.errors import UserError

# Published shares are rounded: 0.5278 for 38 of 72.
ROUNDED = 0.0005


def check_expected(run: RunConfig) -> None:
    """Raise UserError for a number that no report could show beside ours."""
    for result in run.expected.results:
        _check_result(result)
        _check_share(result)
    _check_settings(run.expected.results)


def _check_result(result: PublishedResult) -> None:
    task, dot, name = result.metric.partition(".")
    if not (task and dot and name):
        raise UserError(f"expected.results: metric={result.metric}: must be TASK.METRIC, as in classification.accuracy")
    if not math.isfinite(result.value):
        raise UserError(f"expected.results: {result.metric}: value={result.value}: must be a finite number")
    known = [name for name, _, _ in schema_fields()]
    for name in result.arm:
        if name not in known:
            raise UserError(
                f"expected.results: {result.metric}: arm.{name}: no such key{did_you_mean(name, known)}; "
                "--cfg job shows all keys of a run"
            )


def _check_share(result: PublishedResult) -> None:
    """A rate of so many items is one of few numbers, so that one from another set of items shows."""
    if result.n is None:
        return
    if result.n < 1:
        raise UserError(f"expected.results: {result.metric}: n={result.n}: must be at least 1")
    count = round(result.value * result.n)
    if not 0 <= count <= result.n or abs(count / result.n - result.value) > ROUNDED:
        nearest = min(max(count, 0), result.n)
        raise UserError(
            f"expected.results: {result.metric}: value={result.value}: no share of n={result.n} items (the nearest is "
            f"{nearest}/{result.n} = {nearest / result.n:.4f}); leave n out where it is not of these items"
        )


def _check_settings(results: Sequence[PublishedResult]) -> None:
    """One number for each setting and metric, and settings that differ in the same keys: else a run might be two."""
    keys = {tuple(sorted(result.arm)) for result in results}
    if len(keys) > 1:
        first, second = ("{" + ", ".join(names) + "}" for names in sorted(keys)[:2])
        raise UserError(f"expected.results: arm has the keys {first} here and {second} there; name the same in each")
    seen = set()
    for result in results:
        setting = (result.metric, *sorted((name, str(value)) for name, value in result.arm.items()))
        if setting in seen:
            words = " ".join(f"{name}={value}" for name, value in result.arm.items())
            raise UserError(f"expected.results: {result.metric} is there twice for {words or 'the experiment'}")
        seen.add(setting)
