"""Which arms are told apart, and in which words: the published epoch ablation, paired answers, losses."""

import json

import numpy as np
import pytest
from arms import answered, counted, measured
from scipy.stats import ttest_rel

from ftx.contrast import FISHER, MCNEMAR, PAIRED_T, SIGN_FLIP, contrast
from ftx.outcomes import Outcome, read_outcomes
from ftx.significance import fisher, mcnemar
from ftx.statistics import wilson
from ftx.sweep_arms import Arm, Metric, in_order
from ftx.verdict import describe, format_p, judge, to_markdown

ACCURACY, LOSS = Metric("task", "accuracy"), Metric("loss", "eval_loss")
# DABStep's 72 easy tasks after so many epochs, as the Jupyter Agent project reports them.
ABLATION = [counted(epochs, right, 72) for epochs, right in ((0, 38), (2, 46), (3, 53), (5, 54), (7, 51))]


def judged(arms, metric=ACCURACY):
    found = judge(in_order(arms), metric)
    assert found is not None
    return found


def test_the_published_ablation():
    found = judged(ABLATION)
    assert found.best.swept == {"schedule.epochs": "5"}
    p = {one.arm.swept["schedule.epochs"]: one.contrast.p for one in found.others}
    assert p == pytest.approx({"0": 0.009, "2": 0.21, "3": 1.0, "7": 0.71}, abs=0.005)
    corrected = {one.arm.swept["schedule.epochs"]: one.holm for one in found.others}
    assert corrected == pytest.approx({"0": 4 * p["0"], "2": 3 * p["2"], "3": 1.0, "7": 1.0})


def test_the_published_ablation_in_words():
    assert describe(judged(ABLATION)) == [
        "Best accuracy: schedule.epochs=5 with 75.0 % [63.9, 83.6]. It is not distinguishable from schedule.epochs=3 "
        "(p = 1.0), 7 (p = 0.71) and 2 (p = 0.21), but distinguishable from schedule.epochs=0 (p = 0.009) by Fisher's "
        "exact test before correction. After Holm's correction for the 4 comparisons it is distinguishable from "
        "schedule.epochs=0 (p = 0.036).",
        "These same scores made it the best, which favours it in every comparison; corrected for all 10 pairs of arms, "
        "which allows for that, it is distinguishable from none.",
    ]


def test_the_published_ablation_as_a_table():
    assert to_markdown(judged(ABLATION)) == (
        "| 5 minus |  accuracy (points) |     p | p (Holm) |\n"
        "| ------- | -----------------: | ----: | -------: |\n"
        "| 3       | +1.4 [-12.8, 15.5] |   1.0 |      1.0 |\n"
        "| 7       | +4.2 [-10.3, 18.4] |  0.71 |      1.0 |\n"
        "| 2       | +11.1 [-3.9, 25.5] |  0.21 |     0.62 |\n"
        "| 0       |  +22.2 [6.5, 36.5] | 0.009 |    0.036 |\n"
        "\n"
        "Two-sided p by Fisher's exact test."
    )


def test_a_row_without_counts_is_shown_and_not_tested():
    score = {"value": 0.3867, "n": None, "ci95": None}
    bare = Arm("bare", {"schedule.epochs": "none"}, "finished", "", {"task": {"accuracy": score}}, {})
    found = judged([*ABLATION, bare])
    assert [one.contrast.p is None for one in found.others] == [False, False, False, False, True]
    sentences = describe(found)
    assert "for the 4 comparisons" in sentences[0]
    assert sentences[1] == "Not tested, for lack of counts or of the same items: schedule.epochs=none."


def test_the_same_items_are_compared_one_by_one():
    """Of 100 items one arm gets 12 right that the other does not, and loses 2: the counts alone would not tell."""
    first = [True] * 60 + [True] * 12 + [False] * 2 + [False] * 26
    second = [True] * 60 + [False] * 12 + [True] * 2 + [False] * 26
    found = contrast(ACCURACY, answered(2, first), answered(1, second))
    assert (found.test, found.p) == (MCNEMAR, pytest.approx(mcnemar(12, 2)))
    assert found.p < 0.05 < fisher((72, 100), (62, 100))
    assert found.difference == pytest.approx(0.1)
    assert found.interval[0] > 0


def test_other_items_are_no_pairs():
    right = [True] * 30 + [False] * 10
    found = contrast(ACCURACY, answered(2, right), answered(1, right, ids=[f"other-{at}" for at in range(40)]))
    assert (found.test, found.p) == (FISHER, 1.0)


def test_predictions_of_another_metric_are_not_its_pairs():
    """A task's answers count for its first metric; a score that is not their mean is of something else."""
    arm, other = answered(2, [True] * 30 + [False] * 10), answered(1, [True] * 20 + [False] * 20)
    arm.scores["task"]["macro_f1"] = other.scores["task"]["macro_f1"] = {"value": 0.7, "n": 40, "ci95": [0.6, 0.8]}
    found = contrast(Metric("task", "macro_f1"), arm, other)
    assert (found.p, found.test) == (None, "")
    assert found.interval == pytest.approx((-(0.02**0.5), 0.02**0.5))
    arm.scores["task"]["accuracy"]["value"] = 0.7
    assert contrast(ACCURACY, arm, other).test != MCNEMAR


