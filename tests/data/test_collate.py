"""Collating against a loop over segments and tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3Config, Qwen3ForCausalLM

from ftx.attention import PACKED_CPU, register
from ftx.data.collate import IGNORED, MicroBatchCollator, collate, predicted_positions
from ftx.data.segments import Segments
from ftx.data.store import Row
from ftx.loss import TokenLoss

segment = st.lists(st.tuples(st.integers(0, 9000), st.booleans()), min_size=1, max_size=9)
row_of_segments = st.lists(segment, min_size=1, max_size=5)


def as_row(segments: list[list[tuple[int, bool]]]) -> Row:
    tokens = [token for segment in segments for token in segment]
    return Row(
        np.array([token for token, _ in tokens], dtype=np.int32),
        np.array([supervised for _, supervised in tokens]),
        np.array([len(segment) for segment in segments], dtype=np.int32),
    )


@settings(deadline=None)
@given(st.lists(row_of_segments, min_size=1, max_size=4))
def test_positions_and_targets_equal_a_loop_over_every_segment(rows):
    keep, targets, positions, borders, ids = [], [], [], [0], []
    for segments in rows:
        for segment in segments:
            for at, (token, supervised) in enumerate(segment):
                if at and supervised:
                    keep.append(len(ids) - 1)
                    targets.append(token)
                ids.append(token)
                positions.append(at)
            borders.append(len(ids))
    batch = collate([as_row(segments) for segments in rows])
    assert batch["input_ids"].tolist() == [ids]
    assert batch["position_ids"].tolist() == [positions]
    assert batch["logits_to_keep"].tolist() == keep
    assert batch["labels"].tolist() == [IGNORED, *targets]
    assert batch["segments"] == Segments(tuple(borders))
    assert batch["segments"].query_borders.tolist() == batch["segments"].key_borders.tolist() == borders
    assert batch["segments"].longest == max(np.diff(borders))


def test_the_first_token_of_a_segment_is_never_predicted_from_the_one_before():
    row = as_row([[(1, True), (2, True)], [(3, True)], [(4, True), (5, False), (6, True)]])
    assert predicted_positions(row).tolist() == [0, 4]


@pytest.mark.parametrize("name", ["input_ids", "position_ids", "logits_to_keep", "labels"])
def test_indices_are_what_torch_indexes_with(name):
    assert str(collate([as_row([[(1, False), (2, True)]])])[name].dtype) == "torch.int64"


def test_the_stored_row_is_not_changed_by_collating():
    row = as_row([[(1, True), (2, True)]])
    for array in (row.input_ids, row.supervised, row.lengths):
        array.flags.writeable = False
    collate([row])["input_ids"][0, 0] = 77
    assert row.input_ids.tolist() == [1, 2]


def test_a_micro_batch_is_its_rows_collated():
    rows = [as_row([[(1, False), (2, True)], [(3, False), (4, True)]]), as_row([[(5, True), (6, False), (7, True)]])]
    expected = collate(rows)
    batch = MicroBatchCollator()([rows])
    assert list(batch) == list(expected)
    for name, value in expected.items():
        assert torch.equal(batch[name], value) if isinstance(value, torch.Tensor) else batch[name] == value, name


def tiny_model() -> Qwen3ForCausalLM:
    register()
    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, attn_implementation=PACKED_CPU))


def test_a_micro_batch_without_rows_has_no_target_no_loss_and_no_gradient():
    """Its gradients are zeros and not missing, so that every rank has the same ones to add up."""
    batch = MicroBatchCollator()([[]])
    labels = batch.pop("labels")
    assert (labels != IGNORED).sum() == 0
    model = tiny_model()
    loss = TokenLoss()(model(**batch), labels, num_items_in_batch=5)
    loss.backward()
    assert loss.item() == 0
    for name, weights in model.named_parameters():
        assert weights.grad is not None, name
        assert not weights.grad.any(), name


def test_a_micro_batch_without_rows_changes_nothing_in_what_others_add_up():
    rows = [as_row([[(1, False), (2, True), (3, True)]])]
    gradients = []
    for micro_batches in ([rows], [rows, []]):
        model, token_loss = tiny_model(), TokenLoss()
        for micro_batch in micro_batches:
            batch = MicroBatchCollator()([micro_batch])
            labels = batch.pop("labels")
            token_loss(model(**batch), labels, num_items_in_batch=2).backward()
        gradients.append([weights.grad for weights in model.parameters()])
        assert token_loss.state()["tokens"] == 2
    assert all(torch.equal(alone, both) for alone, both in zip(*gradients, strict=True))
    assert any(one.any() for one in gradients[0])


def as_segments(row: Row) -> list[list[tuple[int, bool]]]:
    marked = list(zip(row.input_ids.tolist(), row.supervised.tolist(), strict=True))
    ends = np.cumsum(row.lengths)
    return [marked[end - length : end] for end, length in zip(ends, row.lengths, strict=True)]


@settings(deadline=None)
@given(st.lists(row_of_segments, min_size=1, max_size=4), st.integers(1, 4))
def test_a_shared_beginning_enters_once_and_every_target_keeps_its_position(rows, shared):
    prompt = [(7 + at, False) for at in range(shared)]
    # The first token behind the prompt is not supervised, so that no token of the prompt predicts.
    rows = [as_row([[*prompt, (3, False), *segment] for segment in segments]) for segments in rows]
    plain, once = collate(rows), collate(rows, shared)
    conversations = [segment for row in rows for segment in as_segments(row)]
    if len(conversations) == 1:
        assert once["segments"] == plain["segments"]
        return
    assert once["input_ids"][0].tolist() == [
        *(token for token, _ in prompt),
        *(token for segment in conversations for token, _ in segment[shared:]),
    ]
    assert once["position_ids"][0].tolist() == [
        *range(shared),
        *(at for segment in conversations for at in range(shared, len(segment))),
    ]
    assert torch.equal(once["labels"], plain["labels"])
    for name in ("input_ids", "position_ids"):
        assert torch.equal(once[name][0, once["logits_to_keep"]], plain[name][0, plain["logits_to_keep"]])
    lengths = [shared, *(len(segment) - shared for segment in conversations)]
    assert once["segments"] == Segments((0, *np.cumsum(lengths).tolist()), shared)


def test_a_micro_batch_with_a_shared_beginning_gives_the_loss_and_gradients_of_conversations_apart():
    lengths, shared = (9, 30, 12, 7, 30), 6
    draw = np.random.default_rng(3)
    prompt = draw.integers(0, 11, shared)
    rows = [
        Row(
            np.concatenate([prompt, draw.integers(0, 11, length - shared)]).astype(np.int32),
            np.arange(length) > shared,
            np.array([length], dtype=np.int32),
        )
        for length in lengths
    ]
    results = []
    for micro_batches, collator in (
        ([rows], MicroBatchCollator(shared)),
        ([[row] for row in rows], MicroBatchCollator()),
    ):
        model, token_loss = tiny_model().double(), TokenLoss()
        for micro_batch in micro_batches:
            batch = collator([micro_batch])
            labels = batch.pop("labels")
            token_loss(model(**batch), labels, num_items_in_batch=10).backward()
        results.append((token_loss.state(), [weights.grad for weights in model.parameters()]))
    (once, gradients), (apart, expected) = results
    assert once == pytest.approx(apart, rel=1e-6)
    for ours, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, right, atol=1e-6, rtol=1e-5)
