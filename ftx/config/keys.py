"""Walks over the schema and over composed runs by dotted key (``schedule.epochs``)."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Any

from ftx.config.schema import RunConfig


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings or dataclasses as one level of dotted keys; lists stay whole, and a dataclass's mappings too."""
    is_config = is_dataclass(tree)
    pairs: Any = [(item.name, getattr(tree, item.name)) for item in fields(tree)] if is_config else tree.items()
    found: dict[str, Any] = {}
    for name, value in pairs:
        if is_dataclass(value) or (isinstance(value, Mapping) and value and not is_config):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def schema_fields(config: Any = RunConfig, prefix: str = "") -> Iterator[tuple[str, "Field[Any]", bool]]:
    """(dotted key, field, whether it belongs to a run's identity) for every key of the schema."""
    for item in fields(config):
        belongs = item.metadata.get("identity", True)
        if is_dataclass(item.type):
            for name, inner, inner_belongs in schema_fields(item.type, f"{prefix}{item.name}."):
                yield name, inner, belongs and inner_belongs
        else:
            yield f"{prefix}{item.name}", item, belongs


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`` (did you mean x?)`` for the nearest of ``known``; matches a key by its last part too, else nothing."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:
        last = {name.rsplit(".", 1)[-1]: name for name in known}
        near = [
            last[match] for match in difflib.get_close_matches(word.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.7)
        ]
    return f" (did you mean {near[0]}?)" if near else ""
