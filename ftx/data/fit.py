"""Conversations longer than ``data.max_length``: an error, dropped, truncated or split, and counted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftx.data.encode import TokenBatch, runs_of
from ftx.data.tokenize import marks_of
from ftx.errors import UserError


@dataclass
class Fitted:
    """What became of conversations that were too long; ``cut_tokens`` are in no row."""

    dropped_too_long: int = 0
    dropped_unsupervised: int = 0
    truncated: int = 0
    split: int = 0
    cut_tokens: int = 0


def fit(
    ids: Sequence[str], batch: TokenBatch, *, max_length: int, policy: str, fitted: Fitted
) -> tuple[np.ndarray, TokenBatch]:
    """The batch with no conversation longer than ``max_length``, and which of ``ids`` each of its entries comes from.

    Split, a conversation becomes pieces that overlap by one token, so that each token is predicted from the one before
    it and none is lost. A piece in which nothing is supervised is left out. Raises UserError for ``policy=error``.
    """
    too_long = batch.lengths > max_length
    if not too_long.any():
        return np.arange(len(ids)), batch
    if policy == "error":
        at = int(np.argmax(too_long))
        raise UserError(
            f"{ids[at]} has {batch.lengths[at]} tokens, more than data.max_length={max_length}; raise it, or say "
            "data.too_long=drop, truncate or split"
        )
    tokens = np.split(batch.input_ids, np.cumsum(batch.lengths)[:-1])
    runs = np.split(batch.runs, np.cumsum(batch.run_counts)[:-1])
    kept: list[tuple[int, np.ndarray, np.ndarray]] = []
    for at, is_long in enumerate(too_long):
        if not is_long:
            kept.append((at, tokens[at], runs[at]))
        elif policy == "drop":
            fitted.dropped_too_long += 1
            fitted.cut_tokens += len(tokens[at])
        else:
            kept += [(at, *piece) for piece in _pieces(tokens[at], marks_of(runs[at]), max_length, policy, fitted)]
    pieces = [one[1] for one in kept] or [np.zeros(0, dtype=np.int32)]
    kept_runs = [one[2] for one in kept] or [np.zeros(0, dtype=np.int64)]
    return np.array([one[0] for one in kept], dtype=np.int64), TokenBatch(
        np.concatenate(pieces),
        np.array([len(one[1]) for one in kept], dtype=np.int64),
        np.concatenate(kept_runs),
        np.array([len(one[2]) for one in kept], dtype=np.int64),
    )


def _pieces(
    tokens: np.ndarray, supervised: np.ndarray, max_length: int, policy: str, fitted: Fitted
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens and runs of what is kept of one conversation."""
    starts = [0] if policy == "truncate" else range(0, len(tokens) - 1, max_length - 1)
    kept = []
    covered = end = 0
    for start in starts:
        marks = supervised[start : start + max_length].copy()
        marks[0] = False
        if marks.any():
            kept.append((tokens[start : start + max_length], runs_of(marks)))
            covered += start + len(marks) - max(start, end)
            end = start + len(marks)
    fitted.cut_tokens += len(tokens) - covered
    if not kept:
        fitted.dropped_unsupervised += 1
    elif policy == "truncate":
        fitted.truncated += 1
    else:
        fitted.split += 1
    return kept
