import math
from typing import Any

import numpy as np
import pytest
from matplotlib import image

from ftx.arm_figure import Point, metric_against
from ftx.figures import confusion_matrices, confusion_matrix, save

POINTS = [
    Point(0, 0.251, 0.217, 0.288, "untrained"),
    Point(1, 0.447, 0.406, 0.488, ""),
    Point(3, 0.632, 0.591, 0.671, ""),
    Point(7, 0.624, 0.583, 0.663, ""),
]


def against_epochs(points=POINTS, **words):
    choices: dict[str, Any] = {
        "x_label": "epochs",
        "y_label": "accuracy",
        "title": "Areas of the library",
        "chance": 0.25,
    }
    return metric_against(points, **choices | words)


def confusion():
    return confusion_matrix([[98, 2, 0], [40, 1060, 5]], ["net", "os"], ["net", "os", "invalid"], "After 3 epochs")


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_both_files_are_written_and_the_picture_is_of_a_sensible_size(tmp_path):
    png, svg = save(against_epochs(), tmp_path / "figure.v1.2")
    assert (png.name, svg.name) == ("figure.v1.2.png", "figure.v1.2.svg")
    height, width, _ = image.imread(png).shape
    assert 1000 <= width <= 2000
    assert 600 <= height <= 1500


def test_the_svg_has_its_words_as_text(tmp_path):
    _, svg = save(against_epochs(), tmp_path / "figure")
    words = ["epochs", "accuracy (%)", "Areas of the library", "untrained", "63.2", "base model", "best", "chance"]
    assert [word for word in words if f">{word}</text>" not in svg.read_text()] == []


