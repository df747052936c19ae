"""Collating against a loop over segments and tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftx.data.collate import IGNORED, Row, collate, predicted_positions

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
