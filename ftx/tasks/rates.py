"""Shares of items, as scores.json holds them."""

from collections.abc import Iterable
from typing import Any

from ftx.statistics import wilson


def rate(holds: Iterable[bool]) -> dict[str, Any]:
    """The share of the items for which something holds, with Wilson's interval; raises ``ValueError`` for no items."""
    values = [bool(value) for value in holds]
    interval = wilson(sum(values), len(values))
    return {"value": sum(values) / len(values), "n": len(values), "ci95": list(interval)}
