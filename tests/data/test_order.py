"""What a step contains and who computes it, against simulations, searches and bounds."""

from itertools import chain, pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftx.data.cost import Cost
from ftx.data.encode import TokenBatch
from ftx.data.order import ALIKE, MicroBatches, TrainingOrder, epoch_steps, share
from ftx.data.packing import pack
from ftx.data.store import Row, RowStore, TokenStore, TokenWriter, write_members

ORDERS = ("balanced", "random", "source")


def lognormal(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(7, 1, count)


def compositions(steps: list[np.ndarray]) -> set[frozenset[int]]:
    return {frozenset(step.tolist()) for step in steps}


@given(st.integers(0, 70), st.integers(1, 20), st.sampled_from(ORDERS), st.integers(0, 3))
def test_an_epoch_has_every_item_once_and_only_its_last_step_is_short(count, batch, order, epoch):
    steps = epoch_steps(lognormal(count), batch, order=order, seed=1, epoch=epoch)
    assert sorted(chain.from_iterable(steps)) == list(range(count))
    short = [count % batch] if count % batch else []
    assert list(map(len, steps)) == [batch] * (count // batch) + short


@pytest.mark.parametrize("order", ["balanced", "random"])
def test_a_shuffled_order_is_a_function_of_seed_and_epoch(order):
    first, again, other_seed, other_epoch = (
        [step.tolist() for step in epoch_steps(lognormal(90), 8, order=order, seed=seed, epoch=epoch)]
        for seed, epoch in ((5, 2), (5, 2), (6, 2), (5, 3))
    )
    assert first == again
    assert first != other_seed
    assert first != other_epoch


def test_a_curriculum_takes_items_as_they_are_in_every_epoch():
    for epoch in (0, 3):
        steps = epoch_steps(lognormal(11), 4, order="shortest_first", seed=0, epoch=epoch)
        assert [step.tolist() for step in steps] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 999), st.floats(0.01, 2))
def test_balanced_the_dearest_items_of_the_steps_sum_up_to_nearly_the_least_there_is(steps, batch, seed, spread):
    """What an epoch takes where each item of a step has a device; sorted by cost it takes the least."""
    costs = np.random.default_rng(seed).lognormal(7, spread, steps * batch)
    balanced = epoch_steps(costs, batch, order="balanced", seed=seed, epoch=0)
    least = np.sort(costs).reshape(steps, batch).max(axis=1).sum()
    assert least * (1 - 1e-9) <= sum(costs[step].max() for step in balanced) <= least * (1 + ALIKE) * (1 + 1e-9)


def test_balanced_steps_are_other_ones_in_each_epoch_and_come_in_random_order():
    costs = lognormal(6400)
    first, second = (epoch_steps(costs, 64, order="balanced", seed=0, epoch=epoch) for epoch in (0, 1))
    assert len(compositions(first) & compositions(second)) < 5
    means = [costs[step].mean() for step in first]
    assert abs(np.corrcoef(means, range(100))[0, 1]) < 0.3


def test_balanced_the_short_step_is_not_always_of_the_same_items():
    costs = lognormal(1001)
    last = [int(epoch_steps(costs, 10, order="balanced", seed=0, epoch=epoch)[-1][0]) for epoch in range(200)]
    assert len(set(last)) > 150


@pytest.mark.parametrize("order", ["balanced", "random"])
def test_items_of_equal_cost_meet_at_random(order):
    """As they stood, 900 of 999 neighbours would share a step; at random each pair does in 9 cases of 999."""
    steps = epoch_steps(np.full(1000, 3.0), 10, order=order, seed=0, epoch=0)
    step_of = np.empty(1000, dtype=int)
    for number, step in enumerate(steps):
        step_of[step] = number
    assert np.count_nonzero(np.diff(step_of) == 0) < 9 + 5 * 3
    assert abs(np.corrcoef(step_of, range(1000))[0, 1]) < 0.1
    again = epoch_steps(np.full(1000, 3.0), 10, order=order, seed=0, epoch=1)
    assert not compositions(steps) & compositions(again)


prices = st.floats(0.1, 100)


