import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from ftx.statistics import bootstrap, wilson
from ftx.tasks.classification_scores import score_classification

LABELS = ("net", "data", "os", "text")


def expected_by_sklearn(gold, predicted, labels):
    """sklearn knows no invalid answer: a name outside ``labels`` stands for it."""
    answers = ["<none>" if answer is None else answer for answer in predicted]
    f1 = metrics.f1_score(gold, answers, labels=labels, average=None, zero_division=0)
    counts = metrics.confusion_matrix(gold, answers, labels=[*labels, "<none>"])[:-1]
    return metrics.accuracy_score(gold, answers), f1, counts


def assert_equals_sklearn(gold, predicted, labels):
    scores = score_classification(gold, predicted, labels)
    accuracy, f1, counts = expected_by_sklearn(gold, predicted, list(labels))
    assert scores.accuracy == pytest.approx(accuracy)
    assert list(scores.f1.values()) == pytest.approx(f1.tolist())
    assert scores.macro_f1 == pytest.approx(f1.mean())
    assert [list(row) for row in scores.confusion] == counts.tolist()
    assert scores.invalid == predicted.count(None)
    return scores


@given(
    st.lists(st.tuples(st.sampled_from(LABELS), st.none() | st.sampled_from(LABELS)), min_size=1, max_size=60),
    st.permutations(LABELS),
)
def test_scores_equal_sklearns(pairs, labels):
    assert_equals_sklearn([gold for gold, _ in pairs], [answer for _, answer in pairs], labels)


def test_an_invalid_answer_is_a_wrong_one():
    scores = assert_equals_sklearn(["net", "net", "os", "os"], ["net", None, "os", "net"], ("net", "os"))
    assert scores.accuracy == 0.5
    assert scores.confusion == ((1, 0, 1), (1, 1, 0))
    assert scores.columns == ("net", "os", "invalid")


def test_an_absent_label_counts_as_zero_only_where_it_is_listed():
    gold, predicted = ["net", "os"], ["net", "os"]
    assert score_classification(gold, predicted, ("net", "os")).macro_f1 == 1
    scores = assert_equals_sklearn(gold, predicted, ("net", "os", "text"))
    assert scores.macro_f1 == pytest.approx(2 / 3)
    assert scores.f1["text"] == 0


def test_as_scores_has_the_contracts_form():
    gold, predicted = ["net", "os"] * 50, ["net", "net", "net", None] * 25
    found = score_classification(gold, predicted, ("net", "os")).as_scores()
    assert list(found) == ["accuracy", "macro_f1", "f1.net", "f1.os", "invalid_rate"]
    assert found["accuracy"] == {"value": 0.5, "n": 100, "ci95": list(wilson(50, 100))}
    assert found["invalid_rate"] == {"value": 0.25, "n": 100, "ci95": list(wilson(25, 100))}
    assert json.loads(json.dumps(found)) == found


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_f1_intervals_hold_the_value_and_narrow_with_more_items(seed):
    chance = random.Random(seed)

    def interval(n, metric):
        gold = [chance.choice(LABELS) for _ in range(n)]
        predicted = [label if chance.random() < 0.7 else chance.choice([*LABELS, None]) for label in gold]
        score = score_classification(gold, predicted, LABELS).as_scores()[metric]
        low, high = score["ci95"]
        assert low <= score["value"] <= high
        return high - low

    for metric in ("macro_f1", "f1.net"):
        assert interval(2000, metric) < interval(100, metric)


def test_the_bootstrap_of_the_macro_mean_equals_one_through_sklearn():
    chance = random.Random(5)
    gold = sorted(chance.choice(LABELS) for _ in range(60))
    predicted = [label if chance.random() < 0.6 else chance.choice(LABELS) for label in gold]
    # The scores keep counts, not items: they draw from the items in the order of the confusion matrix.
    pairs = np.array(sorted(zip(gold, predicted, strict=True), key=lambda pair: [LABELS.index(name) for name in pair]))

    def macro_f1(items):
        truth, answers = pairs[items].T
        return metrics.f1_score(truth, answers, labels=LABELS, average="macro", zero_division=0)

    scores = score_classification(gold, predicted, LABELS).as_scores()
    assert scores["macro_f1"]["ci95"] == pytest.approx(bootstrap(macro_f1, 60))


@pytest.mark.parametrize(
    ("gold", "predicted", "labels", "message"),
    [
        ([], [], LABELS, "at least one"),
        (["net"], ["net", "os"], LABELS, "got 1 and 2"),
        (["shell"], ["net"], LABELS, "not among the labels: shell"),
        (["net"], ["shell"], LABELS, "not among the labels: shell"),
        (["net"], ["net"], ("net", "net"), "labels repeat"),
    ],
)
def test_items_that_make_no_sense_are_refused(gold, predicted, labels, message):
    with pytest.raises(ValueError, match=message):
        score_classification(gold, predicted, labels)
