"""A search: where its settings lie, that a longer one goes on where a shorter one ended, what it is combined with."""

import hashlib
import math

import numpy as np
import pytest
from scipy import stats

from ftx.config.compose import compose_all
from ftx.config.keys import flat
from ftx.config.search import Interval, draw, points

RATE = Interval("schedule.learning_rate", 1e-5, 1e-2, is_log=True)
WARMUP = Interval("schedule.warmup", 0.0, 0.3)
WHOLE = Interval("schedule.global_batch_size", 2, 9, is_whole=True)
WHOLE_LOG = Interval("data.max_length", 128, 4096, is_log=True, is_whole=True)
RATE_WORD = "schedule.learning_rate=tag(log,interval(1e-5,1e-2))"
WARMUP_WORD = "schedule.warmup=interval(0,0.3)"


def column(intervals, name, runs, seed=0):
    return np.array([setting[name] for setting in draw(intervals, runs, seed)])


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_values_are_of_their_distribution(seed):
    """Kolmogorov's and Smirnov's test against scipy's own; even points are nearer to it than random ones would be."""
    both = [RATE, WARMUP]
    rates, warmups = (column(both, one.name, 256, seed) for one in both)
    for values, wanted in ((rates, stats.loguniform(1e-5, 1e-2)), (warmups, stats.uniform(0, 0.3))):
        found = stats.kstest(values, wanted.cdf)
        assert found.pvalue > 0.5
        assert found.statistic < 2 / 256 + 0.005  # three digits of a value are kept
    assert abs(stats.spearmanr(rates, warmups).statistic) < 0.05


def test_whole_numbers_come_equally_often():
    """Both ends included; on a logarithmic scale each doubling has its share."""
    values = column([WHOLE, WARMUP], WHOLE.name, 256)
    assert {int(value): int((values == value).sum()) for value in sorted(set(values))} == dict.fromkeys(
        range(2, 10), 32
    )
    lengths = column([WHOLE_LOG, WARMUP], WHOLE_LOG.name, 250)
    assert lengths.dtype == int and lengths.min() >= 128 and lengths.max() <= 4096
    doublings = np.bincount(np.floor(np.log2(lengths / 128)).astype(int))[:5]
    assert doublings.min() >= 45 and doublings.max() <= 55


def test_eight_runs_have_one_value_in_each_eighth_of_every_interval():
    settings = draw([RATE, WARMUP], 8, seed=3)
    logarithms = [math.log(setting[RATE.name] / 1e-5) / math.log(1e3) for setting in settings]
    shares = [setting[WARMUP.name] / 0.3 for setting in settings]
    for values in (logarithms, shares):
        assert sorted(math.floor(8 * value) for value in values) == list(range(8))
    quarters = {(math.floor(2 * one), math.floor(4 * other)) for one, other in zip(logarithms, shares, strict=True)}
    assert len(quarters) == 8


@pytest.mark.parametrize("intervals", [[RATE, WARMUP], [WHOLE], [WHOLE, Interval("seed", 1, 3, is_whole=True)]])
def test_a_longer_search_goes_on_where_a_shorter_one_ended(intervals):
    longest = draw(intervals, 8, seed=5)
    for runs in range(1, 9):
        assert draw(intervals, runs, seed=5) == longest[:runs]
    assert len({tuple(setting.items()) for setting in longest}) == 8


def test_the_seed_moves_the_points_and_the_order_of_keys_does_not():
    assert draw([RATE, WARMUP], 8, 0) == draw([WARMUP, RATE], 8, 0)
    assert not {tuple(one.items()) for one in draw([RATE, WARMUP], 64, 0)} & {
        tuple(one.items()) for one in draw([RATE, WARMUP], 64, 1)
    }


def test_the_points_are_those_of_the_sequence():
    """In its first dimension Sobol's is van der Corput's: the bits of a Gray code, reversed; here moved by the shift.

    The values name runs' folders: another version of a library must not move them.
    """
    shift = int.from_bytes(hashlib.sha256(b"4/schedule.learning_rate").digest()[:8]) >> 34
    grey = [at ^ (at >> 1) for at in range(16)]
    wanted = [int(f"{code:030b}"[::-1], 2) ^ shift for code in grey]
    found = points(["schedule.learning_rate", "schedule.warmup"], 4, seed=4)
    assert [int(first * 2**30) for first, _ in found] == wanted
    assert draw([RATE, WARMUP], 3, 0) == [
        {"schedule.learning_rate": 0.00161, "schedule.warmup": 0.0543},
        {"schedule.learning_rate": 5.08e-05, "schedule.warmup": 0.204},
        {"schedule.learning_rate": 0.000286, "schedule.warmup": 0.129},
    ]


def test_rounding_does_not_leave_the_interval():
    narrow = Interval("a", 0.12345, 0.12349)
    assert all(0.12345 <= narrow.at(share) <= 0.12349 for share in (0.0, 0.3, 1 - 1e-9))
    assert [Interval("a", 1, 3, is_whole=True).at(share) for share in (0.0, 0.34, 1 - 1e-9)] == [1, 2, 3]


def swept(*words):
    composition = compose_all(words, multirun=True)
    return composition, [{name: flat(one.run)[name] for name in composition.swept} for one in composition.runs]


def test_every_listed_value_goes_with_everything_that_is_drawn():
    """The same draws for each, so that they are compared on equal terms."""
    composition, values = swept(RATE_WORD, "seed=1,2", WARMUP_WORD, "search.runs=3", "search.seed=4")
    assert composition.swept == ("schedule.learning_rate", "seed", "schedule.warmup")
    drawn = draw([RATE, WARMUP], 3, seed=4)
    assert values == [
        {"schedule.learning_rate": one[RATE.name], "seed": seed, "schedule.warmup": one[WARMUP.name]}
        for seed in (1, 2)
        for one in drawn
    ]


def test_an_experiment_with_a_search_and_words_that_change_it():
    experiment = "experiment=stdlib_docs_search"
    composition, values = swept(experiment)
    assert composition.is_sweep and len(values) == 8
    _, longer = swept(experiment, "search.runs=12")
    assert longer[:8] == values
    pinned, listed = swept(experiment, "schedule.warmup=0.1", "search.runs=4")
    assert pinned.swept == ("schedule.learning_rate",) and len(listed) == 4
    assert {one.run.schedule.warmup for one in pinned.runs} == {0.1}
    _, grid = swept(experiment, "schedule.warmup=0.1,0.2", "schedule.learning_rate=0.001")
    assert grid == [{"schedule.warmup": 0.1}, {"schedule.warmup": 0.2}]
