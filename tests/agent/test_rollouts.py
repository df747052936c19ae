"""The loop around the model: what it is told, how work ends, and what is kept of it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from agent.scripted import Scripted, called, cell, evaluation_of, failed, final, records_of, scored, what_was_printed

from ftx.agent.prompts import FINAL_ANSWER, RUN_CELL, TOOLS
from ftx.agent.rollout import before_calls
from ftx.sandbox import why_no_sandbox
from ftx.statistics import wilson
from ftx.tasks import data_agent

pytestmark = pytest.mark.skipif(bool(why := why_no_sandbox()), reason=f"no sandbox works here: {why}")


@pytest.fixture
def benchmark(tmp_path) -> Path:
    """In DABStep's form: easy questions a to e, hard ones x and y, about one table."""
    folder = tmp_path / "benchmark"
    (folder / "context").mkdir(parents=True)
    (folder / "context" / "numbers.csv").write_text("n\n2\n5\n")
    answers = {"a": "7", "b": "A, B", "c": "yes", "d": "2.5", "e": "Not Applicable", "x": "-3", "y": "NL"}
    rows = [
        {
            "task_id": task,
            "question": f"Question {task}?",
            "guidelines": "Just the answer.",
            "level": "hard" if task in "xy" else "easy",
            "answer": answer,
        }
        for task, answer in answers.items()
    ]
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "all.jsonl").write_text("".join(json.dumps({**row, "answer": ""}) + "\n" for row in rows[:2]))
    return folder


def played(benchmark: Path, folder: Path, turns: dict, **keys: object):
    """The one record of each task, with its verdict."""
    evaluation = evaluation_of(benchmark, **keys)
    records = records_of(evaluation, Scripted(turns), folder, list(turns))
    return {one["task"]: one for one in scored(evaluation, records).predictions}


def test_each_way_to_fail_has_its_name(benchmark, tmp_path):
    ended = played(
        benchmark,
        tmp_path / "log",
        {
            "a": ["I think that it is 7."],
            "b": [cell("1 / 0")],
            "c": [cell("1")],
            "d": [final("2.6")],
            "e": [failed("the server is gone")],
            "x": [final("none that I know")],
            "y": [cell("1"), failed("too long: 40000 tokens, the model takes 32768")],
        },
        max_turns=4,
        retries=2,
    )

    assert {task: one["failure"] for task, one in ended.items()} == {
        "a": "no_tool_call",
        "b": "error_loop",
        "c": "turn_limit",
        "d": "wrong_answer",
        "e": "engine_failed",
        "x": "wrong_format",
        "y": "too_long_context",
    }
    assert played(benchmark, tmp_path / "log", {"a": ["Hm."]}, max_turns=2)["a"]["failure"] == "no_tool_call"
    assert not any(one["correct"] for one in ended.values())
    assert [ended[task]["turns"] for task in "abcdexy"] == [3, 4, 4, 1, 1, 1, 2]
    assert (ended["b"]["tool_calls"], ended["b"]["tool_errors"]) == (4, 4)
    assert (ended["a"]["reminders"], ended["a"]["answer"]) == (2, None)


def test_a_model_sees_what_its_cells_said_and_variables_stay(benchmark, tmp_path):
    turns = [cell("import csv\nrows = list(csv.DictReader(open('data/numbers.csv')))\nrows")]
    turns += [cell("print(sum(int(row['n']) for row in rows))"), what_was_printed]
    evaluation, engine = evaluation_of(benchmark), Scripted({"a": turns})

    (record,) = records_of(evaluation, engine, tmp_path / "log", ["a"])

    assert record["answer"] == "7" and record["end"] == "answered"
    asked = [batch[0] for batch in engine.batches]
    assert [len(request.messages) for request in asked] == [2, 4, 6]
    assert asked[0].tools == TOOLS and [request.id for request in asked] == ["a#0/0", "a#0/1", "a#0/2"]
    said, returned = asked[1].messages[2:]
    assert said["content"] == "I go on." and said["tool_calls"][0]["function"]["name"] == RUN_CELL
    assert returned["role"] == "tool" and returned["content"] == "result:\n[{'n': '2'}, {'n': '5'}]"


