"""An engine whose answers are written beforehand: what it takes a model to answer right, or to fail in some way."""

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ftx.agent.prompts import FINAL_ANSWER, RUN_CELL
from ftx.config.evaluation_schema import DataAgentConfig, EvaluationConfig, SandboxConfig
from ftx.engines.engine import Answer, OnAnswer, Request
from ftx.tasks import data_agent
from ftx.tasks.task import Record, TaskInput, TaskResult

# What is said in one turn: as it is, made from what was asked, or a whole answer.
Turn = str | Callable[[Request], str] | Answer


def called(name: str, **arguments: object) -> str:
    return f"I go on.\n<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def cell(code: str) -> str:
    return called(RUN_CELL, code=code)


def final(answer: str) -> str:
    return called(FINAL_ANSWER, answer=answer)


def what_was_printed(request: Request) -> str:
    """The final answer is what the last cell printed."""
    return final(request.messages[-1]["content"].removeprefix("stdout:\n"))


def failed(error: str) -> Answer:
    return Answer("", 0, 0, time.time(), time.time(), "failed", error)


class Scripted:
    """Says each rollout's turns one after the other, then the last one again and again."""

    def __init__(self, turns: Mapping[str, Sequence[Turn]]) -> None:
        """``turns``: task → what is said to it, in every sample."""
        self._turns = turns
        self._said: Counter[str] = Counter()
        self.batches: list[list[Request]] = []

    def answer(self, requests: Sequence[Request], on_answer: OnAnswer | None = None) -> list[Answer]:
        self.batches.append(list(requests))
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Answer:
        rollout = request.id.partition("/")[0]
        turns = self._turns[rollout.partition("#")[0]]
        turn = turns[min(self._said[rollout], len(turns) - 1)]
        self._said[rollout] += 1
        if isinstance(turn, Answer):
            return turn
        text = turn if isinstance(turn, str) else turn(request)
        now = time.time()
        return Answer(text, len(text.split()), 100, now, now, "stop")


def evaluation_of(
    path: Path, benchmark: str = "dabstep", *, scaffold: str = "notebook", limit: int | None = None, **keys: object
) -> EvaluationConfig:
    """Of a benchmark in a folder; ``keys`` are those of its section."""
    return EvaluationConfig(
        tasks=["data_agent"],
        scaffold=scaffold,
        limit=limit,
        data_agent=DataAgentConfig(benchmark=benchmark, path=str(path), **keys),
        sandbox=SandboxConfig(wall_seconds=20, memory_gib=2),
    )


def records_of(evaluation: EvaluationConfig, engine: Scripted, folder: Path, only: Sequence[str]) -> list[Record]:
    """Of those tasks, as they were kept."""
    given = TaskInput(engine, None, None, evaluation, 0, folder)
    items = [one for one in data_agent.items(None, evaluation) if one.gold.id in only]
    kept: list[Record] = []
    data_agent.answer(given, items, kept.append)
    return kept


def scored(evaluation: EvaluationConfig, records: Sequence[Record]) -> TaskResult:
    by_id = {record["id"]: record for record in records}
    items = [one for one in data_agent.items(None, evaluation) if one.id in by_id]
    return data_agent.score(items, [by_id[one.id] for one in items], evaluation)
