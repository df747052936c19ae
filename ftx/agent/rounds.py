"""Many rollouts side by side, in rounds: one batch of questions to the engine, then their cells in parallel."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from ftx.agent.rollout import Rollout
from ftx.engines.engine import Answer, Request
from ftx.tasks.task import Record

Ask = Callable[[Sequence[Request]], list[Answer]]


def play(
    rollouts: Iterator[Rollout],
    request_of: Callable[[Rollout], Request],
    ask: Ask,
    keep: Callable[[Record], None],
    *,
    parallel: int,
) -> None:
    """Bring every rollout to its end, ``parallel`` of them at work at a time; the next takes a finished one's place.

    A rollout's record is kept the moment that it ends; whatever is raised, no notebook stays open.
    """
    at_work: list[Rollout] = []
    with ThreadPoolExecutor(parallel, "rollout") as threads:
        try:
            while _fill(at_work, rollouts, parallel):
                answers = ask([request_of(rollout) for rollout in at_work])
                list(threads.map(Rollout.take, at_work, answers))
                for rollout in [one for one in at_work if one.end]:
                    _close(rollout)
                    keep(rollout.record())
                    at_work.remove(rollout)
        finally:
            for rollout in at_work:
                _close(rollout)


def _fill(at_work: list[Rollout], rollouts: Iterator[Rollout], parallel: int) -> bool:
    while len(at_work) < parallel:
        with suppress(StopIteration):
            at_work.append(next(rollouts))
            continue
        break
    return bool(at_work)


def _close(rollout: Rollout) -> None:
    if rollout.notebook is not None:
        rollout.notebook.close()
