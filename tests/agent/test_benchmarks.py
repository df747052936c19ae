"""How benchmarks are read, and what is said of a folder that holds none."""

import csv
import json

import pytest
from agent.scripted import evaluation_of
from real_data import real_path

from ftx.agent import hub
from ftx.agent.benchmarks import open_benchmark
from ftx.config.compose import compose
from ftx.config.evaluation_schema import DataAgentConfig
from ftx.config.scored_with import answering_settings
from ftx.errors import UserError
from ftx.tasks import data_agent


def test_dabstep_is_read_from_its_folder():
    benchmark = open_benchmark(DataAgentConfig(path=str(real_path("dabstep"))))
    levels = [one.level for one in benchmark.questions]
    assert (levels.count("easy"), levels.count("hard")) == (3, 7)
    assert "fees.jsonl" in benchmark.questions[0].files and benchmark.questions[0].gold == "NL"


def test_dabench_has_a_table_for_every_question():
    benchmark = open_benchmark(DataAgentConfig("dabench", str(real_path("dabench"))))
    assert len(benchmark.questions) == 257
    with benchmark.opened() as tables:
        assert len(tables) == 52
        assert {name for one in benchmark.questions for name in one.files} <= set(tables)
        folder = next(iter(tables.values())).parent
    assert not folder.exists()


def test_a_snapshot_of_the_hub_has_the_same_questions(tmp_path):
    (tmp_path / "data" / "tasks").mkdir(parents=True)
    (tmp_path / "data" / "context").mkdir()
    (tmp_path / "data" / "context" / "manual.md").write_text("read me")
    row = {"task_id": 5, "question": "Which?", "guidelines": "One.", "level": "easy", "answer": "NL"}
    (tmp_path / "data" / "tasks" / "dev.jsonl").write_text(json.dumps(row) + "\n\n")
    (tmp_path / "data" / "tasks" / "all.jsonl").write_text(json.dumps({**row, "answer": ""}))

    dev, test = (open_benchmark(DataAgentConfig(path=str(tmp_path), split=split)) for split in ("dev", "test"))

    assert [(one.id, one.gold, one.files) for one in dev.questions] == [("5", "NL", ("manual.md",))]
    assert [one.gold for one in test.questions] == [None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"task_id": 1, "question": "?", "level": "easy"}', "dev.jsonl:1 has no guidelines"),
        ("[1]", "dev.jsonl:1 has no keys"),
        ("{", "dev.jsonl:1 is not JSON"),
    ],
)
def test_a_bad_row_is_refused_by_its_line(tmp_path, line, message):
    (tmp_path / "context").mkdir()
    (tmp_path / "dev.jsonl").write_text(line)
    with pytest.raises(UserError, match=message):
        open_benchmark(DataAgentConfig(path=str(tmp_path)))


@pytest.mark.parametrize("config", [DataAgentConfig(), DataAgentConfig("dabench")], ids=["dabstep", "dabench"])
def test_a_folder_without_the_benchmark_is_refused(tmp_path, config):
    with pytest.raises(UserError, match=r"evaluation\.data_agent\.path=.*: has no "):
        open_benchmark(DataAgentConfig(config.benchmark, str(tmp_path)))


def test_where_the_hub_may_not_be_asked_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub.fetch_dabstep.cache_clear()
    with pytest.raises(UserError, match=r"adyen/DABstep cannot be fetched from the hub, .*; give the folder"):
        open_benchmark(DataAgentConfig())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation=dabench"], "evaluation.data_agent.path is not set"),
        (["evaluation=dabench", "evaluation.data_agent.path=/nowhere"], "path=/nowhere: no such folder"),
        (["evaluation=dabstep", "evaluation.data_agent.samples=3"], "samples=3: at evaluation.temperature=0"),
        (["evaluation.scaffold=none"], "evaluation.tasks has no data_agent"),
        (["evaluation=dabench", "evaluation.data_agent.path=/", "evaluation.data_agent.split=dev"], "only .*=dabstep"),
    ],
)
def test_a_mistake_in_the_words_is_told_before_anything_starts(words, message):
    with pytest.raises(UserError, match=message):
        compose(*words)


def test_answers_depend_on_limits_of_the_sandbox_but_not_on_how_many_work_at_once():
    run = compose("evaluation=dabstep", "evaluation.sandbox.wall_seconds=5", "evaluation.data_agent.parallel=3")
    assert answering_settings(run, "data_agent") == {"sandbox.wall_seconds": 5.0}
    assert answering_settings(run, "loss") == {}


def test_the_limit_is_of_questions_and_not_of_samples():
    evaluation = evaluation_of(real_path("dabstep"), samples=3, limit=2)
    assert [one.id for one in data_agent.items(None, evaluation)] == [
        f"{task}#{k}" for task in (5, 49) for k in (0, 1, 2)
    ]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_made_up_benchmark_has_the_files_of_the_real_one(split):
    benchmark = open_benchmark(DataAgentConfig(path="made-up:dabstep", split=split))
    assert [question.level for question in benchmark.questions] == ["easy", "easy", "hard", "hard"]
    with benchmark.opened() as files:
        table = list(csv.DictReader(files["payments.csv"].read_text().splitlines()))
        assert set(files) == {"payments.csv", "manual.md"} == set(benchmark.questions[0].files)
    amounts = {name: [float(row["amount"]) for row in table if name in row.values()] for name in ("Alfa", "NL", "BE")}
    answers = [sum(amounts["Alfa"]), max(float(row["amount"]) for row in table), sum(amounts["NL"]), amounts["BE"][0]]
    gold = [str(answer) for answer in answers] if split == "dev" else [None] * 4
    assert [question.gold for question in benchmark.questions] == gold
