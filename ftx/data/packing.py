"""Conversations into rows of at most ``max_length`` tokens, none cut, as few rows as best-fit decreasing finds."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np


def pack(
    lengths: Sequence[int] | np.ndarray, max_length: int, on_done: Callable[[int], None] | None = None
) -> list[list[int]]:
    """Indices of ``lengths`` grouped into rows, by best-fit decreasing (Johnson, 1973); ties keep their order.

    The rows with a given free space are kept in a list, and an integer's bits say which lists are not empty, so that
    the tightest row for a length is the lowest set bit at or above it. Raises ValueError for a length that fits no row.
    ``on_done`` hears now and then how many items have found their row.
    """
    sizes = _checked(lengths, max_length)
    rows: list[list[int]] = []
    with_space: dict[int, list[int]] = {}
    occupied = 0
    for done, index in enumerate(sorted(range(len(sizes)), key=lambda at: -sizes[at])):
        if on_done is not None and done % 2**16 == 0:
            on_done(done)
        length = sizes[index]
        tighter = occupied >> length
        if tighter:
            space = length + (tighter & -tighter).bit_length() - 1
            row = with_space[space].pop()
            if not with_space[space]:
                occupied ^= 1 << space
        else:
            space, row = max_length, len(rows)
            rows.append([])
        rows[row].append(index)
        left = space - length
        with_space.setdefault(left, []).append(row)
        occupied |= 1 << left
    return rows


def pack_in_order(lengths: Sequence[int] | np.ndarray, max_length: int, window: int = 64) -> list[list[int]]:
    """As ``pack``, but what comes early stays early: items are packed among the next ``window`` rows' worth of tokens.

    Rows come in the order of the first item in them.
    """
    sizes = _checked(lengths, max_length)
    window_of_item = np.cumsum(sizes) // (window * max_length)
    borders = [0, *(np.flatnonzero(np.diff(window_of_item)) + 1).tolist(), len(sizes)]
    rows: list[list[int]] = []
    for begin, end in pairwise(borders):
        packed = pack(sizes[begin:end], max_length)
        rows += sorted(sorted(begin + at for at in row) for row in packed)
    return rows


def _checked(lengths: Sequence[int] | np.ndarray, max_length: int) -> list[int]:
    """As Python's own integers, whose bits do not end at the 64th."""
    sizes = np.asarray(lengths, dtype=np.int64)
    if len(sizes) and sizes.max() > max_length:
        index = int(np.argmax(sizes > max_length))
        raise ValueError(f"item {index} has {sizes[index]} tokens, more than a row's {max_length}")
    return sizes.tolist()
