"""The schema as OmegaConf sees it."""

from dataclasses import replace
from functools import cache
from typing import Any

from omegaconf import DictConfig, Node, OmegaConf

from ftx.config.schema import PublishedResult, RunConfig, SourceConfig
from ftx.errors import UserError


@cache
def run_schema() -> DictConfig:
    """The schema to merge into, which copies it; made once, as that takes a while.

    Frozen dataclasses make read-only nodes, which composing has to write to.
    """
    node = OmegaConf.structured(RunConfig)
    _allow_writes(node)
    return node


def to_run(values: object) -> RunConfig:
    """The run that plain values describe; raises OmegaConf's errors for an unknown key or a wrong type."""
    run: RunConfig = OmegaConf.to_object(OmegaConf.merge(run_schema(), values))  # type: ignore[assignment]
    return replace(
        run,
        data=replace(run.data, sources=_to_sources(run.data.sources)),
        expected=replace(run.expected, results=[_to_result(result) for result in run.expected.results]),
    )


def _to_sources(values: dict[str, Any]) -> dict[str, SourceConfig]:
    """Checked as ``data.sources``, so that errors name the whole key."""
    schema = OmegaConf.create({"data": {"sources": {name: SourceConfig() for name in values}}})
    _allow_writes(schema)
    merged: Any = OmegaConf.to_object(OmegaConf.merge(schema, {"data": {"sources": values}}))
    sources: dict[str, SourceConfig] = merged["data"]["sources"]
    return sources


def _to_result(values: Any) -> PublishedResult:
    """Checked as ``expected.results``, so that errors name the whole key."""
    if not isinstance(values, dict):
        raise UserError(
            f"expected.results=[{values}]: each is {{metric: TASK.METRIC, value: NUMBER, n: ITEMS, arm: {{}}}}"
        )
    schema = OmegaConf.create({"expected": {"results": PublishedResult()}})
    _allow_writes(schema)
    merged: Any = OmegaConf.to_object(OmegaConf.merge(schema, {"expected": {"results": values}}))
    result: PublishedResult = merged["expected"]["results"]
    return result


def _allow_writes(node: Node) -> None:
    node._set_flag("readonly", None)
    if isinstance(node, DictConfig):
        for name in node:
            child = node._get_node(name)
            if isinstance(child, Node):
                _allow_writes(child)
