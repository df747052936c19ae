"""Tasks by their names: those here, which all have what a task needs, and a user's own."""

import json
import sys

import pytest
from scored_alone import scored_alone
from small_run import composed, write_chats

from ftx.config.compose import compose
from ftx.config.evaluation_checks import TASKS, held_out_tasks
from ftx.data.prepare import prepare
from ftx.errors import UserError
from ftx.models import load_model
from ftx.preflight import check_tasks
from ftx.tasks.registry import FUNCTIONS, task_called

OWN = """
from ftx.data.render import before_the_answer
from ftx.tasks.asking import ask
from ftx.tasks.rates import rate
from ftx.tasks.task import Item, TaskResult


def check(prepared, evaluation):
    pass


def items(prepared, evaluation):
    return [Item(one.id, before_the_answer(one).messages) for one in prepared.held_out[: evaluation.limit]]


def answer(given, items, keep):
    ask(given, items, keep, task="brevity", max_new_tokens=3)


def score(items, records, evaluation):
    return TaskResult({"short_rate": rate(record["tokens"] <= 3 for record in records)}, list(records))
"""


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """Modules of one's own, gone again after the test."""
    (tmp_path / "brevity_task.py").write_text(OWN)
    (tmp_path / "no_task.py").write_text("def check(prepared, evaluation): ...\n")
    (tmp_path / "broken_task.py").write_text("import no_such_module_anywhere\n")
    info = tmp_path / "my_tasks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tasks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ftx.tasks]\nbrevity = brevity_task\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("brevity_task", "no_task", "broken_task"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_what_a_task_needs(name):
    task = task_called(name)
    assert all(callable(getattr(task, function)) for function in FUNCTIONS)


@pytest.mark.parametrize("name", ["brevity", "brevity_task"])
def test_a_task_of_ones_own_comes_in_by_its_entry_point_or_as_a_module(importable, name):
    run = composed(write_chats(importable / "chats.jsonl"), f"evaluation.tasks=[{name}]", "evaluation.limit=3")
    check_tasks(run)
    prepared = prepare(run)
    task = task_called(name)
    result = scored_alone(task, load_model(run, prepared.tokenizer), prepared, run.evaluation)
    assert (result.scores["short_rate"]["value"], result.scores["short_rate"]["n"]) == (1, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_task", r"evaluation\.tasks=\[no_task\]: is no task, it has no items, answer, score; a task is a module"),
        ("broken_task", r"evaluation\.tasks=\[broken_task\]: cannot be loaded: No module named 'no_such_module"),
    ],
)
def test_a_module_that_is_no_task_is_told_at_once(importable, name, message):
    with pytest.raises(UserError, match=message):
        check_tasks(composed(write_chats(importable / "chats.jsonl"), f"evaluation.tasks=[{name}]"))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("[clasification]", r"no such task \(did you mean classification\?\); there are classification, .* a MODULE"),
        ("[loss,loss]", "loss is named twice"),
        ("[no.such.module]", "no such task"),
        ("['']", "no such task"),
    ],
)
def test_names_that_mean_no_task(tasks, message):
    with pytest.raises(UserError, match=message):
        compose(f"evaluation.tasks={tasks}")


def test_only_what_asks_about_held_out_data_needs_some(tmp_path):
    (tmp_path / "mine.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "#### 2"}) + "\n")
    path = f"evaluation.math.path={tmp_path}/mine.jsonl"
    run = compose("evaluation.tasks=[loss,math,lm_eval]", path, "evaluation.lm_eval.tasks=[x]")
    assert held_out_tasks(run) == ["loss"]
    assert held_out_tasks(compose("evaluation.tasks=[math,function_calling]")) == ["math", "function_calling"]


def test_what_is_not_installed_is_told_at_once(monkeypatch):
    monkeypatch.setattr("ftx.preflight.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"lm-eval is not installed; pip install 'ftx\[lm-eval\]'"):
        check_tasks(compose("evaluation=lm_eval"))
