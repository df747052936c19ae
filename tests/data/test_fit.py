"""Conversations longer than a row against a walk over their tokens, one at a time."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftx.data.encode import TokenBatch, runs_of
from ftx.data.fit import Fitted, fit
from ftx.data.tokenize import marks_of
from ftx.errors import UserError

# Token → whether it is supervised, one after another as in a conversation. Every token of a test is another one.
Piece = dict[int, bool]


@st.composite
def conversations(draw) -> list[Piece]:
    """Stretches of tokens that are supervised or not; the first token never is, but something is."""
    first = 0
    made = []
    for _ in range(draw(st.integers(1, 3))):
        stretches = draw(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=6))
        marks = [False, *(mark for count, mark in stretches for _ in range(count))]
        if not any(marks):
            marks.append(True)
        made.append(dict(enumerate(marks, first)))
        first += len(marks)
    return made


def batch_of(pieces: list[Piece]) -> TokenBatch:
    runs = [runs_of(np.array(list(piece.values()))) for piece in pieces]
    return TokenBatch(
        np.array([token for piece in pieces for token in piece], dtype=np.int32),
        np.array([len(piece) for piece in pieces]),
        np.concatenate(runs),
        np.array([len(one) for one in runs]),
    )


def pieces_of(batch: TokenBatch) -> list[Piece]:
    tokens = np.split(batch.input_ids, np.cumsum(batch.lengths)[:-1]) if len(batch.lengths) else []
    runs = np.split(batch.runs, np.cumsum(batch.run_counts)[:-1])
    return [
        dict(zip(some.tolist(), marks_of(its_runs).tolist(), strict=True))
        for some, its_runs in zip(tokens, runs[: len(tokens)], strict=True)
    ]


def fitted_to(given_ones: list[Piece], max_length: int, policy: str) -> tuple[list[int], list[Piece], Fitted]:
    """What becomes of them, which of them each piece is of, and the counts."""
    counts = Fitted()
    names = [f"chats.jsonl:{at}" for at in range(len(given_ones))]
    sources, batch = fit(names, batch_of(given_ones), max_length=max_length, policy=policy, fitted=counts)
    return sources.tolist(), pieces_of(batch), counts


def walked(conversation: Piece, max_length: int) -> list[Piece]:
    """Pieces of a conversation that is too long: a full one's last token is the first one, unlearned, of the next."""
    pieces: list[Piece] = [{}]
    for token, mark in conversation.items():
        if len(pieces[-1]) == max_length:
            pieces.append({next(reversed(pieces[-1])): False})
        pieces[-1][token] = mark
    return pieces


def expected(conversation: Piece, max_length: int, policy: str) -> list[Piece]:
    if len(conversation) <= max_length:
        return [conversation]
    pieces = {"drop": 0, "truncate": 1, "split": None}[policy]
    return [piece for piece in walked(conversation, max_length)[:pieces] if any(piece.values())]


@given(conversations(), st.integers(2, 9), st.sampled_from(["drop", "truncate", "split"]))
def test_pieces_and_counts_equal_those_of_a_walk_over_the_tokens(given_ones, max_length, policy):
    sources, pieces, counts = fitted_to(given_ones, max_length, policy)
    kept = [expected(conversation, max_length, policy) for conversation in given_ones]
    assert pieces == [piece for of_one in kept for piece in of_one]
    assert sources == [at for at, of_one in enumerate(kept) for _ in of_one]
    of_long = [of_one for of_one, one in zip(kept, given_ones, strict=True) if len(one) > max_length]
    gone, changed = of_long.count([]), len(of_long) - of_long.count([])
    assert asdict(counts) | {"cut_tokens": None} == {
        "dropped_too_long": gone if policy == "drop" else 0,
        "dropped_unsupervised": gone if policy != "drop" else 0,
        "truncated": changed if policy == "truncate" else 0,
        "split": changed if policy == "split" else 0,
        "cut_tokens": None,
    }


@given(conversations(), st.integers(2, 9), st.sampled_from(["drop", "truncate", "split"]))
def test_cut_tokens_are_those_in_no_piece(given_ones, max_length, policy):
    _, pieces, counts = fitted_to(given_ones, max_length, policy)
    tokens = {token for one in given_ones for token in one}
    assert counts.cut_tokens == len(tokens - {token for piece in pieces for token in piece})


@given(conversations(), st.integers(2, 9))
def test_split_every_supervised_token_is_learned_once_and_from_the_token_before_it(given_ones, max_length):
    _, pieces, counts = fitted_to(given_ones, max_length, "split")
    learned = [token for piece in pieces for token, mark in piece.items() if mark]
    assert sorted(learned) == [token for one in given_ones for token, mark in one.items() if mark]
    for piece in pieces:
        tokens = list(piece)
        assert len(tokens) <= max_length
        assert tokens == list(range(tokens[0], tokens[0] + len(tokens)))
        assert not piece[tokens[0]]
        assert any(piece.values())
    assert counts.dropped_unsupervised == 0


def test_split_pieces_overlap_by_one_token():
    whole = {token: token > 0 for token in range(10)}
    _, pieces, _ = fitted_to([whole], 4, "split")
    assert [list(piece) for piece in pieces] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert [list(piece.values()) for piece in pieces] == [[False, True, True, True]] * 3


def test_a_piece_in_which_nothing_is_learned_is_left_out():
    whole = {token: token in (2, 9) for token in range(10)}
    _, pieces, counts = fitted_to([whole], 4, "split")
    assert [list(piece) for piece in pieces] == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert counts == Fitted(split=1, cut_tokens=2)


def test_truncated_to_nothing_supervised_a_conversation_is_dropped():
    whole = {token: token == 9 for token in range(10)}
    assert fitted_to([whole], 4, "truncate") == ([], [], Fitted(dropped_unsupervised=1, cut_tokens=10))


@pytest.mark.parametrize("policy", ["error", "drop", "truncate", "split"])
def test_what_fits_stays_as_it_is(policy):
    given_ones = [{0: False, 1: True}, {2: False, 3: True, 4: False, 5: True}]
    assert fitted_to(given_ones, 4, policy) == ([0, 1], given_ones, Fitted())


def test_an_error_names_the_first_conversation_that_is_too_long_and_the_way_out():
    given_ones = [{0: False, 1: True}, {at: at > 2 for at in range(2, 7)}, {at: at > 7 for at in range(7, 19)}]
    with pytest.raises(UserError, match=r"chats\.jsonl:1 has 5 tokens, more than data\.max_length=4; .*drop, truncate"):
        fitted_to(given_ones, 4, "error")
