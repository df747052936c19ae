"""Conversations into rows of at most ``max_length`` tokens, none cut, as few rows as best-fit decreasing finds."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def pack(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Indices of ``lengths`` grouped into rows, by best-fit decreasing (Johnson, 1973); ties keep their order.

    The rows with a given free space are kept in a list, and an integer's bits say which lists are not empty, so that
    the tightest row for a length is the lowest set bit at or above it. Raises ValueError for a length that fits no row.
    """
    rows: list[list[int]] = []
    with_space: dict[int, list[int]] = {}
    occupied = 0
    for index in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        length = lengths[index]
        if length > max_length:
            raise ValueError(f"item {index} has {length} tokens, more than a row's {max_length}")
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


def pack_in_order(lengths: Sequence[int], max_length: int, window: int = 64) -> list[list[int]]:
    """As ``pack``, but what comes early stays early: items are packed among the next ``window`` rows' worth of tokens.

    Rows come in the order of the first item in them.
    """
    window_of_item = np.cumsum(lengths) // (window * max_length)
    borders = [0, *(np.flatnonzero(np.diff(window_of_item)) + 1).tolist(), len(lengths)]
    rows: list[list[int]] = []
    for begin, end in pairwise(borders):
        packed = pack(lengths[begin:end], max_length)
        rows += sorted(sorted(begin + at for at in row) for row in packed)
    return rows
