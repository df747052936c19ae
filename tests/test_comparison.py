"""Two scored runs beside each other."""

import json

import pytest

from ftx.comparison import compare
from ftx.errors import UserError
from ftx.run_folder import RunFolder
from ftx.significance import mcnemar
from ftx.statistics import paired_difference_interval, wilson

# base right, tuned right: 5 both, 1 lost, 8 gained, 2 neither.
BASE = [True] * 5 + [True] * 1 + [False] * 8 + [False] * 2
TUNED = [True] * 5 + [False] * 1 + [True] * 8 + [False] * 2


def scored(folder, right, said="answer"):
    """A run with these answers."""
    (folder / "predictions").mkdir(parents=True)
    n, count = len(right), sum(right)
    records = [
        {"id": f"q{at}", "gold": "a", "predicted": "a" if one else "b", "text": f"{said} {at}", "correct": one}
        for at, one in enumerate(right)
    ]
    (folder / "predictions/task.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    scores = {
        "accuracy": {"value": count / n, "n": n, "ci95": list(wilson(count, n))},
        "macro_f1": {"value": count / n / 2, "n": n, "ci95": [0.1, 0.6]},
    }
    (folder / "scores.json").write_text(json.dumps({"task": scores}))
    return RunFolder(folder)


@pytest.fixture
def text(tmp_path):
    return compare(scored(tmp_path / "base", BASE, "base says"), scored(tmp_path / "tuned", TUNED, "tuned says"))


def test_differences_are_of_paired_items(text):
    low, high = (100 * end for end in paired_difference_interval(5, 8, 1, 2))
    (line,) = [line for line in text.splitlines() if line.startswith("| task.accuracy")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3] == f"+43.8 [{low:.1f}, {high:.1f}]"
    assert cells[4:] == [f"{mcnemar(8, 1):.3f}"] * 2 + ["McNemar's exact test"]
    (line,) = [line for line in text.splitlines() if line.startswith("| task.macro_f1")]
    assert [cell.strip() for cell in line.strip("|").split("|")][4:] == ["—", "—", "—"]


def test_flips_are_counted_and_named_each_way(text):
    assert "## task: 16 items in both" in text
    assert "wrong → right: 8: q6, q7, q8, q9, q10, q11, q12, q13" in text
    assert "right → wrong: 1: q5" in text


def test_a_few_are_shown_in_full_beside_each_other(text):
    shown = [line for line in text.splitlines() if line.startswith("### ")]
    assert shown == ["### q6", "### q7", "### q5"]
    part = text.partition("### q5")[2]
    assert part.index("base (right), read as 'a':") < part.index("    base says 5") < part.index("    tuned says 5")


def test_a_long_output_is_cut_and_says_so(tmp_path):
    text = compare(scored(tmp_path / "base", BASE), scored(tmp_path / "tuned", TUNED, "word " * 1000))
    assert "more characters)" in text


def test_items_that_only_one_has_are_said(tmp_path):
    text = compare(scored(tmp_path / "base", BASE), scored(tmp_path / "tuned", TUNED[:-2]))
    assert "2 items are in one of the two only and are left out here." in text
    assert "Fisher's exact test" in text


def test_runs_without_a_common_task_are_a_mistake(tmp_path):
    base, other = scored(tmp_path / "base", BASE), scored(tmp_path / "other", TUNED)
    (other.path / "scores.json").write_text(json.dumps({"loss": {}}))
    with pytest.raises(UserError, match="no task in common: base has scores of task and other has scores of loss"):
        compare(base, other)
