"""EleutherAI's lm-evaluation-harness on our model; each of its tasks that is asked for is one item."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.config.keys import did_you_mean
from ftx.data.prepare import Prepared
from ftx.errors import UserError
from ftx.progress import Progress
from ftx.tasks.lm_eval_scores import predictions_of, scores_of
from ftx.tasks.task import Item, Keep, Record, TaskInput, TaskResult

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

log = logging.getLogger(__name__)


def check(prepared: Prepared, evaluation: EvaluationConfig) -> None:
    """Raise UserError for tasks that the harness does not have or whose data it cannot get."""
    for name in evaluation.lm_eval.tasks:
        _load(name, evaluation)


def items(prepared: Prepared, evaluation: EvaluationConfig) -> list[Item]:
    """The limit is one on the questions of each, and belongs to what is asked."""
    up_to = "" if evaluation.limit is None else f"[:{evaluation.limit}]"
    return [Item(f"{name}{up_to}", gold=name) for name in evaluation.lm_eval.tasks]


def answer(given: TaskInput, items: Sequence[Item], keep: Keep) -> None:
    with Progress("score lm_eval", len(items), unit="task") as progress, _as_the_harness_needs_it(given) as model:
        for done, item in enumerate(items, 1):
            found = _evaluate(model, item.gold, given)
            # As JSON, whatever objects of its own the harness's tasks put beside their answers.
            keep(json.loads(json.dumps({"id": item.id, **found}, default=str)))
            progress.show(done)


def score(items: Sequence[Item], records: Sequence[Record], evaluation: EvaluationConfig) -> TaskResult:
    """Every metric of every task under the names that the harness has for them."""
    scores = {name: value for record in records for name, value in scores_of(record).items()}
    return TaskResult(scores, [one for record in records for one in predictions_of(record)])


def _evaluate(model: Any, name: str, given: TaskInput) -> dict[str, Any]:
    """``results`` and ``n`` of the task and of those that it is a group of, and the ``samples`` of each."""
    from lm_eval.evaluator import evaluate

    evaluation, loaded = given.evaluation, _load(name, given.evaluation)
    for task in loaded["tasks"].values():
        said, wanted = task.get_config("num_fewshot"), evaluation.lm_eval.fewshot
        # A task that says 0 is one that has no examples to give.
        task.set_config(key="num_fewshot", value=(said or 0) if wanted is None or said == 0 else wanted)
        task.set_fewshot_seed(seed=given.seed)
    # Not simple_evaluate, which gives nothing to processes that are not their node's first.
    found: Any = evaluate(
        model,
        loaded,
        limit=evaluation.limit,
        bootstrap_iters=1000,
        apply_chat_template=evaluation.lm_eval.chat,
        fewshot_as_multiturn=evaluation.lm_eval.chat,
    )
    counts = {task: samples["effective"] for task, samples in found["n-samples"].items()}
    return {"results": found["results"], "n": counts, "samples": found["samples"]}


@contextmanager
def _as_the_harness_needs_it(given: TaskInput) -> Iterator[Any]:
    """The model in the harness's wrapping; within it an answer ends where the template ends a turn."""
    from lm_eval.models.huggingface import HFLM
    from transformers import GenerationConfig

    from ftx.attention import unpacked_attention
    from ftx.data.tokenize import stop_ids

    model, tokenizer = given.model, given.prepared.tokenizer
    assert model is not None
    ends = stop_ids(tokenizer, given.prepared.template) if given.evaluation.lm_eval.chat else [tokenizer.eos_token_id]
    own, was_training = model.generation_config, model.training
    model.generation_config = GenerationConfig(eos_token_id=ends)
    model.eval()
    try:
        with unpacked_attention(model), _quiet():
            yield HFLM(pretrained=model, tokenizer=tokenizer, batch_size=given.evaluation.batch_size)
    finally:
        model.generation_config = own
        model.train(was_training)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the harness says of its defaults is not for our users."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _load(name: str, evaluation: EvaluationConfig) -> Any:
    manager = _manager(name, evaluation.lm_eval.include_path)
    if name not in manager.all_tasks:
        raise UserError(
            f"evaluation.lm_eval.tasks=[{name}]: the harness has no such task{did_you_mean(name, manager.all_tasks)}; "
            "lm_eval ls tasks lists them"
        )
    try:
        with _quiet():
            return manager.load([name])
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"evaluation.lm_eval.tasks=[{name}]: cannot be loaded: {reason}") from error


def _manager(name: str, include_path: str | None) -> "TaskManager":
    """The user's own tasks first: to look through the harness's takes seconds."""
    if include_path is not None and name in (own := _index(include_path, False)).all_tasks:
        return own
    return _index(include_path, True)


@lru_cache
def _index(include_path: str | None, include_defaults: bool) -> "TaskManager":
    from lm_eval.tasks import TaskManager

    with _quiet():
        return TaskManager(include_path=include_path, include_defaults=include_defaults)