def test_a_model_that_calls_no_tool_is_told_why_and_may_go_on(benchmark, tmp_path):
    turns = ["Let me think.", "<tool_call>\n{broken", called("plot", x=1), called(RUN_CELL), final("7")]
    evaluation, engine = evaluation_of(benchmark), Scripted({"a": turns})

    (record,) = records_of(evaluation, engine, tmp_path / "log", ["a"])

    told = [batch[0].messages[-1]["content"] for batch in engine.batches[1:]]
    assert "called no tool" in told[0] and "could not be read" in told[1]
    assert "there is no tool plot" in told[2] and f"{RUN_CELL} needs code" in told[3]
    assert (record["answer"], record["reminders"], record["tool_errors"]) == ("7", 2, 2)


def test_of_several_calls_in_a_message_the_first_one_counts(benchmark, tmp_path):
    turns = [cell("n = 1\nn") + cell("n = 2\nn"), cell("print(n)"), what_was_printed]
    evaluation, engine = evaluation_of(benchmark), Scripted({"a": turns})

    (record,) = records_of(evaluation, engine, tmp_path / "log", ["a"])

    assert record["answer"] == "1"
    assert "this was the first of 2 calls" in engine.batches[1][0].messages[-1]["content"]


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ('So.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', "So."),
        ("<think>a <tool_call> b</think>\n\nSo. <tool_call>{}", "<think>a <tool_call> b</think>\n\nSo."),
        ('{"name": "f", "parameters": {}}', ""),
        ('<think>why</think>\n{"name": "f", "parameters": {}}', "<think>why</think>"),
    ],
)
def test_what_is_said_before_a_call_stays_in_the_conversation(text, before):
    assert before_calls(text) == before


def test_rollouts_share_the_engines_batches_and_a_finished_ones_place_is_taken(benchmark, tmp_path):
    turns = {task: ["Let me think.", final(task)] for task in "abcde"}
    turns["a"] = [final("7")]
    engine = Scripted(turns)

    records = records_of(evaluation_of(benchmark, parallel=2), engine, tmp_path / "log", list("abcde"))

    rounds = [[request.id for request in batch] for batch in engine.batches]
    assert rounds[:3] == [["a#0/0", "b#0/0"], ["b#0/1", "c#0/0"], ["c#0/1", "d#0/0"]]
    assert [record["id"] for record in records] == ["a#0", "b#0", "c#0", "d#0", "e#0"]


def test_every_turn_is_written_down(benchmark, tmp_path):
    records_of(evaluation_of(benchmark), Scripted({"a": [cell("6 * 7"), final("42")]}), tmp_path / "log", ["a"])

    asked, first, last = map(json.loads, (tmp_path / "log" / "a#0.jsonl").read_text().splitlines())
    assert "Question a?" in asked["messages"][1]["content"]
    assert first["messages"][1]["content"] == "result:\n42" and first["end"] is None
    assert last["end"] == "answered" and last["tokens"] > 0


def test_several_samples_of_a_task_are_one_draw(benchmark, tmp_path):
    evaluation = evaluation_of(benchmark, samples=2)
    turns = {"a": [lambda request: final("7" if "#0" in request.id else "8")], "x": [final("-3")]}

    result = scored(evaluation, records_of(evaluation, Scripted(turns), tmp_path / "log", ["a", "x"]))

    assert result.scores["official"]["value"] == 0.75 and result.scores["official"]["n"] == 2
    assert result.scores["official.easy"] == {"value": 0.5, "n": 1, "ci95": [0.5, 0.5]}
    assert result.scores["pass_at_2"] == {"value": 1.0, "n": 2, "ci95": list(wilson(2, 2))}
    assert {one["id"] for one in result.predictions} == {"a#0", "a#1", "x#0", "x#1"}


def test_the_sign_counts_in_strict_only(benchmark, tmp_path):
    evaluation = evaluation_of(benchmark)
    result = scored(evaluation, records_of(evaluation, Scripted({"x": [final("3")]}), tmp_path / "log", ["x"]))
    assert (result.scores["official"]["value"], result.scores["strict"]["value"]) == (1, 0)
    assert result.scores["official"]["ci95"] == list(wilson(1, 1))


def test_without_the_scaffold_the_first_answer_is_the_last(benchmark, tmp_path):
    evaluation = evaluation_of(benchmark, scaffold="none")
    engine = Scripted({"a": ["<think>2 + 5</think>\n7"], "b": ["C"]})

    result = scored(evaluation, records_of(evaluation, engine, tmp_path / "log", ["a", "b"]))

    (request, _) = engine.batches[0]
    assert len(engine.batches) == 1 and request.tools == ()
    assert "numbers.csv begins:\nn\n2\n5" in request.messages[1]["content"]
    assert {one["task"]: one["correct"] for one in result.predictions} == {"a": True, "b": False}
    assert "tool_error_rate" not in result.scores


