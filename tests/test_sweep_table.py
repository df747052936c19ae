import csv
import io
import math
from dataclasses import replace

import pytest

from ftx.errors import UserError
from ftx.sweep_arms import Arm, in_order, metrics_of
from ftx.sweep_table import table, to_csv, to_markdown


def arm(value, scores=None, *, key="schedule.epochs", state="finished", reason="", train=None):
    return Arm(f"areas-{value}", {key: value}, state, reason, scores or {}, train or {})


def classified(accuracy, low, high, n=560, **more):
    entries = {"accuracy": (accuracy, low, high), **more}
    return {"classification": {name: {"value": v, "n": n, "ci95": [lo, hi]} for name, (v, lo, hi) in entries.items()}}


def lost(value, low=None, high=None, metric="eval_loss"):
    return {"loss": {metric: {"value": value, "n": 40, "ci95": None if low is None else [low, high]}}}


SWEEP = [
    arm("10", classified(0.632, 0.5911, 0.671, invalid_rate=(0.0, 0.0, 0.0068))),
    arm("3", classified(0.6, 0.5589, 0.6397, invalid_rate=(0.0121, 0.0061, 0.0256))),
    arm("0", classified(0.25, 0.216, 0.2876, invalid_rate=(0.5, 0.4587, 0.5413))),
]


def test_markdown():
    assert to_markdown(table(SWEEP)) == (
        "| schedule.epochs |                accuracy |        invalid_rate |   n |\n"
        "| --------------: | ----------------------: | ------------------: | --: |\n"
        "|               0 |     25.0 % [21.6, 28.8] | 50.0 % [45.9, 54.1] | 560 |\n"
        "|               3 |     60.0 % [55.9, 64.0] |    1.2 % [0.6, 2.6] | 560 |\n"
        "|              10 | **63.2 % [59.1, 67.1]** |    0.0 % [0.0, 0.7] | 560 |\n"
        "\n"
        "Best accuracy: schedule.epochs=10 with 63.2 % [59.1, 67.1]. No test says whether another arm differs: "
        "there are neither counts that accuracy is a share of nor answers to the same items that it is the mean of.\n"
    )


def test_speed_is_not_in_the_table_unless_it_is_asked_for():
    timed = [arm("1", classified(0.6, 0.5, 0.7, seconds_per_item=(0.25, 0.2, 0.3)))]
    assert table(timed).header == ("schedule.epochs", "accuracy", "n")
    asked = table(timed, ["seconds_per_item"])
    assert (asked.header[1], asked.rows[0][1]) == ("seconds_per_item", "0.250 [0.200, 0.300]")


def test_published_numbers_stand_beside_ours():
    published = {"classification": {"accuracy": {"value": 0.3867, "n": None, "ci95": None, "decimals": 2}}}
    arms = [replace(arm("0", classified(0.25, 0.2, 0.3)), published=published), arm("1", classified(0.5, 0.4, 0.6))]
    found = table(arms)
    assert found.header == ("schedule.epochs", "accuracy", "accuracy (published)", "n")
    assert [row[2] for row in found.rows] == ["38.67 %", "—"]
    rows = list(csv.DictReader(io.StringIO(to_csv(arms))))
    assert [row["classification.accuracy.published"] for row in rows] == ["0.3867", ""]


def test_states_show_only_where_something_is_not_finished():
    arms = [
        *SWEEP,
        arm("20", state="failed", reason="CUDA out of memory\nin step 3 | rank 0"),
        arm("30", state="running"),
    ]
    text = to_markdown(table(arms))
    assert r"|   — | failed: CUDA out of memory in step 3 \| rank 0 |" in text
    assert "running" in text
    assert table(arms).header[-1] == "state"
    assert "state" not in table(SWEEP).header


def test_lower_is_better_for_a_loss_and_it_is_no_percentage():
    found = table([arm("1", lost(0.91234, 0.9, 0.95)), arm("2", lost(0.8, 0.78, 0.85)), arm("0", lost(1.5))])
    assert [row[1] for row in found.rows] == ["1.500", "0.912 [0.900, 0.950]", "0.800 [0.780, 0.850]"]
    assert found.best == (2, 1)
    assert found.sentences[0].startswith("Best eval_loss: schedule.epochs=2 with 0.800 [0.780, 0.850]. No test")


def test_a_metric_above_one_anywhere_is_no_percentage():
    found = table([arm(str(i), lost(value, metric="bleu")) for i, value in enumerate([0.5, 31.25, 12345.678])])
    assert [row[1] for row in found.rows] == ["0.500", "31.250", "1.235e+04"]


def test_a_tie_is_told_and_the_first_marked():
    found = table([arm("2", lost(0.8)), arm("1", lost(0.8)), arm("0", lost(1.5))])
    assert found.best == (1, 1)
    tie = "Tied for the best eval_loss: schedule.epochs=1; schedule.epochs=2. The first is marked."
    assert found.sentences[-1] == tie
    assert to_markdown(found).endswith(f"\n\n{tie}\n")


