"""The schema as OmegaConf sees it."""

from omegaconf import DictConfig, Node, OmegaConf

from ftx.config.schema import RunConfig


def run_schema() -> DictConfig:
    """The schema to merge into: frozen dataclasses make read-only nodes, which composing has to write to."""
    node = OmegaConf.structured(RunConfig)
    _allow_writes(node)
    return node


def to_run(values: object) -> RunConfig:
    """The run that plain values describe; raises OmegaConf's errors for an unknown key or a wrong type."""
    run: RunConfig = OmegaConf.to_object(OmegaConf.merge(run_schema(), values))  # type: ignore[assignment]
    return run


def _allow_writes(node: Node) -> None:
    node._set_flag("readonly", None)
    if isinstance(node, DictConfig):
        for name in node:
            child = node._get_node(name)
            if isinstance(child, Node):
                _allow_writes(child)