def test_where_answers_are_withheld_there_is_a_file_for_the_leaderboard(benchmark, tmp_path):
    evaluation = evaluation_of(benchmark, split="test", samples=2)
    engine = Scripted({"a": ["Let me think.", final("7")], "b": ["no idea"]})

    result = scored(evaluation, records_of(evaluation, engine, tmp_path / "log", ["a", "b"]))

    lines = [json.loads(line) for line in result.files["submission.jsonl"].splitlines()]
    assert [(line["task_id"], line["agent_answer"]) for line in lines] == [("a", "7"), ("b", "")]
    assert lines[0]["reasoning_trace"] == "Let me think.\n\nI go on.\n7"
    assert "official" not in result.scores and result.scores["answered"]["value"] == 0.5
    assert "failure.wrong_answer" not in result.scores and "correct" not in result.predictions[0]


KILLED_IN_THE_MIDDLE = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from agent.scripted import Scripted, cell, evaluation_of, final
from ftx.tasks import data_agent
from ftx.tasks.task import TaskInput

def die(request):
    os.kill(os.getpid(), signal.SIGKILL)

evaluation = evaluation_of(Path({benchmark!r}), parallel=1)
evaluation = replace(evaluation, sandbox=replace(evaluation.sandbox, disk_mib={disk}))
engine = Scripted({{"a": [cell("1"), final("7")], "b": [cell("import time; open('/scratch/x', 'w')"), die]}})
items = [one for one in data_agent.items(None, evaluation) if one.gold.id in "ab"]
def keep(record):
    with open({kept!r}, "a") as file:
        file.write(json.dumps(record) + chr(10))
data_agent.answer(TaskInput(engine, None, None, evaluation, 0, Path({log!r})), items, keep)
"""


def test_what_a_killed_process_has_kept_is_not_lost_and_its_notebooks_end_with_it(benchmark, tmp_path):
    kept, log, disk = tmp_path / "kept.jsonl", tmp_path / "log", 100 + os.getpid() % 1000
    code = KILLED_IN_THE_MIDDLE.format(
        tests=str(Path(__file__).parents[1]), benchmark=str(benchmark), kept=str(kept), log=str(log), disk=disk
    )
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        environment = {**os.environ, "TMPDIR": scratch}
        killed = subprocess.run([sys.executable, "-c", code], env=environment, timeout=120, check=False)
        assert_none_are_left_of_size(disk)
    assert killed.returncode == -signal.SIGKILL
    assert [json.loads(line)["id"] for line in kept.read_text().splitlines()] == ["a#0"]
    again = records_of(evaluation_of(benchmark), Scripted({"b": [final("A, B")]}), log, ["b"])
    assert [record["answer"] for record in again] == ["A, B"]


def assert_none_are_left_of_size(mib: int) -> None:
    """Sandboxes are told from those of other tests by the size of their scratch folder, a word of bubblewrap's."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(mib * 2**20) in process.cmdline():
                found.append(process)
    _, alive = psutil.wait_procs(found, timeout=30)
    assert not alive


def test_a_kernel_that_cannot_start_fails_cells_and_not_the_run(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr("ftx.agent.notebook._INSIDE", tmp_path / "broken.py")
    (tmp_path / "broken.py").write_text("raise SystemExit('no kernel today')")

    (record,) = records_of(evaluation_of(benchmark, max_turns=3), Scripted({"a": [cell("1")]}), tmp_path / "log", ["a"])

    assert (record["end"], record["tool_errors"]) == ("error_loop", 3)
    assert "no kernel today" in (tmp_path / "log" / "a#0.jsonl").read_text()


def test_the_prompt_names_files_question_guidelines_and_tools(benchmark):
    item = data_agent.items(None, evaluation_of(benchmark, limit=1))[0]
    role, asked = (message["content"] for message in item.messages)
    assert "- data/numbers.csv" in asked and "Question a?" in asked and "Just the answer." in asked
    assert "Not Applicable" in asked and "short and concise" in asked
    assert FINAL_ANSWER in role and "pandas" in role and "small steps" in role
    assert [tool["function"]["name"] for tool in item.tools] == [RUN_CELL, FINAL_ANSWER]
