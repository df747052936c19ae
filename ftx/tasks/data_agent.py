"""Questions about tables, answered by a model that works in a notebook (DABStep, DABench)."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ftx.agent.benchmarks import Question, open_benchmark
from ftx.agent.notebook import Notebook
from ftx.agent.prompts import TOOLS, notebook_messages, plain_messages
from ftx.agent.rollout import End, Rollout
from ftx.agent.rounds import play
from ftx.agent.scores import WRONG_ANSWER, WRONG_FORMAT, Judged, agent_scores
from ftx.config.evaluation_schema import EvaluationConfig
from ftx.data.prepare import Prepared
from ftx.engines.engine import Answer, Request
from ftx.errors import UserError
from ftx.progress import Progress, say
from ftx.sandbox import open_sandbox
from ftx.tasks import dabench_rules, dabstep_rules
from ftx.tasks.task import Item, Keep, Record, TaskInput, TaskResult

MAX_NEW_TOKENS = 2048
_NUMBER = re.compile(r"\d")
_LIST = re.compile(r"[,;]")


def check(prepared: Prepared, evaluation: EvaluationConfig) -> None:
    """Raise UserError, before anything is trained, where the benchmark, the packages or a sandbox are missing."""
    open_benchmark(evaluation.data_agent)
    if evaluation.scaffold == "none":
        return
    if missing := [name for name in ("jupyter_client", "ipykernel") if find_spec(name) is None]:
        raise UserError(
            f"evaluation.tasks=[data_agent]: needs {missing[0]}; in the checkout, pip install -e '.[agent]'"
        )
    open_sandbox(evaluation.sandbox, unsafe_local=evaluation.unsafe_local)


def items(prepared: Prepared, evaluation: EvaluationConfig) -> list[Item]:
    """``<task>#<k>``: every question as often as there are samples; ``evaluation.limit`` is of questions."""
    benchmark = open_benchmark(evaluation.data_agent)
    questions = benchmark.questions[: evaluation.limit]
    tools: tuple[dict[str, Any], ...] = ()
    if evaluation.scaffold == "notebook":
        asked, tools = [notebook_messages(question) for question in questions], TOOLS
    else:
        with benchmark.opened() as files:
            asked = [plain_messages(question, files) for question in questions]
    return [
        Item(f"{question.id}#{sample}", messages, tools, question)
        for question, messages in zip(questions, asked, strict=True)
        for sample in range(evaluation.data_agent.samples)
    ]


def answer(given: TaskInput, items: Sequence[Item], keep: Keep) -> None:
    """Play every item's rollout to its end; its turns are in ``<id>.jsonl``."""
    evaluation = given.evaluation
    benchmark, title = open_benchmark(evaluation.data_agent), "score data_agent"
    done = turns = 0
    with benchmark.opened() as files, Progress(title, len(items), unit="item") as progress:

        def keep_and_show(record: Record) -> None:
            nonlocal done
            keep(record)
            done += 1
            progress.show(done, f"{turns} turns")

        def ask(requests: Sequence[Request]) -> list[Answer]:
            nonlocal turns
            answers = given.engine.answer(requests)
            turns += len(answers)
            progress.show(done, f"{turns} turns")
            return answers

        play(
            _rollouts(given, items, files),
            lambda rollout: _request(given, rollout),
            ask,
            keep_and_show,
            parallel=evaluation.data_agent.parallel,
        )


def _rollouts(given: TaskInput, items: Sequence[Item], files: Mapping[str, Path]) -> Iterator[Rollout]:
    evaluation = given.evaluation
    sandbox = None
    if evaluation.scaffold == "notebook":
        sandbox = open_sandbox(evaluation.sandbox, unsafe_local=evaluation.unsafe_local)
        say(f"data_agent: {sandbox.describe()}")
    for item in items:
        question: Question = item.gold
        yield Rollout(
            id=item.id,
            messages=list(item.messages),
            log=given.folder / f"{item.id}.jsonl",
            notebook=Notebook(sandbox, {name: files[name] for name in question.files}) if sandbox else None,
            max_turns=evaluation.data_agent.max_turns,
            retries=evaluation.data_agent.retries,
            wall_seconds=evaluation.sandbox.wall_seconds,
        )


