"""What the words say of the tasks that a model is scored on, checked across their keys."""

from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec

from ftx.config.data_checks import has_held_out_source, looks_like_a_file
from ftx.config.engine_checks import ELSEWHERE
from ftx.config.keys import did_you_mean
from ftx.config.schema import RunConfig
from ftx.errors import UserError

TASKS = ("classification", "data_agent", "function_calling", "lm_eval", "loss", "math")
# The group of entry points that a user's own tasks come in by.
OWN_TASKS = "ftx.tasks"


def _asks(task: str) -> tuple[Callable[[RunConfig], bool], str]:
    return lambda run: task in run.evaluation.tasks, f"evaluation.tasks has no {task}"


def _asks_the_hub(run: RunConfig) -> bool:
    path = run.evaluation.math.path
    return path is not None and not looks_like_a_file(path)


_ONLY_HUB = (_asks_the_hub, "only an evaluation.math.path on the hub does")
# As READ_WHEN of ftx/config/checks.py, which these are part of.
EVALUATION_READ_WHEN: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    "evaluation.hardware": (lambda run: bool(run.evaluation.tasks), "evaluation.tasks=[] scores nothing"),
    "evaluation.classification": _asks("classification"),
    "evaluation.math": _asks("math"),
    "evaluation.math.subset": _ONLY_HUB,
    "evaluation.math.split": _ONLY_HUB,
    "evaluation.math.revision": _ONLY_HUB,
    "evaluation.math.format": (
        lambda run: run.evaluation.math.path is not None,
        "held-out problems have data.format; only evaluation.math.path does",
    ),
    "evaluation.function_calling": _asks("function_calling"),
    "evaluation.lm_eval": _asks("lm_eval"),
}


def check_evaluation(run: RunConfig) -> None:
    """Raise UserError for tasks that there are not, and for such as have nothing to ask."""
    evaluation = run.evaluation
    for position, task in enumerate(evaluation.tasks):
        if task in evaluation.tasks[:position]:
            raise UserError(f"evaluation.tasks=[{','.join(evaluation.tasks)}]: {task} is named twice; name it once")
        _check_name(task)
    if held_out_tasks(run) and run.data.holdout == 0 and not has_held_out_source(run):
        raise UserError(
            "data.holdout=0: nothing is kept aside for evaluation; say evaluation.tasks=[] or a share above 0"
        )
    if "lm_eval" in evaluation.tasks:
        _check_lm_eval(run)


def held_out_tasks(run: RunConfig) -> list[str]:
    """Those of the run's tasks that ask about what it held out."""
    with_path = {"math": run.evaluation.math.path, "function_calling": run.evaluation.function_calling.path}
    return [task for task in run.evaluation.tasks if task in ("classification", "loss")] + [
        task for task, path in with_path.items() if task in run.evaluation.tasks and path is None
    ]


def _check_name(task: str) -> None:
    known = [*TASKS, *(point.name for point in entry_points(group=OWN_TASKS))]
    if task in known:
        return
    try:
        found = find_spec(task.partition(".")[0])
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UserError(
            f"evaluation.tasks=[{task}]: no such task{did_you_mean(task, known)}; there are {', '.join(known)}, or "
            "write the name of a MODULE of yours"
        )


def _check_lm_eval(run: RunConfig) -> None:
    if not run.evaluation.lm_eval.tasks:
        raise UserError(
            "evaluation.lm_eval.tasks is empty: evaluation.tasks=[lm_eval] needs tasks of the harness, as in "
            "evaluation.lm_eval.tasks=[ifeval,mmlu]"
        )
    if run.evaluation.engine in ELSEWHERE:
        raise UserError(
            f"evaluation.engine={run.evaluation.engine}: evaluation.tasks=[lm_eval] needs the model itself; use "
            "evaluation.engine=transformers"
        )
