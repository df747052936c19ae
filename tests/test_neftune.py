"""NEFTune's noise: as large as a sample's own length says, and the same however the work is cut."""

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_training import assert_same_weights, column, start, tiny, train_in, train_until, write_chats

from ftx.counter_random import keys_of, random_bits
from ftx.data.collate import MicroBatchCollator
from ftx.data.order import MicroBatches, order_of
from ftx.data.prefix import draws_for_each_token
from ftx.loss import evaluate_loss
from ftx.neftune import NOISE, NoisyCollator, noisy_embeddings, segment_noise

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
NOISY = ("method.neftune_alpha=5", "data.max_length=128", "schedule.global_batch_size=6")
PACKED = ("data.packing=true", "data.packing_scope=global_batch")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_chats(tmp_path_factory.mktemp("data"))


def lowbias32(value: int) -> int:
    """Wellons' function in unsigned 32-bit arithmetic."""
    value ^= value >> 16
    value = value * 0x7FEB352D % 2**32
    value ^= value >> 15
    value = value * 0x846CA68B % 2**32
    return value ^ value >> 16


def bits_by_hand(key: int, counter: int, column_: int) -> int:
    mixed = (key % 2**64) ^ (counter * 0x9E3779B97F4A7C15 % 2**64)
    low, high = mixed % 2**32, mixed >> 32
    first = lowbias32(low ^ lowbias32(high))
    second = lowbias32(high ^ first)
    value = (first + lowbias32((column_ + 1) * 0x9E3779B9 % 2**32)) % 2**32
    value ^= value >> 16
    value = (value * 0x7FEB352D + second) % 2**32
    value ^= value >> 15
    value = value * 0x846CA68B % 2**32
    return value ^ value >> 16


def test_random_bits_equal_unsigned_arithmetic():
    keys = keys_of(42, 3, np.array([0, 7, 2**40]))
    found = random_bits(torch.from_numpy(keys), torch.tensor([0, 5, 100_000]), 50)
    for row, (key, counter) in enumerate(zip(keys.tolist(), [0, 5, 100_000], strict=True)):
        assert [int(value) % 2**32 for value in found[row]] == [bits_by_hand(key, counter, at) for at in range(50)]


def test_keys_differ_with_every_counter_and_their_order():
    keys = [keys_of(*counters) for counters in ((1, 2, 3), (2, 1, 3), (1, 2, 4), (1, 3, 3), (0, 2, 3), (-1, 2, 3))]
    assert len({int(key[0]) for key in keys}) == len(keys)
    assert np.array_equal(keys_of(1, 2, np.array([3, 4]))[1:], keys_of(1, 2, 4))


def noise_of(lengths, samples, *, seed=42, epoch=0, alpha=5.0, dimensions=33):
    positions = torch.cat([torch.arange(length) for length in lengths])
    drawn = np.stack([keys_of(seed, epoch, np.array(samples)), lengths], axis=1)
    return segment_noise(alpha, torch.from_numpy(drawn), positions, dimensions)[0]


def test_each_segment_has_the_noise_that_it_has_alone_and_of_its_own_size():
    lengths, samples = [3, 200, 41], [17, 2, 90]
    packed = noise_of(lengths, samples)
    parts = packed.split(lengths)
    for length, sample, part in zip(lengths, samples, parts, strict=True):
        assert torch.equal(part, noise_of([length], [sample]))
        limit = 5.0 / np.sqrt(length * 33)
        assert 0.9 * limit < float(part.abs().max()) <= limit
        assert float(part.std()) == pytest.approx(limit / np.sqrt(3), rel=0.15)
    for other in ({"seed": 43}, {"epoch": 1}):
        assert not torch.isclose(noise_of(lengths, samples, **other), packed).float().mean() > 0.01


