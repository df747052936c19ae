"""python -m ftx.diff: what two runs differ in, and nothing else."""

import json
from dataclasses import replace

import pytest
from run_records import write_run

from ftx.config.compose import compose
from ftx.diff import describe, main
from ftx.run_differences import code_differences, config_differences, data_differences, metric_differences
from ftx.run_folder import RunFolder

DIFF = "diff --git a/ftx/loss.py b/ftx/loss.py\n--- a/ftx/loss.py\n+++ b/ftx/loss.py\n@@ -1 +1 @@\n-old\n+{}\n"


@pytest.fixture
def runs(tmp_path):
    """Two runs of one command, one in another place; the tests make them differ."""
    made = []
    for name in ("first", "second"):
        run = compose("data=jsonl", f"data.path={tmp_path}/gone.jsonl", f"run_root={tmp_path}", "name=run")
        made.append(write_run(RunFolder(tmp_path / name), replace(run, run_root=f"{tmp_path}/{name}"), []))
    return made


def provenance(folder, **values):
    (folder.path / "provenance.json").write_text(json.dumps(values))


def test_the_same_run_twice(runs):
    assert describe(*runs).endswith("no difference in config, data, code, metrics")


def test_keys_with_other_values(runs, tmp_path):
    run = runs[1].read_run()
    changed = replace(run, seed=7, schedule=replace(run.schedule, learning_rate=3e-4))
    write_run(runs[1], changed, [])
    found = {one.name: (one.first, one.second) for one in config_differences(*runs)}
    assert found == {"seed": ("42", "7"), "schedule.learning_rate": ("0.001", "0.0003  (-0.0007)")}


def test_data_by_its_fingerprint(runs):
    for folder, fingerprint in zip(runs, ("a" * 64, "b" * 64), strict=True):
        provenance(folder, data_fingerprint=fingerprint, model_fingerprint="")
    found = {one.name: (one.first, one.second) for one in data_differences(*runs)}
    assert found == {"data": ("a" * 16, "b" * 16)}


def test_code_packages_and_what_was_not_committed(runs):
    provenance(runs[0], commit="1111", packages={"torch": "2.11", "peft": "0.19"}, dirty_diff=DIFF.format("new"))
    provenance(runs[1], commit="2222", packages={"torch": "2.13"}, dirty_diff=DIFF.format("newer"))
    found = {one.name: one for one in code_differences(*runs)}
    assert (found["commit"].first, found["commit"].second) == ("1111", "2222")
    assert (found["package torch"].first, found["package torch"].second) == ("2.11", "2.13")
    assert found["package peft"].second == "—"
    assert found["uncommitted"].first == found["uncommitted"].second == "ftx/loss.py"
    changed = [line.strip() for line in found["uncommitted"].details if line.strip() in ("-+new", "++newer")]
    assert changed == ["-+new", "++newer"]


def test_scores_and_where_training_ended(runs):
    for folder, accuracy in zip(runs, (0.5, 0.625), strict=True):
        (folder.path / "scores.json").write_text(json.dumps({"task": {"accuracy": {"value": accuracy, "n": 8}}}))
    rows = [{"step": 5, "epoch": 1.0, "train_loss": 0.5}, {"step": 5, "epoch": 1.0, "eval_loss": 0.75}]
    runs[1].metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {one.name: (one.first, one.second) for one in metric_differences(*runs)}
    assert found["task.accuracy"] == ("0.5", "0.625  (+0.125)")
    assert found["last train_loss"] == ("—", "0.5")
    assert found["last eval_loss"] == ("—", "0.75")


def test_the_verb(runs, tmp_path, capsys):
    assert main(["first", str(runs[1].path), "--run-root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"first:  {runs[0].path}\nsecond: {runs[1].path}\n")


def test_a_run_that_is_not_there(runs, tmp_path, capsys):
    assert main(["first", "secnd", "--run-root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said == f"error: secnd: no such run (did you mean second?); {tmp_path} has first, second\n"
