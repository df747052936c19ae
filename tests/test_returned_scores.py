"""What the leaderboard returns enters a run's scores, easy and hard apart."""

import json

import pytest

from ftx.errors import UserError
from ftx.returned_scores import import_returned
from ftx.run_folder import RunFolder
from ftx.statistics import wilson

EASY, HARD = 72, 378


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """As it is after the test split has been answered twice."""
    folder = RunFolder(tmp_path)
    folder.predictions("data_agent").parent.mkdir()
    lines = [
        json.dumps({"id": f"{task}#{sample}", "task": str(task), "level": "easy" if task < EASY else "hard"}) + "\n"
        for task in range(EASY + HARD)
        for sample in range(2)
    ]
    folder.predictions("data_agent").write_text("".join(lines))
    answered = {"answered": {"value": 1.0, "n": 450, "ci95": [0.99, 1.0]}}
    folder.write_json(folder.path / "scores.json", {"loss": {}, "data_agent": answered})
    return folder


def returned(folder: RunFolder, rows: list[dict]):
    file = folder.path / "returned.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def verdicts(easy: int, hard: int) -> list[dict]:
    return [
        {"submission_id": "one", "task_id": str(task), "score": task < easy or EASY <= task < EASY + hard}
        for task in range(EASY + HARD)
    ]


def test_verdicts_become_scores_beside_those_that_are_there(folder):
    scores = import_returned(folder, returned(folder, verdicts(54, 30)))

    assert scores["official.easy"] == {"value": 0.75, "n": 72, "ci95": list(wilson(54, 72))}
    assert scores["official.hard"] == {"value": 30 / 378, "n": 378, "ci95": list(wilson(30, 378))}
    assert scores["official"] == {"value": 84 / 450, "n": 450, "ci95": list(wilson(84, 450))}
    there = folder.read_scores()
    assert there["data_agent"]["answered"]["n"] == 450 and "loss" in there
    assert {name: there["data_agent"][name] for name in scores} == scores


def test_verdicts_are_noted_beside_the_answers_that_were_submitted(folder):
    import_returned(folder, returned(folder, verdicts(1, 0)))
    first, second, third, *_ = map(json.loads, folder.predictions("data_agent").read_text().splitlines())
    assert (first["id"], first["correct"]) == ("0#0", True)
    assert second["id"] == "0#1" and "correct" not in second
    assert (third["id"], third["correct"]) == ("1#0", False)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_leaderboards_row_gives_the_counts_that_it_stands_for(folder, indent):
    file = folder.path / "row.json"
    row = {"Agent": "ours", "Easy Level Accuracy (%)": 73.61, "Hard Level Accuracy (%)": 7.94}
    file.write_text(json.dumps(row, indent=indent))

    scores = import_returned(folder, file)

    assert (scores["official.easy"]["value"], scores["official.hard"]["value"]) == (53 / 72, 30 / 378)
    assert scores["official"]["value"] == 83 / 450


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"Easy Level Accuracy (%)": 38.67, "Hard Level Accuracy (%)": 7.94}], "38.67 % is no share of this run's 72"),
        (verdicts(1, 1)[1:], "has no score for 1 of this run's tasks, such as 0"),
        ([*verdicts(1, 1), {"task_id": "0", "score": False}], ":451: a second verdict on task 0"),
        ([{"task_id": "x", "score": True}], ":1: task x is none of this run's 450"),
        ([{"task_id": "0", "score": 0.5}], ":1: has no task_id with a score that is true or false"),
        ([{"task_id": "0"}], ":1: has no task_id with a score"),
    ],
)
def test_a_file_that_is_not_about_this_run_is_refused(folder, rows, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace(".", r"\.")):
        import_returned(folder, returned(folder, rows))
    assert set(folder.read_scores()["data_agent"]) == {"answered"}


def test_a_run_that_answered_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="has answered no questions"):
        import_returned(RunFolder(tmp_path), tmp_path / "any")


def test_a_file_that_is_not_there_is_refused(folder):
    with pytest.raises(UserError, match="cannot be read"):
        import_returned(folder, folder.path / "nowhere.jsonl")
