"""How surprised the model is by the held-out answers: cross-entropy over their tokens, and perplexity."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftx.config.engine_checks import ELSEWHERE
from ftx.config.evaluation_schema import EvaluationConfig
from ftx.data.prepare import Prepared
from ftx.errors import UserError
from ftx.statistics import bootstrap
from ftx.tasks.task import Item, Keep, Record, TaskInput, TaskResult

if TYPE_CHECKING:
    import numpy as np

# Rows that are computed between two looks at the disk.
TOGETHER = 256


def check(prepared: Prepared, evaluation: EvaluationConfig) -> None:
    if evaluation.engine in ELSEWHERE:
        raise UserError(
            f"evaluation.engine={evaluation.engine}: evaluation.tasks=[loss] needs the model's own probabilities; "
            "use evaluation.engine=transformers, or leave the task out"
        )


def items(prepared: Prepared, evaluation: EvaluationConfig) -> list[Item]:
    """The evaluation rows by their number, each with the ids of the conversations in it that count."""
    wanted = {conversation.id for conversation in prepared.held_out[: evaluation.limit]}
    rows = [[name for name in row.ids if name in wanted] for row in prepared.evaluation]
    return [Item(f"row-{number}", gold=names) for number, names in enumerate(rows) if names]


def answer(given: TaskInput, items: Sequence[Item], keep: Keep) -> None:
    from ftx.loss import evaluate_loss

    assert given.model is not None
    for begin in range(0, len(items), TOGETHER):
        chosen = items[begin : begin + TOGETHER]
        rows = [given.prepared.evaluation[int(item.id.removeprefix("row-"))] for item in chosen]
        evaluated = evaluate_loss(given.model, rows, given.model.device)
        at = 0
        for item, row in zip(chosen, rows, strict=True):
            end = at + len(row.ids)
            keep(
                {
                    "id": item.id,
                    "conversations": list(row.ids),
                    "sums": evaluated.sums[at:end],
                    "tokens": evaluated.tokens[at:end],
                }
            )
            at = end


def score(items: Sequence[Item], records: Sequence[Record], evaluation: EvaluationConfig) -> TaskResult:
    """Every held-out conversation once; intervals are bootstrapped over conversations."""
    import numpy as np

    counted = [
        (name, summed, tokens)
        for item, record in zip(items, records, strict=True)
        for name, summed, tokens in zip(record["conversations"], record["sums"], record["tokens"], strict=True)
        if name in item.gold
    ]
    sums = np.array([summed for _, summed, _ in counted])
    tokens = np.array([tokens for *_, tokens in counted])

    def mean(chosen: "np.ndarray") -> float:
        return float(sums[chosen].sum() / tokens[chosen].sum())

    value, n = float(sums.sum() / tokens.sum()), len(counted)
    low, high = bootstrap(mean, n)
    scores = {
        "eval_loss": {"value": value, "n": n, "ci95": [low, high]},
        "perplexity": {"value": math.exp(value), "n": n, "ci95": [math.exp(low), math.exp(high)]},
    }
    predictions = [{"id": name, "loss": float(summed / max(of, 1)), "tokens": int(of)} for name, summed, of in counted]
    return TaskResult(scores, predictions)
