"""One question an item, answered by the engine: how most tasks come to their records."""

from collections.abc import Sequence
from dataclasses import asdict

from ftx.engines.engine import Answer, Request
from ftx.progress import Progress
from ftx.tasks.task import Item, Keep, Record, TaskInput


def ask(given: TaskInput, items: Sequence[Item], keep: Keep, *, task: str, max_new_tokens: int) -> None:
    """``max_new_tokens``: what the task allows an answer where evaluation.max_new_tokens says nothing."""
    evaluation = given.evaluation
    requests = [
        Request(
            id=item.id,
            messages=item.messages,
            tools=item.tools,
            max_new_tokens=evaluation.max_new_tokens or max_new_tokens,
            temperature=evaluation.temperature,
            top_p=evaluation.top_p,
            seed=given.seed,
        )
        for item in items
    ]
    done = 0
    with Progress(f"score {task}", len(items), unit="item") as progress:

        def hear(place: int, answer: Answer) -> None:
            nonlocal done
            keep(record_of(items[place].id, answer))
            done += 1
            progress.show(done)

        given.engine.answer(requests, hear)


def record_of(name: str, answer: Answer) -> Record:
    """An answer as it is kept; ``calls`` only where a server has read them."""
    record = {"id": name, **asdict(answer)}
    if answer.calls is None:
        del record["calls"]
    return record
