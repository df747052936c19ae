"""What scores depend on besides the run: how they were asked for."""

from typing import Any

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.config.keys import flat
from ftx.config.schema import RunConfig

# Keys of evaluation on which no score depends.
_ONLY_HOW = {"tasks", "batch_size", "hardware", "unsafe_local", "data_agent.parallel"}
# Keys and sections that only the named task reads, beside its own section.
_READ_BY = {"scaffold": "data_agent", "sandbox": "data_agent"}
# And those that say which answers count and how, not what a model answers.
_ONLY_SCORES = {"limit", "math.relative_tolerance"}


def scoring_settings(run: RunConfig, task: str) -> dict[str, Any]:
    """What a task's score depends on besides the run itself: the limit, and what differs from its default."""
    return {"limit": run.evaluation.limit, **_changed(run, task, without=_ONLY_HOW)}


def answering_settings(run: RunConfig, task: str) -> dict[str, Any]:
    """What the model's answers depend on."""
    return _changed(run, task, without=_ONLY_HOW | _ONLY_SCORES)


def _changed(run: RunConfig, task: str, without: set[str]) -> dict[str, Any]:
    """The keys of evaluation that differ from their defaults, but those of other tasks."""
    values, defaults = flat(run.evaluation), flat(EvaluationConfig())
    sections = {name.partition(".")[0] for name in values if "." in name}
    others = {name for name in sections | set(_READ_BY) if _READ_BY.get(name, name) != task}
    return {
        name: value
        for name, value in values.items()
        if value != defaults[name] and name not in without and name.partition(".")[0] not in others
    }