@pytest.mark.parametrize("diverged", [math.nan, math.inf, None])
def test_an_arm_that_diverged_is_never_best(diverged):
    found = table([arm("1", lost(diverged)), arm("2", lost(3.0))])
    assert found.best == (1, 1)
    assert found.sentences == ("Best eval_loss: schedule.epochs=2 with 3.000; no other arm has a score.",)


def test_a_sweep_without_scores_yet():
    found = table([arm("1", state="pending"), arm("0", state="running")])
    assert found.rows == (("0", "running"), ("1", "pending"))
    assert (found.best, found.sentences) == (None, ("No arm has a score yet.",))


def test_a_sweep_without_arms():
    assert "No arm has a score yet." in to_markdown(table([]))


def test_numbers_are_sorted_as_numbers_and_words_kept_in_order():
    rates = [arm(value, key="schedule.learning_rate") for value in ("1e-3", "3e-5", "0.0001")]
    assert [one.swept["schedule.learning_rate"] for one in in_order(rates)] == ["3e-5", "0.0001", "1e-3"]
    limits = [arm(value, key="data.limit") for value in ("1000", "100", "null")]
    assert [one.swept["data.limit"] for one in in_order(limits)] == ["1000", "100", "null"]


def test_the_base_comes_before_the_arms_of_a_second_swept_key():
    swept = [("full", "2"), ("full", "0"), ("lora", "2"), ("lora", "0")]
    arms = [Arm("x", {"method": method, "schedule.epochs": epochs}, "finished", "", {}, {}) for method, epochs in swept]
    assert [tuple(one.swept.values()) for one in in_order(arms)] == [
        ("full", "0"),
        ("lora", "0"),
        ("full", "2"),
        ("lora", "2"),
    ]


def test_zero_of_another_key_is_no_base():
    assert not arm("0", key="method.lora.dropout").is_base
    assert arm("0.0").is_base


def test_runs_that_differ_in_no_key_are_called_by_their_name():
    found = table([Arm("one", {}, "finished", "", lost(1.0), {})])
    assert (found.header, found.rows) == (("run", "eval_loss", "n"), (("one", "1.000", "40"),))


def test_of_several_tasks_the_first_is_the_primary_one():
    both = classified(0.6, 0.5, 0.7) | lost(1.25)
    found = table([arm("1", both), arm("2", classified(0.5, 0.4, 0.6))])
    assert found.header == (
        "schedule.epochs",
        "classification.accuracy",
        "loss.eval_loss",
        "classification.n",
        "loss.n",
    )
    assert found.rows[1] == ("2", "50.0 % [40.0, 60.0]", "—", "560", "—")
    assert found.best == (0, 1)


def test_a_metric_that_only_a_later_arm_has_stays_with_its_task():
    arms = [
        arm("1", classified(0.6, 0.5, 0.7) | lost(1.25)),
        arm("2", classified(0.5, 0.4, 0.6, macro_f1=(0.4, 0.3, 0.5))),
    ]
    assert [metric.full_name for metric in metrics_of(arms)] == [
        "classification.accuracy",
        "classification.macro_f1",
        "loss.eval_loss",
    ]


@pytest.mark.parametrize("name", ["invalid_rate", "classification.invalid_rate"])
def test_metrics_can_be_chosen_and_the_first_decides(name):
    found = table(SWEEP, [name, "accuracy"])
    assert found.header == ("schedule.epochs", "invalid_rate", "accuracy", "n")
    assert found.best == (2, 1)


def test_a_metric_that_no_arm_has_is_the_users_mistake():
    with pytest.raises(UserError, match=r"'accurcy'; there are classification\.accuracy, classification\.invalid_rate"):
        table(SWEEP, ["accurcy"])


def test_csv_has_every_number_in_full():
    accuracy = 0.1 + 0.2
    arms = [
        arm("1", classified(accuracy, 1 / 3, 2 / 3), train={"step": 40, "train_loss": 1.2345678901234567, "mfu": None}),
        arm("0", state="failed", reason='he said "no", twice'),
    ]
    base, trained = csv.DictReader(io.StringIO(to_csv(arms)))
    assert (base["run"], base["reason"], base["classification.accuracy"]) == ("areas-0", 'he said "no", twice', "")
    assert [float(trained[f"classification.accuracy{end}"]) for end in ("", ".low", ".high")] == [
        accuracy,
        1 / 3,
        2 / 3,
    ]
    assert (trained["classification.accuracy.n"], trained["schedule.epochs"]) == ("560", "1")
    assert (float(trained["train.train_loss"]), trained["train.mfu"]) == (1.2345678901234567, "")


def test_csv_and_table_have_the_same_order():
    rows = list(csv.DictReader(io.StringIO(to_csv(SWEEP))))
    assert [row["schedule.epochs"] for row in rows] == [row[0] for row in table(SWEEP).rows]
