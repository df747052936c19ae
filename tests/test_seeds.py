"""Several seeds of a setting as one row."""

import statistics

import numpy as np
import pytest
from arms import answered

from ftx.seeds import pool_seeds
from ftx.statistics import wilson
from ftx.sweep_arms import Arm, Metric
from ftx.sweep_table import table

ACCURACY = Metric("task", "accuracy")


def draws(seed: int, share: float, n: int = 200) -> list[bool]:
    return list(np.random.default_rng(seed).random(n) < share)


def test_a_row_for_each_setting():
    arms = [
        answered(epochs, draws(seed, share), str(seed)) for epochs, share in ((1, 0.5), (2, 0.7)) for seed in (1, 2, 3)
    ]
    pooled = pool_seeds(arms)
    assert [arm.swept for arm in pooled] == [{"schedule.epochs": "1"}, {"schedule.epochs": "2"}]
    for at, arm in enumerate(pooled):
        values = [one.scores["task"]["accuracy"]["value"] for one in arms[3 * at : 3 * at + 3]]
        score = ACCURACY.score(arm)
        assert (score.value, score.spread) == pytest.approx((statistics.mean(values), statistics.stdev(values)))
        assert (score.n, arm.seeds) == (200, 3)
    found = table(pooled)
    assert found.header == ("schedule.epochs", "accuracy", "n", "seeds")
    assert " ± " in found.rows[0][1]
    assert "answers to one item are not independent" in found.sentences[-1]


def test_seeds_that_agree_give_the_interval_of_one():
    """Counted as independent the three of them would seem to be 600 items."""
    right = draws(4, 0.6)
    (pooled,) = pool_seeds([answered(1, right, seed) for seed in ("1", "2", "3")])
    low, high = ACCURACY.score(pooled).interval
    one, independent = wilson(sum(right), 200), wilson(3 * sum(right), 600)
    assert high - low == pytest.approx(one[1] - one[0], rel=0.1)
    assert high - low > 1.5 * (independent[1] - independent[0])
    assert ACCURACY.score(pooled).successes is None


def test_all_right_in_every_seed_is_not_sure_for_that():
    (pooled,) = pool_seeds([answered(1, [True] * 50, seed) for seed in ("1", "2")])
    assert ACCURACY.score(pooled).interval == pytest.approx(wilson(50, 50))


def test_without_answers_the_seeds_own_intervals_are_averaged():
    arms = [answered(1, draws(seed, 0.5), str(seed)) for seed in (1, 2)]
    bare = [Arm(arm.name, arm.swept, "finished", "", arm.scores, {}) for arm in arms]
    (pooled,) = pool_seeds(bare)
    ends = zip(*(arm.scores["task"]["accuracy"]["ci95"] for arm in arms), strict=True)
    assert ACCURACY.score(pooled).interval == pytest.approx(tuple(statistics.mean(pair) for pair in ends))


def test_a_seed_that_is_not_finished_is_told_and_left_out():
    failed = Arm("bad", {"schedule.epochs": "1", "seed": "3"}, "failed", "out of memory", {}, {})
    (pooled,) = pool_seeds([answered(1, draws(1, 0.5), "1"), answered(1, draws(2, 0.5), "2"), failed])
    assert (pooled.state, pooled.reason, pooled.seeds) == ("failed", "seed=3 out of memory", 2)


def test_held_out_items_that_differ_by_seed_are_all_counted():
    arms = [answered(1, draws(seed, 0.5), str(seed), [f"{seed}-{at}" for at in range(200)]) for seed in (1, 2)]
    (pooled,) = pool_seeds(arms)
    assert ACCURACY.score(pooled).n == 400


def test_without_a_sweep_over_seeds_nothing_is_pooled():
    arms = [answered(epochs, draws(epochs, 0.5)) for epochs in (1, 2)]
    assert pool_seeds(arms) == arms
