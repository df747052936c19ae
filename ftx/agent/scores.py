"""What rollouts are worth: rates with intervals over tasks, by level, and why the others failed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftx.agent.rollout import End
from ftx.statistics import bootstrap, wilson

WRONG_ANSWER, WRONG_FORMAT = "wrong_answer", "wrong_format"
FAILURES = (*(str(end) for end in End if end is not End.ANSWERED), WRONG_ANSWER, WRONG_FORMAT)

Score = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """A rollout with its verdicts, none where the answer is withheld; ``failure`` is empty where it is right."""

    task: str
    level: str
    verdicts: Mapping[str, bool]
    failure: str
    turns: int
    tool_calls: int
    tool_errors: int
    answered: bool


def agent_scores(rollouts: Sequence[Judged]) -> dict[str, Score]:
    """Every verdict in all and by level, then how the work went. Several samples of a task are one draw: ``n`` tasks.

    ``pass_at_<k>``, with k samples of each task: the first verdict holds for at least one of them.
    """
    verdicts = list(rollouts[0].verdicts)
    scores = {}
    for name in verdicts:
        scores[name] = _rate(rollouts, [one.verdicts[name] for one in rollouts])
        for level in sorted({one.level for one in rollouts}):
            among = [one for one in rollouts if one.level == level]
            scores[f"{name}.{level}"] = _rate(among, [one.verdicts[name] for one in among])
    by_task = _by_task(rollouts)
    samples = max(map(len, by_task.values()))
    if verdicts and samples > 1:
        passed = sum(any(one.verdicts[verdicts[0]] for one in group) for group in by_task.values())
        scores[f"pass_at_{samples}"] = _score(passed / len(by_task), len(by_task), wilson(passed, len(by_task)))
    scores["answered"] = _rate(rollouts, [one.answered for one in rollouts])
    scores["turns"] = _mean(rollouts, [one.turns for one in rollouts])
    if any(one.tool_calls for one in rollouts):
        errors, calls = [one.tool_errors for one in rollouts], [one.tool_calls for one in rollouts]
        scores["tool_error_rate"] = _ratio(rollouts, errors, calls)
    for failure in FAILURES:
        if verdicts or failure not in (WRONG_ANSWER, WRONG_FORMAT):
            scores[f"failure.{failure}"] = _rate(rollouts, [one.failure == failure for one in rollouts])
    return scores


def _rate(rollouts: Sequence[Judged], holds: Sequence[bool]) -> Score:
    """Wilson's interval for one sample a task; with several, tasks are drawn with all of their samples."""
    if len(_by_task(rollouts)) == len(rollouts):
        count = sum(holds)
        return _score(count / len(rollouts), len(rollouts), wilson(count, len(rollouts)))
    return _mean(rollouts, holds)


def _mean(rollouts: Sequence[Judged], values: Sequence[float]) -> Score:
    return _ratio(rollouts, values, [1] * len(rollouts))


def _ratio(rollouts: Sequence[Judged], above: Sequence[float], below: Sequence[float]) -> Score:
    """The ratio of two sums over all rollouts, its interval bootstrapped over tasks."""
    import numpy as np

    tasks, task_of = np.unique([one.task for one in rollouts], return_inverse=True)
    sums = np.array([np.bincount(task_of, values) for values in (above, below)])

    def ratio(drawn: np.ndarray) -> float:
        upper, lower = sums[:, drawn].sum(axis=1)
        return float(upper / max(lower, 1))

    return _score(ratio(np.arange(len(tasks))), len(tasks), bootstrap(ratio, len(tasks)))


def _by_task(rollouts: Sequence[Judged]) -> dict[str, list[Judged]]:
    groups = defaultdict(list)
    for one in rollouts:
        groups[one.task].append(one)
    return groups


def _score(value: float, n: int, interval: tuple[float, float]) -> Score:
    return {"value": value, "n": n, "ci95": list(interval)}