def _request(given: TaskInput, rollout: Rollout) -> Request:
    evaluation = given.evaluation
    return Request(
        # The item's number is in its id, so that every sample draws its own.
        id=f"{rollout.id}/{rollout.spent.turns}",
        messages=tuple(rollout.messages),
        tools=TOOLS if rollout.notebook else (),
        max_new_tokens=evaluation.max_new_tokens or MAX_NEW_TOKENS,
        temperature=evaluation.temperature,
        top_p=evaluation.top_p,
        seed=given.seed,
    )


def score(items: Sequence[Item], records: Sequence[Record], evaluation: EvaluationConfig) -> TaskResult:
    """Right by each of the benchmark's rules, in all and by level, and how the rest failed.

    Where the answers are withheld, there is no verdict but a file for the leaderboard: ``submission.jsonl``.
    """
    verdicts = [_verdicts(item.gold, record) for item, record in zip(items, records, strict=True)]
    judged = [
        Judged(
            task=item.gold.id,
            level=item.gold.level,
            verdicts=verdict,
            failure=_failure(item.gold, record, verdict),
            turns=record["turns"],
            tool_calls=record["tool_calls"],
            tool_errors=record["tool_errors"],
            answered=record["end"] == End.ANSWERED,
        )
        for item, record, verdict in zip(items, records, verdicts, strict=True)
    ]
    predictions = [
        {
            **record,
            "task": one.task,
            "level": one.level,
            "gold": item.gold.gold,
            "predicted": record["answer"],
            "failure": one.failure,
            **one.verdicts,
            **({"correct": next(iter(one.verdicts.values()))} if one.verdicts else {}),
        }
        for item, record, one in zip(items, records, judged, strict=True)
    ]
    withheld = not verdicts[0]
    files = {"submission.jsonl": submission(items, records)} if withheld else {}
    return TaskResult(agent_scores(judged), predictions, files=files)


def submission(items: Sequence[Item], records: Sequence[Record]) -> str:
    """What DABStep's leaderboard takes: a line for each task, of its first sample."""
    lines: dict[str, dict[str, Any]] = {}
    for item, record in zip(items, records, strict=True):
        task = item.gold.id
        lines.setdefault(
            task, {"task_id": task, "agent_answer": record["answer"] or "", "reasoning_trace": record["text"]}
        )
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines.values())


def _verdicts(question: Question, record: Record) -> dict[str, bool]:
    """The first one is what the benchmark reports."""
    given, gold = record["answer"], question.gold
    if gold is None:
        return {}
    if isinstance(gold, dict):
        return {"correct": given is not None and dabench_rules.labels_equal(dabench_rules.read_labels(given), gold)}
    return {
        "official": given is not None and dabstep_rules.official(given, gold),
        "strict": given is not None and dabstep_rules.strict(given, gold),
    }


def _failure(question: Question, record: Record, verdicts: Mapping[str, bool]) -> str:
    if record["end"] != End.ANSWERED:
        return str(record["end"])
    if not verdicts or next(iter(verdicts.values())):
        return ""
    return WRONG_ANSWER if _has_form(record["answer"], question.gold) else WRONG_FORMAT


def _has_form(given: str, gold: str | dict[str, str] | None) -> bool:
    """Whether an answer is the kind of thing that was asked for: its labels; a number, a list, a few words."""
    if isinstance(gold, dict):
        return set(gold) <= set(dabench_rules.read_labels(given))
    assert gold is not None
    if not given or len(given) > 10 * max(len(gold), 20):
        return not given and not gold
    if "not applicable" in (given.casefold(), gold.casefold()):
        return True
    return not (_NUMBER.search(gold) and not _NUMBER.search(given)) and not (
        _LIST.search(given) and not _LIST.search(gold)
    )
