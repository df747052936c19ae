"""How the schema writes a key down: its default, what it accepts, and whether a run's identity depends on it."""

from dataclasses import field
from typing import Any

FORMATS = (
    "messages",
    "prompt_completion",
    "sharegpt",
    "alpaca",
    "glaive_v2",
    "jupyter_agent",
    "mathcodeinstruct",
    "scibench",
    "ag_news",
    "gsm8k",
)


def key(
    default: Any,
    *,
    choices: tuple[Any, ...] = (),
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    identity: bool = True,
) -> Any:
    """A key with its default, the values it accepts and whether a run's identity depends on it."""
    metadata = {"choices": choices, "minimum": minimum, "above": above, "maximum": maximum, "identity": identity}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(kind: type, *, identity: bool = True) -> Any:
    """A group of keys; ``identity=False`` keeps all of it out of a run's identity."""
    return field(default_factory=kind, metadata={"identity": identity})