def test_noise_is_uniform_and_has_no_correlations():
    """200 samples of 64 tokens in 64 dimensions: 0.8 million numbers, at six standard errors."""
    noise = noise_of([64] * 200, range(200), dimensions=64).double() * np.sqrt(64 * 64) / 5
    assert stats.kstest(noise.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-6
    next_epoch = noise_of([64] * 200, range(200), dimensions=64, epoch=1).double() * np.sqrt(64 * 64) / 5
    pairs = {
        "dimensions": (noise[:, 1:], noise[:, :-1]),
        "two of one word": (noise[:, ::2], noise[:, 1::2]),
        "tokens": (noise[1:], noise[:-1]),
        "samples": (noise[64:], noise[:-64]),
        "epochs": (noise, next_epoch),
    }
    for name, (one, other) in pairs.items():
        assert abs(float((one * other).mean())) * 3 * np.sqrt(one.numel()) < 6, name


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    return train_in(tmp_path_factory.mktemp("runs") / "plain", tiny(data, *NOISY))


@pytest.mark.parametrize("words", [PACKED, ("hardware.micro_batch=3",), (*PACKED, "hardware.micro_batch=6")])
def test_the_curve_is_the_same_for_any_packing_and_micro_batch(data, tmp_path, plain, words):
    model, rows = train_in(tmp_path / "run", tiny(data, *NOISY, *words))
    assert column(rows, "train_loss") == pytest.approx(column(plain[1], "train_loss"), rel=1e-5)
    assert column(rows, "grad_norm") == pytest.approx(column(plain[1], "grad_norm"), rel=1e-4)
    assert_same_weights(model, plain[0])


def test_noise_changes_the_curve_and_stays_out_of_evaluation_and_of_the_saved_model(data, tmp_path, plain):
    quiet, rows = train_in(tmp_path / "run", tiny(data, *NOISY[1:]))
    first, first_quiet = plain[1][0]["train_loss"], rows[0]["train_loss"]
    assert first != pytest.approx(first_quiet, rel=1e-4)
    assert plain[0].state_dict().keys() == quiet.state_dict().keys()
    hooks = [*plain[0]._forward_pre_hooks.values(), *plain[0].get_input_embeddings()._forward_hooks.values()]
    assert not [hook for hook in hooks if type(hook.__self__).__module__ == "ftx.neftune"]


@pytest.mark.parametrize("step", [2, 5])
def test_a_resumed_training_has_the_same_noise(data, tmp_path, plain, step):
    """Within the first epoch of four steps, and within the second."""
    run = tiny(data, *NOISY)
    train_until(step, tmp_path / "run", run)
    model, rows = train_in(tmp_path / "run", run)
    assert column(rows, "train_loss") == column(plain[1], "train_loss")
    assert_same_weights(model, plain[0], atol=0, rtol=0)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_model_sees_the_noise_of_each_sample_while_training_only(data, method):
    run = tiny(data, *NOISY, *PACKED, f"method={method}")
    prepared, model = start(run)
    order = order_of(run, prepared)
    micro_batches = MicroBatches(order, size=1, accumulation=2)
    micro_batches.set_epoch(3)
    batch = NoisyCollator(MicroBatchCollator(), run.seed)([micro_batches[0]])
    (row,) = micro_batches[0]
    assert len(row.lengths) > 1
    batch.pop("labels")
    seen = []
    embeddings = model.get_input_embeddings()
    with noisy_embeddings(model, 5.0):
        handle = embeddings.register_forward_hook(lambda module, given, out: seen.append(out))
        model.train()
        model(**batch)
        model.eval()
        model(**batch)
        before = evaluate_loss(model, prepared.evaluation, CPU)
        handle.remove()
        model.train()
        with pytest.raises(RuntimeError, match=NOISE):
            model(**{name: value for name, value in batch.items() if name != NOISE})
    assert evaluate_loss(model, prepared.evaluation, CPU) == before
    plain = embeddings.weight[batch["input_ids"]]
    assert torch.equal(seen[1], plain)
    expected = noise_of(row.lengths, row.samples, epoch=3, dimensions=plain.shape[-1])
    torch.testing.assert_close(seen[0] - plain, expected[None], atol=1e-6, rtol=1e-4)


def test_pieces_of_a_split_conversation_are_samples_of_their_own(data):
    run = tiny(data, "method.neftune_alpha=5", "data.max_length=32", "data.too_long=split", "data.packing=true")
    prepared, _ = start(run)
    rows = list(prepared.train)
    samples = np.concatenate([row.samples for row in rows])
    names = [name for row in rows for name in row.ids]
    assert len(set(samples.tolist())) == len(samples) == len(names)
    assert len(set(names)) < len(names)


def test_a_micro_batch_without_rows_has_an_entry_too():
    batch = NoisyCollator(MicroBatchCollator(), 1)([[]])
    assert batch[NOISE].tolist() == [[0, batch["input_ids"].shape[1]]]


def test_samples_with_noise_share_no_prefix(data):
    assert draws_for_each_token(tiny(data, "method.neftune_alpha=5"))
    assert not draws_for_each_token(tiny(data))