@pytest.mark.parametrize("draw", [against_epochs, confusion])
def test_the_same_numbers_give_the_same_bytes(draw, tmp_path):
    first, second = (save(draw(), tmp_path / name) for name in ("first", "second"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_values_stand_in_percent_and_the_best_is_bold():
    (axes,) = against_epochs().axes
    assert texts(axes) == ["25.1", "44.7", "63.2", "62.4"]
    assert [text.get_fontweight() for text in axes.texts] == ["normal", "normal", "bold", "normal"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["untrained", "1", "3", "7"]


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    files = [save(against_epochs(points), tmp_path / "figure")[1].read_text() for points in (POINTS, POINTS[::-1])]
    assert files[0] == files[1]


def test_lower_can_be_better_and_units_other_than_percent():
    points = [Point(0, 1.9, 1.8, 2.0, ""), Point(1, 1.234, 1.2, 1.3, "")]
    figure = against_epochs(points, y_label="loss (nats)", percent=False, lower_is_better=True, chance=None)
    (axes,) = figure.axes
    assert axes.get_ylabel() == "loss (nats)"
    assert [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"] == ["1.23"]
    assert legend(figure) == ["base model", "best", "95 % interval"]


def test_the_base_may_be_the_best():
    figure = against_epochs([Point(0, 0.9, 0.8, 0.95, ""), Point(1, 0.5, 0.4, 0.6, "")])
    assert legend(figure) == ["fine-tuned", "best (base model)", "95 % interval", "chance"]


def test_zero_need_not_be_the_base():
    assert "base model" not in legend(against_epochs(base_at=None))


def test_a_wide_range_gets_a_logarithmic_axis_that_has_zero():
    points = [Point(x, 0.5, 0.4, 0.6, "") for x in (0, 100, 1000, 10_000)]
    (axes,) = against_epochs(points).axes
    assert axes.get_xscale() == "symlog"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "100", "1,000", "10,000"]


@pytest.mark.parametrize(
    "points",
    [
        [Point(1, 0.5, 0.4, 0.6, "a"), Point(1, 0.6, 0.5, 0.7, "b")],
        [Point(1, 0.5, 0.51, 0.6, "")],
        [Point(1, 0.5, math.nan, math.nan, ""), Point(2, 0.6, 0.5, 0.7, "")],
    ],
    ids=["two at one x", "interval beside its value", "no interval"],
)
def test_everything_drawn_is_inside_the_axes(points, tmp_path):
    figure = against_epochs(points, chance=None)
    save(figure, tmp_path / "figure")
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    shown = [100 * y for point in points for y in (point.value, point.low, point.high) if math.isfinite(y)]
    assert low < min(shown) <= max(shown) < high


def test_dollar_signs_are_not_formulas(tmp_path):
    _, svg = save(against_epochs(title="costs $5 or $6"), tmp_path / "figure")
    assert "costs $5 or $6" in svg.read_text()


def test_no_rows_is_a_mistake():
    with pytest.raises(ValueError, match="at least one row"):
        against_epochs([])


def test_confusion_counts_are_readable_on_their_shade():
    axes, bar = confusion().axes
    shares = np.array(axes.images[0].get_array())
    assert texts(axes) == ["98", "2", "0", "40", "1,060", "5"]
    assert [text.get_color() == "white" for text in axes.texts] == [True, False, False, False, True, False]
    assert shares.sum(axis=1) == pytest.approx([100, 100])
    assert bar.get_ylabel() == "share of the gold class (%)"


def test_a_gold_class_without_items_is_blank():
    axes = confusion_matrix([[0, 0], [1, 3]], ["a", "b"], ["a", "b"], "").axes[0]
    assert np.array(axes.images[0].get_array()).tolist() == [[0, 0], [25, 75]]


def test_counts_have_to_fit_their_labels():
    with pytest.raises(ValueError, match="1 rows and 2 columns"):
        confusion_matrix([[1, 2], [3, 4]], ["a"], ["a", "b"], "")


SEVERAL_LINES = [
    Point(x, value, value - 0.05, value + 0.05, "", line)
    for line, values in (("method=full", (0.3, 0.5, 0.7)), ("method=lora", (0.3, 0.45, 0.6)))
    for x, value in enumerate(values)
]


def test_several_lines_are_told_apart_without_colour():
    figure = against_epochs(SEVERAL_LINES, chance=None)
    assert legend(figure) == ["method=full", "method=lora", "base model", "best", "95 % interval"]
    marks = {line.get_label(): line.get_marker() for line in figure.axes[0].lines if line.get_marker() != "None"}
    assert len({marks["method=full"], marks["method=lora"], marks["best"]}) == 3


def test_published_points_have_a_mark_of_their_own_and_are_never_the_best():
    published = [Point(x, value, math.nan, math.nan, "", published=True) for x, value in ((1, 0.99), (3, 0.6))]
    figure = against_epochs([*POINTS, *published])
    assert legend(figure) == ["base model", "fine-tuned", "best", "published", "95 % interval", "chance"]
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"] == ["63.2"]
    marks = [line for line in axes.lines if line.get_label() == "published"]
    assert [(line.get_marker(), line.get_markerfacecolor()) for line in marks] == [("D", "white")] * 2
    assert axes.get_ylim()[1] > 99


def test_words_along_the_axis_are_not_joined():
    points = [Point(at, 0.5, 0.4, 0.6, word) for at, word in enumerate(("full", "lora"))]
    (axes,) = against_epochs(points, base_at=None, joined=False).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["full", "lora"]
    assert all(len(line.get_xdata()) == 1 for line in axes.lines if line.get_linestyle() == "-")


def test_confusion_matrices_share_their_shade(tmp_path):
    counts = {f"epochs={epochs}": [[epochs, 10 - epochs, 0], [2, 7, 1]] for epochs in range(5)}
    figure = confusion_matrices(counts, ["net", "os"], ["net", "os", "invalid"], "Held-out answers")
    *matrices, bar = figure.axes
    assert [axes.get_title(loc="left") for axes in matrices] == list(counts)
    assert all(axes.images[0].get_clim() == (0, 100) for axes in matrices)
    assert np.array(matrices[3].images[0].get_array()) == pytest.approx(np.array([[30, 70, 0], [20, 70, 10]]))
    assert texts(matrices[1]) == ["1", "9", "0", "2", "7", "1"]
    assert bar.get_ylabel() == "share of the gold class (%)"
    save(figure, tmp_path / "confusion")
