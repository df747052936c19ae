"""Collating against a loop over segments and tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3Config, Qwen3ForCausalLM

from ftx.attention import PACKED_CPU, register
from ftx.data.collate import IGNORED, collate, collate_micro_batch, predicted_positions
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
    assert batch["cu_seq_lens_q"].tolist() == batch["cu_seq_lens_k"].tolist() == borders
    assert batch["max_length_q"] == batch["max_length_k"] == max(np.diff(borders))


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
    batch = collate_micro_batch([rows])
    assert list(batch) == list(expected)
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(batch[name]), torch.as_tensor(value)), name


def tiny_model() -> Qwen3ForCausalLM:
    register()
    torch.manual_seed(0)
    sizes = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, attn_implementation=PACKED_CPU))


def test_a_micro_batch_without_rows_has_no_target_no_loss_and_no_gradient():
    """Its gradients are zeros and not missing, so that every rank has the same ones to add up."""
    batch = collate_micro_batch([[]])
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
            batch = collate_micro_batch([micro_batch])
            labels = batch.pop("labels")
            token_loss(model(**batch), labels, num_items_in_batch=2).backward()
        gradients.append([weights.grad for weights in model.parameters()])
        assert token_loss.state()["tokens"] == 2
    assert all(torch.equal(alone, both) for alone, both in zip(*gradients, strict=True))
    assert any(one.any() for one in gradients[0])
