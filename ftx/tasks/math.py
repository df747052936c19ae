"""Problems with a final answer: GSM8K, SciBench, MathCodeInstruct, or what the run held out; asked as in training."""

import logging
from collections.abc import Sequence
from typing import Any

from ftx.config.evaluation_schema import EvaluationConfig, MathConfig
from ftx.data.conversation import Conversation
from ftx.data.prepare import Prepared
from ftx.errors import UserError
from ftx.tasks.asking import ask
from ftx.tasks.math_answers import final_answer, is_right
from ftx.tasks.math_problems import problems
from ftx.tasks.rates import rate
from ftx.tasks.task import Item, Keep, Record, TaskInput, TaskResult

log = logging.getLogger(__name__)

# What the reasoning models of the experiments are trained on at most.
MAX_NEW_TOKENS = 2048


def check(prepared: Prepared, evaluation: EvaluationConfig) -> None:
    """Raise UserError where no problem has an answer to compare with; say how many have none."""
    from ftx.data.tokenize import stop_ids

    stop_ids(prepared.tokenizer, prepared.template)
    asked = list(problems(prepared, evaluation.math))
    without = sum(_gold_answer(problem) is None for problem, _ in asked)
    if without == len(asked):
        where = "data" if evaluation.math.path is None else "evaluation.math.path"
        raise UserError(
            f"evaluation.tasks=[math]: no answer in {where} says what it comes to (a line behind </think>, #### 18, "
            "\\boxed{18}); use another task"
        )
    if without:
        log.warning("math: %d of %d problems are left out, their answers say no result", without, len(asked))


def items(prepared: Prepared, evaluation: EvaluationConfig) -> list[Item]:
    """Every problem that has a result, as it is asked in training."""
    from ftx.data.render import before_the_answer

    opens = evaluation.engine != "openai" and _opens_thoughts(prepared)
    found = [
        Item(
            problem.id,
            before_the_answer(problem).messages,
            problem.tools,
            gold={"answer": gold, "kind": kind, "opens_thoughts": opens},
        )
        for problem, kind in problems(prepared, evaluation.math)
        if (gold := _gold_answer(problem)) is not None
    ]
    return found[: evaluation.limit]


def answer(given: TaskInput, items: Sequence[Item], keep: Keep) -> None:
    ask(given, items, keep, task="math", max_new_tokens=MAX_NEW_TOKENS)


def score(items: Sequence[Item], records: Sequence[Record], evaluation: EvaluationConfig) -> TaskResult:
    """Accuracy, over all and by kind; how many answers come to nothing, and how many only hold a number somewhere."""
    predictions = [_prediction(item, record, evaluation.math) for item, record in zip(items, records, strict=True)]
    scores = {
        "accuracy": rate(one["correct"] for one in predictions),
        "no_answer_rate": rate(one["predicted"] is None for one in predictions),
        "unmarked_rate": rate(one["predicted"] is not None and not one["marked"] for one in predictions),
    }
    kinds = sorted({item.gold["kind"] for item in items})
    for kind in filter(None, kinds if len(kinds) > 1 else []):
        scores[f"accuracy.{kind}"] = rate(one["correct"] for one in predictions if one["kind"] == kind)
    return TaskResult(scores, predictions)


def _prediction(item: Item, record: Record, config: MathConfig) -> dict[str, Any]:
    text = record["text"]
    is_thinking = item.gold["opens_thoughts"] and "</think>" not in text
    found = None if is_thinking else final_answer(text)
    if found is not None and not found.marked and record["finish"] == "length":
        # The last number before an answer was cut off is not what it would have come to.
        found = None
    return {
        "id": item.id,
        "gold": item.gold["answer"],
        "predicted": found and found.text,
        "marked": found is not None and found.marked,
        "correct": found is not None and is_right(found.text, item.gold["answer"], config.relative_tolerance),
        "kind": item.gold["kind"],
        "text": text,
    }


def _gold_answer(problem: Conversation) -> str | None:
    last = next(message for message in reversed(problem.messages) if message["role"] == "assistant")
    found = final_answer(str(last["content"] or ""))
    return found.text if found is not None and found.marked else None


def _opens_thoughts(prepared: Prepared) -> bool:
    """Whether the template begins the answer with ``<think>``, so that what the model writes is thought first."""
    from ftx.data.render import render_question

    asked = Conversation("probe", ({"role": "user", "content": "?"},))
    rendered = render_question(asked, prepared.template, prepared.tokenizer.special_tokens_map)
    return rendered.text.rstrip().endswith("<think>")