@given(st.lists(prices, max_size=30), st.integers(1, 6), st.integers(0, 5))
def test_every_row_has_one_rank_and_no_rank_too_many_rows(costs, ranks, spare):
    most = -(-len(costs) // ranks) + spare
    shares = share(np.array(costs), ranks, most)
    assert sorted(chain.from_iterable(shares)) == list(range(len(costs)))
    assert len(shares) == ranks
    assert max(map(len, shares)) <= most
    for mine in shares:
        assert [costs[row] for row in mine] == sorted((costs[row] for row in mine), reverse=True)


@given(st.lists(prices, min_size=1, max_size=7), st.integers(1, 3))
def test_the_dearest_rank_is_as_near_to_the_best_as_graham_proves(costs, ranks):
    of_rows = np.array(costs)
    best = min(
        max(sum(cost for cost, at in zip(costs, owners, strict=True) if at == rank) for rank in range(ranks))
        for owners in product(range(ranks), repeat=len(costs))
    )
    dearest = max(of_rows[mine].sum() for mine in share(of_rows, ranks, most=len(costs)))
    assert dearest <= (4 / 3 - 1 / (3 * ranks)) * best * (1 + 1e-9)


def test_with_places_for_one_each_the_cheapest_goes_where_there_is_room():
    assert share(np.array([9.0, 1.0, 1.0, 1.0]), 2, most=2) == [[0, 3], [1, 2]]


def test_more_rows_than_places_are_refused():
    with pytest.raises(ValueError, match="7 rows do not fit 2 ranks with 3 each"):
        share(np.ones(7), 2, most=3)


LENGTHS = np.random.default_rng(3).integers(3, 41, 50)
SUPERVISED = LENGTHS // 3
PACK_TO = 96
# 37 rows of one conversation or two.
MEMBERS = [[at] for at in range(24)] + [[at, at + 1] for at in range(24, 50, 2)]
SETTINGS = list(product(ORDERS, (1, 5, 37, 64), (None, PACK_TO)))


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> RowStore:
    """Rows of conversations whose every token is the conversation's number."""
    folder = tmp_path_factory.mktemp("items")
    runs = np.stack([LENGTHS - SUPERVISED, SUPERVISED], axis=1)
    with TokenWriter(folder / "tokens.arrow") as writer:
        numbers = np.repeat(np.arange(50), LENGTHS)
        writer.write([f"{at}" for at in range(50)], TokenBatch(numbers, LENGTHS, runs.ravel(), np.full(50, 2)))
    write_members(folder / "rows.arrow", MEMBERS)
    return RowStore.open(TokenStore(folder / "tokens.arrow"), folder / "rows.arrow")


def ordered(
    items: RowStore, order: str = "balanced", batch: int = 5, pack_to: int | None = None, ranks: int = 1
) -> TrainingOrder:
    return TrainingOrder(items, Cost(100.0), order=order, seed=9, global_batch_size=batch, pack_to=pack_to, ranks=ranks)


def length(item: int) -> int:
    return int(LENGTHS[MEMBERS[item]].sum())


def cost(row: np.ndarray) -> float:
    lengths = [int(LENGTHS[member]) for item in row for member in MEMBERS[item]]
    return sum(n + n * n / 100 for n in lengths)


@pytest.mark.parametrize(("order", "batch", "pack_to"), SETTINGS)
def test_the_rows_of_a_step_hold_its_items_and_packing_makes_as_few_as_pack_does(items, order, batch, pack_to):
    training = ordered(items, order, batch, pack_to)
    assert training.steps_per_epoch == -(-37 // batch)
    for epoch in range(2):
        plain = epoch_steps(np.array([cost([at]) for at in range(37)]), batch, order=order, seed=9, epoch=epoch)
        for step, expected in enumerate(plain):
            rows = training.rows(epoch, step)
            assert sorted(np.concatenate(rows)) == sorted(expected)
            lengths = [length(item) for item in expected]
            if pack_to:
                assert max(sum(map(length, row)) for row in rows) <= pack_to
            assert len(rows) == (len(pack(lengths, pack_to)) if pack_to else len(expected))


@pytest.mark.parametrize(("order", "batch", "pack_to"), SETTINGS)
@pytest.mark.parametrize(("ranks", "size"), [(1, 1), (1, 4), (3, 1), (4, 2)])
def test_no_step_of_all_epochs_needs_more_micro_batches_and_one_needs_as_many(
    items, order, batch, pack_to, ranks, size
):
    training = ordered(items, order, batch, pack_to, ranks)
    steps = training.steps_per_epoch
    most = [[max(map(len, training.shares(epoch, step))) for step in range(steps)] for epoch in range(3)]
    for epochs in (1, 3):
        needed = -(-max(chain.from_iterable(most[:epochs])) // size)
        assert training.micro_batches_needed(epochs * steps, size) == needed


@pytest.mark.parametrize(("batch", "ranks"), [(8, 8), (13, 4), (37, 5), (3, 8)])
def test_every_device_has_work_and_packs_its_own(items, batch, ranks):
    """Packed together before, the eight items of a step would make three or four rows."""
    training = ordered(items, batch=batch, pack_to=PACK_TO, ranks=ranks)
    for epoch, step in product(range(2), range(training.steps_per_epoch)):
        chosen = training.steps(epoch)[step]
        alone = np.array([cost(chosen[at : at + 1]) for at in range(len(chosen))])
        shares = training.shares(epoch, step)
        assert sum(bool(mine) for mine in shares) == min(ranks, len(chosen))
        assert sorted(chain.from_iterable(chain.from_iterable(shares))) == sorted(chosen)
        for mine in shares:
            lengths = [length(item) for row in mine for item in row]
            assert len(mine) == len(pack(lengths, PACK_TO))
        loads = [alone[mine].sum() for mine in share(alone, ranks, most=len(chosen)) if mine]
        assert training.loads(epoch, step) == pytest.approx(loads + [0.0] * (ranks - len(loads)))


def test_rows_without_a_place_are_refused(items):
    training = ordered(items, batch=13, pack_to=PACK_TO, ranks=2)
    count = training.micro_batches_needed(training.steps_per_epoch, 1)
    with pytest.raises(ValueError, match=f"{count} rows of a rank do not fit {count - 1} micro-batches of 1"):
        for step in range(training.steps_per_epoch):
            training.micro_batches(0, step, size=1, count=count - 1)


def needed(training: TrainingOrder, size: int) -> int:
    """Micro-batches that hold any step of three epochs."""
    return training.micro_batches_needed(3 * training.steps_per_epoch, size)


@pytest.mark.parametrize("pack_to", [None, PACK_TO])
@pytest.mark.parametrize(("ranks", "size"), [(1, 1), (1, 4), (3, 1), (2, 3), (16, 2)])
def test_the_ranks_together_compute_each_row_of_a_step_once(items, ranks, size, pack_to):
    training = ordered(items, batch=13, pack_to=pack_to, ranks=ranks)
    count = needed(training, size)
    for epoch, step in product(range(3), range(training.steps_per_epoch)):
        shares = training.micro_batches(epoch, step, size=size, count=count)
        assert [len(mine) for mine in shares] == [count] * ranks
        assert max(len(rows) for mine in shares for rows in mine) <= size
        computed = [tuple(row) for mine in shares for rows in mine for row in rows]
        assert sorted(computed) == sorted(map(tuple, training.rows(epoch, step)))


@pytest.mark.parametrize("pack_to", [None, PACK_TO])
def test_every_rank_begins_with_its_dearest_rows(items, pack_to):
    training = ordered(items, batch=13, pack_to=pack_to, ranks=2)
    for mine in training.micro_batches(0, 0, size=2, count=needed(training, 2)):
        costs = [cost(row) for rows in mine for row in rows]
        assert costs == sorted(costs, reverse=True)


def test_a_row_of_items_is_all_their_conversations(items):
    row = ordered(items).row(np.array([25, 3]))
    members = [*MEMBERS[25], 3]
    assert row.ids == tuple(map(str, members))
    assert row.input_ids.tolist() == np.repeat(members, LENGTHS[members]).tolist()
    assert row.lengths.tolist() == LENGTHS[members].tolist()
    assert int(row.supervised.sum()) == SUPERVISED[members].sum()


@pytest.mark.parametrize(("order", "batch", "pack_to"), SETTINGS)
def test_tokens_seen_equal_those_of_the_rows_of_every_step(items, order, batch, pack_to):
    training = ordered(items, order, batch, pack_to)
    total = supervised = 0
    expected = [(0, 0)]
    for epoch, step in product(range(3), range(training.steps_per_epoch)):
        for row in map(training.row, training.rows(epoch, step)):
            total += len(row.input_ids)
            supervised += int(row.supervised.sum())
        expected.append((total, supervised))
    for asked in [*range(len(expected)), *reversed(range(len(expected)))]:
        seen = training.seen(asked)
        assert (seen.total, seen.supervised) == expected[asked]


def names(micro_batch: list[Row]) -> list[tuple[str, ...]]:
    return [row.ids for row in micro_batch]


def names_of_items(rows: list[np.ndarray]) -> list[tuple[str, ...]]:
    return [tuple(f"{member}" for item in row for member in MEMBERS[item]) for row in rows]


@pytest.mark.parametrize("pack_to", [None, PACK_TO])
@pytest.mark.parametrize(("ranks", "size"), [(1, 1), (1, 4), (3, 2), (16, 1)])
def test_what_the_ranks_load_for_a_step_are_its_rows_and_nothing_behind_them(items, ranks, size, pack_to):
    training = ordered(items, batch=13, pack_to=pack_to, ranks=ranks)
    count = needed(training, size)
    loaded = [MicroBatches(training, size=size, accumulation=count, rank=rank) for rank in range(ranks)]
    for epoch in (0, 1):
        for mine in loaded:
            mine.set_epoch(epoch)
            assert len(mine) == training.steps_per_epoch * count == len(list(mine))
        for step in range(training.steps_per_epoch):
            of_ranks = [[names(mine[at]) for at in range(step * count, (step + 1) * count)] for mine in loaded]
            together = sorted(chain.from_iterable(chain.from_iterable(of_ranks)))
            assert together == sorted(names_of_items(training.rows(epoch, step)))
            for mine in of_ranks:
                assert all(rows or not later for rows, later in pairwise(mine))


def test_the_short_step_leaves_micro_batches_empty(items):
    """37 rows in steps of 16: the last one has 5, for two ranks with four micro-batches of two."""
    training = ordered(items, batch=16, ranks=2)
    sizes = [[len(rows) for rows in MicroBatches(training, size=2, accumulation=4, rank=rank)] for rank in (0, 1)]
    assert [one[:8] for one in sizes] == [[2] * 8] * 2
    assert sorted(map(sum, (one[8:] for one in sizes))) == [2, 3]
    assert all(one[-1] == 0 for one in sizes)


@pytest.mark.parametrize("pack_to", [None, PACK_TO])
def test_an_epoch_is_the_same_after_any_other_and_from_any_place_on(items, pack_to):
    training = ordered(items, batch=13, pack_to=pack_to, ranks=2)
    count = needed(training, 2)
    loaded = MicroBatches(training, size=2, accumulation=count, rank=1)
    epochs = {}
    for epoch in (0, 1, 2):
        loaded.set_epoch(epoch)
        epochs[epoch] = [names(rows) for rows in loaded]
    assert len({str(epoch) for epoch in epochs.values()}) == 3
    for epoch in (1, 0, 2):
        loaded.set_epoch(epoch)
        assert [names(loaded[at]) for at in reversed(range(len(loaded)))] == epochs[epoch][::-1]
        fresh = MicroBatches(ordered(items, batch=13, pack_to=pack_to, ranks=2), size=2, accumulation=count, rank=1)
        fresh.set_epoch(epoch)
        assert names(fresh[len(fresh) // 2]) == epochs[epoch][len(fresh) // 2]


def test_a_micro_batch_that_is_not_there_is_an_index_error(items):
    loaded = MicroBatches(ordered(items), size=1, accumulation=5)
    assert loaded[len(loaded) - 1] == []
    for index in (-1, len(loaded)):
        with pytest.raises(IndexError):
            loaded[index]


def busy(order: str, costs: np.ndarray, ranks: int) -> float:
    """The mean over an epoch's steps of what part of the step the ranks are busy; each computes one row."""
    shares = []
    for step in epoch_steps(costs, ranks, order=order, seed=0, epoch=0):
        loads = [costs[step[mine]].sum() for mine in share(costs[step], ranks, most=1)]
        shares.append(np.mean(loads) / max(loads))
    return float(np.mean(shares))


def test_traces_of_agents_keep_64_ranks_busy():
    """51,389 conversations with lengths like those of agents' traces, in rows of 32,768 for a model of 4B."""
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(2500), 1.0, 51_389), 1, 32_768).astype(int)
    rows = pack(lengths.tolist(), 32_768)
    assert lengths.sum() / (len(rows) * 32_768) >= 0.97
    of_segments = Cost(24_600).of_segments(lengths)
    costs = np.array([of_segments[row].sum() for row in rows])
    assert busy("balanced", costs, 64) >= 0.97
    assert busy("random", costs, 64) < 0.8
