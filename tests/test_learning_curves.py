"""The losses of a sweep's arms as a figure."""

import numpy as np
import pytest

from ftx.figures import save
from ftx.learning_curves import Curve, learning_curves


def rows(steps: int, start: float) -> list[dict]:
    trained = [{"step": at, "epoch": at / 10, "train_loss": start / at} for at in range(1, steps + 1)]
    return [*trained, {"step": steps, "epoch": steps / 10, "eval_loss": start / steps + 0.1}]


CURVES = [
    Curve("epochs=0", [], "epochs=0"),
    Curve("epochs=1, seed=1", rows(10, 3.0), "epochs=1"),
    Curve("epochs=1, seed=2", rows(10, 3.3), "epochs=1"),
    Curve("epochs=2, seed=1", rows(20, 3.0), "epochs=2"),
]


def test_both_losses_of_every_arm_that_trained(tmp_path):
    figure = learning_curves(CURVES, "sweep")
    training, held_out = figure.axes
    assert (training.get_ylabel(), training.get_xlabel()) == ("training loss (nats a token)", "epoch")
    assert held_out.get_ylabel() == "held-out loss (nats a token)"
    assert [list(line.get_ydata()) for line in training.lines] == [
        [row["train_loss"] for row in curve.rows if "train_loss" in row] for curve in CURVES[1:]
    ]
    assert [list(line.get_xdata()) for line in held_out.lines] == [[1.0], [1.0], [2.0]]
    png, svg = save(figure, tmp_path / "curves")
    assert png.stat().st_size > 10_000
    assert "epochs=2</text>" in svg.read_text()


def test_grey_tells_settings_apart_and_seeds_look_alike():
    training = learning_curves(CURVES, "sweep").axes[0]
    looks = [(line.get_marker(), line.get_linestyle(), line.get_color()) for line in training.lines]
    assert looks[0] == looks[1]
    assert all(one != other for one, other in zip(looks[0], looks[2], strict=True))
    legend = learning_curves(CURVES, "sweep").legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["epochs=1", "epochs=2"]


def test_a_sweep_that_only_scores_has_no_curves():
    assert learning_curves(CURVES[:1], "sweep") is None


@pytest.mark.parametrize("lost", [None, float("nan")])
def test_a_loss_that_is_not_there_is_left_out_or_a_gap(lost, tmp_path):
    broken = [*rows(3, 2.0), {"step": 4, "epoch": 0.4, "train_loss": lost}]
    figure = learning_curves([Curve("a", broken, "a")], "sweep")
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [0.1, 0.2, 0.3, *([] if lost is None else [0.4])]
    assert np.array_equal(line.get_ydata(), [2.0, 1.0, 2 / 3, *([] if lost is None else [lost])], equal_nan=True)
    assert all(file.stat().st_size for file in save(figure, tmp_path / "curves"))


def test_losses_that_fall_far_are_on_a_logarithmic_axis():
    far = [Curve("a", [{"step": at, "epoch": at, "train_loss": 9.0 / 10**at} for at in range(4)], "a")]
    assert learning_curves(far, "sweep").axes[0].get_yscale() == "log"
    assert learning_curves(CURVES, "sweep").axes[0].get_yscale() == "linear"
