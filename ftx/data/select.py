"""Which conversations are learned from and which are kept aside, as positions in a conversation store."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ftx.config.schema import SourceConfig


@dataclass(frozen=True)
class Selection:
    """Positions of the training conversations in seeded order, and of the held-out ones."""

    train: np.ndarray
    held_out: np.ndarray


def split(groups: Sequence[int], *, holdout: float, seed: int) -> Selection:
    """Shuffled by ``seed``, then whole groups kept aside: a share of the conversations, or from 1 on so many.

    ``groups`` has a number for each conversation, 0 for the first group to appear and so on. At least one conversation
    stays on each side where there are two groups and ``holdout`` is above 0.
    """
    members: list[list[int]] = []
    for position, group in enumerate(groups):
        if group == len(members):
            members.append([])
        members[group].append(position)
    order = list(range(len(members)))
    random.Random(seed).shuffle(order)
    wanted = holdout if holdout >= 1 else holdout * len(groups)
    aside: list[int] = []
    train: list[int] = []
    for group in order:
        missing = max(wanted, 1) - len(aside)
        # One group must not make the share several times what was asked for.
        too_large = len(members[group]) > max(2 * missing, 1)
        goes_aside = holdout > 0 and missing > 0 and not too_large and not (group == order[-1] and not train)
        (aside if goes_aside else train).extend(members[group])
    if holdout > 0 and not aside and len(members) > 1:
        smallest = min(order, key=lambda group: len(members[group]))
        aside = members[smallest]
        train = [position for group in order if group != smallest for position in members[group]]
    random.Random(seed).shuffle(train)
    return Selection(np.array(train, dtype=np.int64), np.array(aside, dtype=np.int64))


def mixture_counts(sources: Mapping[str, SourceConfig], available: Mapping[str, int]) -> dict[str, int]:
    """How many conversations each source gives: its ``rows`` or all that there are, or its share by ``weight``.

    By weight the mixture is as large as it can be without taking a conversation twice.
    """
    weights = {name: source.weight for name, source in sources.items() if source.weight is not None}
    total = min((available[name] / weight for name, weight in weights.items()), default=0.0)
    # The nearest whole number, for 0.1 / 0.1 need not be 1; never more than there are.
    shares = {name: min(round(total * weight), available[name]) for name, weight in weights.items()}
    return {
        name: shares.get(name, min(source.rows or available[name], available[name])) for name, source in sources.items()
    }


def draw(begin: int, end: int, count: int, seed: Sequence[int]) -> np.ndarray:
    """``count`` positions from ``begin`` to before ``end``, ascending; all of them where that is how many there are."""
    if count == end - begin:
        return np.arange(begin, end)
    return begin + np.sort(np.random.default_rng(list(seed)).choice(end - begin, count, replace=False))
