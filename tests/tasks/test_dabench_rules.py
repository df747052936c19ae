import math

import pytest
from real_data import real_rows

from ftx.tasks.dabench_rules import labels_equal, read_labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("@mean_fare[34.65]", {"mean_fare": "34.65"}),
        (
            "Mean @mean[1.5], rest:\n@is_normal[no]@count[ 3 ]",
            {"mean": "1.5", "is_normal": "no", "count": " 3 "},
        ),
        ("@mean[1] no, @mean[2]", {"mean": "2"}),
        ("@values[[1, 2]]", {"values": "[1, 2"}),
        ("@open[1\n] and @two words[2] and mean[3]", {}),
        ("", {}),
    ],
)
def test_labels_are_read_out_of_a_text(text, labels):
    assert read_labels(text) == labels


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [
        ("34.65", "34.65", True),
        ("34.650", "34.65", True),
        ("34.654", "34.65", False),
        ("-34.65", "34.65", False),
        ("3e1", "30", True),
        ("1.0000009", "1", True),
        ("1.0000011", "1", False),
        ("34.65 dollars", "34.65", False),
        ("Not Normal", "not normal", False),
        ("1, 2", "1,2", False),
        ("nan", "nan", True),
        ("NaN", "nan", False),
        ("", "", True),
    ],
)
def test_numbers_are_equal_by_value_and_texts_exactly(given, gold, right):
    assert labels_equal({"x": given}, {"x": gold}) is right


def test_every_label_has_to_be_given_and_others_do_not_count():
    gold = {"mean": "1.5", "is_normal": "no"}
    assert labels_equal({"is_normal": "no", "mean": "1.50", "n": "9"}, gold)
    assert not labels_equal({"mean": "1.5"}, gold)
    assert not labels_equal({"mean": "1.5", "is_normal": "yes"}, gold)


def test_published_labels_are_right_and_other_ones_are_not():
    questions = real_rows("dabench/questions.jsonl")
    assert len(questions) == 257
    for question in questions:
        gold = dict(question["answers"])
        given = read_labels(" ".join(f"@{name}[{value}]" for name, value in gold.items()))
        assert labels_equal(given, gold)
        for name, value in gold.items():
            assert not labels_equal({**given, name: changed(value)}, gold)


def changed(value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return f"{value}."
    return f"{value}." if math.isnan(number) else str(number + 0.01)
