"""The published epoch ablation: an experiment that is a sweep of its six rows, and a report from its counts alone."""

from dataclasses import replace

import pytest

from ftx.config.compose import compose_all
from ftx.config.identity import run_hash
from ftx.published import published_of
from ftx.report import main


@pytest.fixture(scope="module")
def runs():
    return [composed.run for composed in compose_all(["experiment=jupyter_agent_epochs"]).runs]


def test_six_runs_with_the_recipes_settings(runs):
    assert [(run.schedule.epochs, run.evaluation.scaffold) for run in runs] == [
        (0, "none"),
        *((epochs, "notebook") for epochs in (0, 2, 3, 5, 7)),
    ]
    for run in runs:
        assert run.model.name == "Qwen/Qwen3-4B-Instruct-2507"
        assert (run.schedule.learning_rate, run.schedule.name, run.schedule.min_lr_ratio) == (
            5e-6,
            "cosine_with_min_lr",
            0.1,
        )
        assert (run.schedule.warmup, run.schedule.global_batch_size, run.data.max_length) == (0.03, 8, 32768)
        assert (run.method.name, run.method.neftune_alpha, run.seed) == ("full", 7, 42)


def test_each_run_knows_its_published_number(runs):
    shares = [published_of(run)["data_agent"]["official.easy"]["value"] for run in runs]
    assert shares == pytest.approx([0.3867, 38 / 72, 46 / 72, 53 / 72, 54 / 72, 51 / 72])


def test_the_scaffold_tells_runs_apart_that_train_nothing(runs):
    """A trained model that is asked both ways is trained once."""
    assert len({run_hash(run, "data", "model") for run in runs}) == 6
    without = replace(runs[2], evaluation=replace(runs[2].evaluation, scaffold="none"))
    assert run_hash(without, "data", "model") == run_hash(runs[2], "data", "model")


def test_the_report_of_recorded_counts(tmp_path, capsys):
    assert main(["--published", "jupyter_agent_epochs", "--run-root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    source = "source: README of the Jupyter Agent project"
    for shown in ("38.67 %", "52.78 % [41.4, 63.9]", "**75.00 % [63.9, 83.6]**", source):
        assert shown in said
    assert (
        "not distinguishable from schedule.epochs=3 (p = 1.0), 7 (p = 0.71) and 2 (p = 0.21), but distinguishable from "
        "schedule.epochs=0 (p = 0.009) by Fisher's exact test before correction. After Holm's correction for the 4 "
        "comparisons it is distinguishable from schedule.epochs=0 (p = 0.036)."
    ) in said
    folder = tmp_path / "published/jupyter_agent_epochs"
    assert {file.name for file in folder.iterdir()} == {"report.md", "report.csv", "figure.png", "figure.svg"}


def test_an_experiment_without_published_numbers(tmp_path, capsys):
    assert main(["--published", "stdlib_docs_epochs", "--run-root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == "error: --published=stdlib_docs_epochs: the experiment states no published numbers under expected.results\n"
    )
