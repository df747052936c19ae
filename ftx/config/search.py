"""Settings drawn for keys that were given an interval: the points of a Sobol sequence, one a run.

A few points of it lie evenly over all keys together, where points drawn at random leave gaps and come in clumps: with 8
runs each key has one value in every eighth of its interval. More runs are the same ones and some further, so a search
can be made longer. The seed moves all points, by a shift of their binary digits that leaves them as even as they were
(Sobol', 1967; a random digital shift as in L'Ecuyer and Lemieux, 2002). Nothing depends on a library's random numbers,
which another version of it may draw differently: the same words are the same runs anywhere.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ftx.errors import UserError

BITS = 30
# Of whole numbers the same ones come again: so many points for each run are looked at before giving up.
POINTS_A_RUN = 64
DIGITS = 3


@dataclass(frozen=True)
class Interval:
    """Where a key's values are drawn: evenly, or evenly on a logarithmic scale; whole numbers with both ends."""

    name: str
    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False

    def at(self, share: float) -> float | int:
        """The value at ``share`` (0 to 1) of the interval, to three digits, so that tables can be read."""
        end = self.high + self.is_whole
        if self.is_log:
            value = math.exp(math.log(self.low) + share * (math.log(end) - math.log(self.low)))
        else:
            value = self.low + share * (end - self.low)
        if self.is_whole:
            return min(math.floor(value), int(self.high))
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


def draw(intervals: Sequence[Interval], runs: int, seed: int) -> list[dict[str, float | int]]:
    """Values for each key, by its name, of so many runs that all differ.

    Raises UserError where the intervals do not have that many.
    """
    # By name: the order of the words does not count.
    intervals = sorted(intervals, key=lambda interval: interval.name)
    names = [interval.name for interval in intervals]
    exponent = (runs - 1).bit_length()
    while True:
        different: dict[tuple[float | int, ...], None] = {}
        for shares in points(names, exponent, seed):
            different[tuple(interval.at(share) for interval, share in zip(intervals, shares, strict=True))] = None
        if len(different) >= runs:
            return [dict(zip(names, values, strict=True)) for values in list(different)[:runs]]
        if 1 << exponent >= POINTS_A_RUN * runs:
            raise UserError(
                f"search.runs={runs}: {len(different)} different settings were found of {', '.join(names)}; "
                "ask for fewer"
            )
        exponent += 1


def points(names: Sequence[str], exponent: int, seed: int) -> list[list[float]]:
    """The first ``2**exponent`` points of the shifted sequence in as many dimensions as there are names."""
    from scipy.stats import qmc

    even = qmc.Sobol(len(names), scramble=False, bits=BITS).random_base2(exponent)
    shifts = [_shift(name, seed) for name in names]
    scale = 1 << BITS
    return [
        [((int(share * scale) ^ shift) + 0.5) / scale for share, shift in zip(point, shifts, strict=True)]
        for point in even
    ]


def _shift(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8]) >> (64 - BITS)
