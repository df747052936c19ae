"""A search as a sweep: its report and figures, and what there is left to do when it is repeated or made longer."""

import csv
import json

import pytest
from matplotlib import image

from ftx.config.search import Interval, draw
from ftx.run_folder import RunFolder
from ftx.sweep_arms import Arm
from ftx.sweep_figure import draw_metric, scattered_keys

RATE, WARMUP = Interval("schedule.learning_rate", 1e-4, 1e-2, is_log=True), Interval("schedule.warmup", 0.0, 0.3)
WORDS = (
    "-m",
    "schedule.learning_rate=tag(log,interval(1e-4,1e-2))",
    "schedule.warmup=interval(0,0.3)",
    "schedule.epochs=1",
    "schedule.eval_every=never",
    "schedule.save_every=never",
    "evaluation.tasks=[loss]",
    "launcher.parallel=2",
)


def arms_of(place):
    """Folder by what was drawn for it, of the sweep that was made last."""
    described = max((place.runs / "sweeps").glob("*/sweep.json"), key=lambda file: file.stat().st_ctime_ns)
    runs = json.loads(described.read_text())["runs"]
    found = {tuple(map(float, run["swept"].values())): RunFolder(place.runs / run["run"]) for run in runs}
    return described.parent, found


def drawn(runs):
    return [(one[RATE.name], one[WARMUP.name]) for one in draw([RATE, WARMUP], runs, seed=0)]


def parent_of(folder):
    return folder.read_membership().mlflow_parent_id


@pytest.mark.long
def test_a_search_repeated_and_made_longer(place):
    first = place.train(*WORDS, "search.runs=2")
    assert first.code == 0, first
    sweep, arms = arms_of(place)
    assert list(arms) == drawn(2)
    scored = {values: (folder.path / "scores.json").stat().st_mtime_ns for values, folder in arms.items()}
    parents = {parent_of(folder) for folder in arms.values()}
    assert len(parents) == 1
    names = {place.mlflow().get_run(folder.read_status().mlflow_run_id).info.run_name for folder in arms.values()}
    assert names == {f"lr={rate}, warmup={warmup}" for rate, warmup in drawn(2)}

    again = place.train(*WORDS, "search.runs=2")
    assert again.code == 0, again
    assert again.out.count("finished already") == 2
    assert arms_of(place)[0] == sweep

    longer = place.train(*WORDS, "search.runs=3")
    assert longer.code == 0, longer
    assert longer.out.count("finished already") == 2
    sweep, arms = arms_of(place)
    assert list(arms) == drawn(3)
    assert {
        values: (folder.path / "scores.json").stat().st_mtime_ns for values, folder in arms.items() if values in scored
    } == scored
    rows = list(csv.DictReader((sweep / "report.csv").read_text().splitlines()))
    assert [(float(row[RATE.name]), float(row[WARMUP.name])) for row in rows] == sorted(drawn(3))
    assert [float(row["loss.eval_loss"]) for row in rows] == [
        arms[values].read_scores()["loss"]["eval_loss"]["value"] for values in sorted(arms)
    ]
    assert (sweep / "figure.png").exists()


def made_up(runs, **more):
    """A search of which each arm's accuracy is its warm-up."""
    return [
        Arm(
            name=str(at),
            swept={name: str(value) for name, value in {**setting, **more}.items()},
            state="finished",
            reason="",
            scores={"task": {"accuracy": {"value": setting[WARMUP.name], "n": 100, "ci95": None}}},
            train={},
        )
        for at, setting in enumerate(draw([RATE, WARMUP], runs, seed=0))
    ]


def marks(figure):
    """Where the arms stand."""
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() == "None" and len(line.get_xdata()) == 1]
    return sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines)


def test_every_drawn_key_has_a_figure_of_its_own(tmp_path):
    """No line joins what differs in everything; the learning rate's axis is logarithmic, with readable ticks."""
    arms = made_up(8)
    assert scattered_keys(arms) == [RATE.name, WARMUP.name]
    for key, scale in ((RATE.name, "log"), (WARMUP.name, "linear")):
        figure = draw_metric(arms, "search", None, key)
        wanted = sorted((float(arm.swept[key]), 100 * float(arm.swept[WARMUP.name])) for arm in arms)
        assert marks(figure) == [pytest.approx(point) for point in wanted]
        assert figure.axes[0].get_xscale() == scale
        assert figure.axes[0].get_xlabel() == key.rsplit(".", 1)[-1]
        figure.savefig(tmp_path / "drawn.png")
        assert image.imread(tmp_path / "drawn.png").shape[0] < 1000
        ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert not any("$" in tick for tick in ticks)
    assert {"0.001", "0.01"} <= {label.get_text() for label in rate_axis(arms)}


def rate_axis(arms):
    figure = draw_metric(arms, "search", None)
    figure.canvas.draw()
    return figure.axes[0].get_xticklabels()


def test_listed_values_beside_drawn_ones_are_lines_of_their_own():
    arms = made_up(8, method="full") + made_up(8, method="lora")
    assert scattered_keys(arms) == [RATE.name, WARMUP.name]
    entries = [text.get_text() for text in draw_metric(arms, "search", None).legends[0].get_texts()]
    assert entries[:2] == ["method=full", "method=lora"]


def test_a_sweep_over_few_values_is_drawn_as_ever():
    arms = made_up(3)
    assert scattered_keys(arms) == []
    assert scattered_keys([]) == []
