"""The numbers that an experiment states others have published: beside ours, tested against ours, and on their own."""

import pytest
from arms import counted

from ftx.against_published import against_published
from ftx.config.compose import compose
from ftx.config.expected_checks import check_expected
from ftx.config.schema import ExpectedConfig, PublishedResult, RunConfig
from ftx.errors import UserError
from ftx.published import published_arms, published_of
from ftx.significance import fisher
from ftx.statistics import wilson
from ftx.sweep_arms import Metric, in_order
from ftx.sweep_report import Recorded, Wanted, write_files
from ftx.sweep_table import table


def stated(metric="task.accuracy", value=0.75, n=72, **arm):
    return PublishedResult(metric, value, n, {key.replace("__", "."): found for key, found in arm.items()})


ABLATION = [
    stated(value=0.3867, n=None, schedule__epochs=0, model__template="plain"),
    *(
        stated(value=value, schedule__epochs=epochs, model__template="chatml")
        for epochs, value in ((0, 0.5278), (2, 0.6389), (3, 0.7361), (5, 0.75), (7, 0.7083))
    ),
]


def test_a_share_of_items_is_that_of_its_counts():
    (arm,) = published_arms(ExpectedConfig(results=[stated(value=0.5278, schedule__epochs=0)]))
    entry = arm.scores["task"]["accuracy"]
    assert (entry["value"], entry["n"]) == (38 / 72, 72)
    assert tuple(entry["ci95"]) == wilson(38, 72)


def test_the_published_ablation_as_a_table():
    found = table(published_arms(ExpectedConfig(results=ABLATION)))
    assert found.header == ("schedule.epochs", "model.template", "accuracy", "n")
    assert found.rows == (
        ("0", "plain", "38.67 %", "—"),
        ("0", "chatml", "52.78 % [41.4, 63.9]", "72"),
        ("2", "chatml", "63.89 % [52.4, 74.0]", "72"),
        ("3", "chatml", "73.61 % [62.4, 82.4]", "72"),
        ("5", "chatml", "75.00 % [63.9, 83.6]", "72"),
        ("7", "chatml", "70.83 % [59.5, 80.1]", "72"),
    )
    assert "(p = 0.21)" in found.sentences[0]
    assert found.sentences[1].startswith(
        "Not tested, for lack of counts or of the same items: schedule.epochs=0, model.t"
    )


def test_a_report_from_recorded_counts_alone(tmp_path):
    arms = published_arms(ExpectedConfig(results=ABLATION))
    report = write_files(tmp_path, Recorded("ablation", "ablation", arms, {}), Wanted())
    assert {file.name for file in report.files} == {"report.md", "report.csv", "figure.png", "figure.svg"}
    assert all(file.stat().st_size for file in report.files)
    text = (tmp_path / "report.md").read_text()
    assert "## The best beside the others" in text
    assert "## Cost" not in text
    assert "![figure](figure.png)" in text
    svg = (tmp_path / "figure.svg").read_text()
    assert [
        word for word in ("38.7", "75.0", "template=plain", "template=chatml", "best") if f">{word}<" not in svg
    ] == []


def test_a_run_knows_what_is_published_of_its_setting():
    words = [
        "expected.results=["
        "{metric: task.accuracy, value: 0.5, n: 10, arm: {schedule.epochs: 2}},"
        "{metric: task.accuracy, value: 0.7, n: 10, arm: {schedule.epochs: 3}}]"
    ]
    assert published_of(compose("schedule.epochs=3", *words))["task"]["accuracy"]["value"] == 0.7
    assert published_of(compose("schedule.epochs=1", *words)) == {}


def test_ours_against_theirs():
    arms = []
    for epochs, ours, theirs in ((0, 20, 38), (5, 52, 54)):
        (published,) = published_arms(ExpectedConfig(results=[stated(value=theirs / 72)]))
        arms.append(counted(epochs, ours, 72, published=published.scores))
    text = against_published(in_order(arms), [Metric("task", "accuracy")])
    p = [fisher((ours, 72), (theirs, 72)) for ours, theirs in ((20, 38), (52, 54))]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:4]]
    assert [row[:2] for row in cells] == [
        ["schedule.epochs=0", "task.accuracy"],
        ["schedule.epochs=5", "task.accuracy"],
    ]
    assert [row[5:] for row in cells] == [[f"{p[0]:.3f}", f"{2 * p[0]:.3f}"], [f"{p[1]:.2f}"] * 2]
    assert "Of the 2 that come with counts, 1 differs from what is published" in text


def test_without_published_numbers_it_says_so():
    assert "states no published number" in against_published([counted(1, 2, 4)], [Metric("task", "accuracy")])


@pytest.mark.parametrize(
    ("results", "said"),
    [
        # The row without a scaffold was scored on another set: no number of 72 tasks gives 38.67 %.
        ([stated(value=0.3867)], "no share of n=72 items (the nearest is 28/72 = 0.3889)"),
        ([stated(value=1.4)], "no share of n=72"),
        ([stated(metric="accuracy")], "must be TASK.METRIC"),
        ([stated(value=float("nan"), n=None)], "must be a finite number"),
        ([stated(schedule__epoch=3)], "no such key (did you mean schedule.epochs?)"),
        ([stated(seed=1), stated(schedule__epochs=1)], "name the same in each"),
        ([stated(seed=1), stated(seed=1)], "is there twice for seed=1"),
    ],
)
def test_numbers_that_cannot_be(results, said):
    with pytest.raises(UserError) as mistake:
        check_expected(RunConfig(expected=ExpectedConfig(results=results)))
    assert said in str(mistake.value)
    assert "\n" not in str(mistake.value)
