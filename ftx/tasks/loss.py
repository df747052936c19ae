"""How surprised the model is by the held-out answers: cross-entropy over their tokens, and perplexity."""

import math

import numpy as np

from ftx.loss import evaluate_loss
from ftx.statistics import bootstrap
from ftx.tasks.task import TaskInput, TaskResult


def score(given: TaskInput) -> TaskResult:
    """Every held-out conversation once; intervals are bootstrapped over conversations."""
    evaluated = evaluate_loss(given.model, given.prepared.evaluation, given.model.device)
    wanted = {conversation.id for conversation in given.conversations}
    ids = [name for row in given.prepared.evaluation for name in row.ids]
    chosen = [at for at, name in enumerate(ids) if name in wanted]
    sums, tokens = np.array(evaluated.sums)[chosen], np.array(evaluated.tokens)[chosen]

    def mean(items: np.ndarray) -> float:
        return float(sums[items].sum() / tokens[items].sum())

    value, n = float(sums.sum() / tokens.sum()), len(chosen)
    low, high = bootstrap(mean, n, seed=given.seed)
    scores = {
        "eval_loss": {"value": value, "n": n, "ci95": [low, high]},
        "perplexity": {"value": math.exp(value), "n": n, "ci95": [math.exp(low), math.exp(high)]},
    }
    predictions = [
        {"id": ids[at], "loss": float(sums[row] / max(tokens[row], 1)), "tokens": int(tokens[row])}
        for row, at in enumerate(chosen)
    ]
    return TaskResult(scores, predictions)
