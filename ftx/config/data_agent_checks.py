"""What evaluation.tasks=[data_agent] needs, as far as the words tell."""

from collections.abc import Callable
from pathlib import Path

from ftx.config.made_up import is_made_up
from ftx.config.schema import RunConfig
from ftx.errors import UserError


def _has_data_agent(run: RunConfig) -> bool:
    return "data_agent" in run.evaluation.tasks


_NO_DATA_AGENT = "evaluation.tasks has no data_agent"

DATA_AGENT_READ_WHEN: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    "evaluation.data_agent.split": (
        lambda run: run.evaluation.data_agent.benchmark == "dabstep",
        "only evaluation.data_agent.benchmark=dabstep does",
    ),
    "evaluation.data_agent": (_has_data_agent, _NO_DATA_AGENT),
    "evaluation.sandbox": (_has_data_agent, _NO_DATA_AGENT),
    "evaluation.scaffold": (_has_data_agent, _NO_DATA_AGENT),
    "evaluation.unsafe_local": (_has_data_agent, _NO_DATA_AGENT),
}


def check_data_agent(run: RunConfig) -> None:
    """Raise UserError for samples that would all be the same, and a benchmark that is not where it is said to be."""
    if not _has_data_agent(run):
        return
    evaluation, config = run.evaluation, run.evaluation.data_agent
    if config.samples > 1 and evaluation.temperature == 0:
        raise UserError(
            f"evaluation.data_agent.samples={config.samples}: at evaluation.temperature=0 all of them are the same; "
            "say evaluation.temperature=0.7, or one sample"
        )
    if config.path is None and config.benchmark == "dabench":
        raise UserError(
            "evaluation.data_agent.path is not set: evaluation.data_agent.benchmark=dabench needs the folder with its "
            "questions.jsonl and tables.tar.xz"
        )
    if config.path is not None and not is_made_up(config.path) and not Path(config.path).expanduser().is_dir():
        raise UserError(
            f"evaluation.data_agent.path={config.path}: no such folder; give the one that the benchmark's files are in"
        )