def test_shares_of_the_same_items_are_not_tested_as_if_of_others():
    """How many answers had no form is known of both arms, but not of which items."""
    arms = [answered(epochs, [True] * 20 + [False] * 20) for epochs in (2, 1)]
    for arm, count in zip(arms, (2, 12), strict=True):
        arm.scores["task"]["invalid_rate"] = {"value": count / 40, "n": 40, "ci95": list(wilson(count, 40))}
    found = contrast(Metric("task", "invalid_rate"), *arms)
    assert (found.p, found.test) == (None, "")
    assert found.interval is not None


def test_several_seeds_of_an_item_are_one_item():
    draw = np.random.default_rng(0)
    first, second = draw.random(50) < 0.8, draw.random(50) < 0.6
    arms = []
    for epochs, right in ((2, first), (1, second)):
        one = answered(epochs, list(right), seed="1")
        two = answered(epochs, list(right), seed="2")
        both = {"task": {**one.outcomes["task"], **two.outcomes["task"]}}
        arms.append(Arm(one.name, {"schedule.epochs": str(epochs)}, "finished", "", one.scores, {}, outcomes=both))
    found = contrast(ACCURACY, *arms)
    alone = contrast(ACCURACY, answered(2, list(first)), answered(1, list(second)))
    assert (found.test, alone.test) == (SIGN_FLIP, MCNEMAR)
    assert found.p == pytest.approx(alone.p)
    assert found.interval == pytest.approx(alone.interval, abs=0.03)


def test_losses_are_compared_item_by_item():
    draw = np.random.default_rng(1)
    tokens = draw.integers(5, 60, size=40)
    losses = draw.gamma(2.0, size=40)
    worse = losses + draw.normal(0.05, 0.1, size=40)
    found = contrast(LOSS, measured(1, worse, tokens), measured(2, losses, tokens))
    assert found.test == PAIRED_T
    assert found.p == pytest.approx(ttest_rel(worse * tokens, losses * tokens).pvalue)
    assert found.difference == pytest.approx(((worse - losses) * tokens).sum() / tokens.sum())
    assert found.interval[0] < found.difference < found.interval[1]
    assert judged([measured(1, worse, tokens), measured(2, losses, tokens)], LOSS).best.swept["schedule.epochs"] == "2"


def test_one_comparison_needs_no_correction():
    (sentence,) = describe(judged(ABLATION[:2]))
    assert sentence.endswith(
        "by Fisher's exact test before correction. With a single comparison there is nothing to correct for."
    )


def test_nothing_survives_where_all_is_chance():
    sentences = describe(judged([counted(epochs, right, 40) for epochs, right in enumerate((20, 21, 19, 22))]))
    assert "distinguishable from none of them." in sentences[0]
    assert "but distinguishable" not in sentences[0]


def test_a_clear_winner_is_said_to_be_one():
    sentences = describe(judged([counted(epochs, right, 400) for epochs, right in enumerate((100, 180, 300))]))
    assert "It is distinguishable from schedule.epochs=1 (p < 0.001) and 0 (p < 0.001) by" in sentences[0]
    assert sentences[1].endswith("it is distinguishable from schedule.epochs=1 and 0.")


@pytest.mark.parametrize(
    ("p", "shown"),
    [
        (None, "—"),
        (1.0, "1.0"),
        (0.996, "1.0"),
        (0.706, "0.71"),
        (0.0997, "0.10"),
        (0.0497, "0.0497"),
        (0.036, "0.036"),
        (0.0004, "< 0.001"),
    ],
)
def test_p_values_are_short_and_never_zero(p, shown):
    assert format_p(p) == shown


def test_a_level_of_the_items_is_compared_by_its_own_answers():
    """Of ``official.easy`` the answers to easy items say all, of ``strict`` they say nothing."""
    arms = []
    for epochs, right in ((2, [True] * 12 + [False] * 8), (1, [True] * 4 + [False] * 16)):
        outcomes = {
            ("", f"{at}"): Outcome(float(one), 1.0, "easy" if at < 12 else "hard") for at, one in enumerate(right)
        }
        counts = {"official": sum(right), "official.easy": sum(right[:12]), "strict": sum(right)}
        sizes = {"official": 20, "official.easy": 12, "strict": 20}
        scores = {
            name: {"value": count / sizes[name], "n": sizes[name], "ci95": None} for name, count in counts.items()
        }
        swept = {"schedule.epochs": str(epochs)}
        arms.append(Arm("", swept, "finished", "", {"agent": scores}, {}, outcomes={"agent": outcomes}))
    easy = contrast(Metric("agent", "official.easy"), *arms)
    assert (easy.test, easy.p) == (MCNEMAR, pytest.approx(mcnemar(8, 0)))
    assert contrast(Metric("agent", "strict"), *arms).test == ""


def test_several_samples_of_a_task_are_one_task(tmp_path):
    """Records that name their task are draws of it."""
    records = [{"id": f"{task}#{sample}", "task": task, "correct": True} for task in "ab" for sample in range(3)]
    file = tmp_path / "agent.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    outcomes = read_outcomes(file, "7")
    assert len(outcomes) == 6
    assert {item for _, item in outcomes} == {"a", "b"}
    assert {draw for draw, _ in outcomes} == {f"7/{record['id']}" for record in records}


def test_predictions_that_say_nothing_of_right_or_wrong_are_no_outcomes(tmp_path):
    file = tmp_path / "task.jsonl"
    file.write_text('{"id": "1", "correct": true}\n{"id": "2"}\n')
    assert read_outcomes(file) == {}
    assert read_outcomes(tmp_path / "none.jsonl") == {}
