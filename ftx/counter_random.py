"""Random bits as a function of counters: the same on every device, however the work is cut, with nothing to store.

32-bit integers that wrap, because these are what a GPU multiplies fast. The mixing constants are those of ``lowbias32``
(Wellons, 2018), found by search for the least bias of any two-round function; of ``splitmix64`` (Steele et al., 2014).
"""

import numpy as np
import torch

_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - 2**32
_LOW_32 = 0xFFFFFFFF


def keys_of(*counters: int | np.ndarray) -> np.ndarray:
    """One 64-bit key for each combination of ``counters`` (broadcast); their order matters."""
    key = np.zeros(1, dtype=np.uint64)
    for counter in counters:
        value = np.atleast_1d(np.asarray(counter, dtype=np.int64)).view(np.uint64)
        key = _splitmix(key ^ _splitmix(value))
    return key.view(np.int64)


def random_bits(keys: torch.Tensor, counters: torch.Tensor, columns: int) -> torch.Tensor:
    """``[len(keys), columns]`` int32, all 32 bits random: a function of each row's key and counter, and of the column.

    ``keys`` int64, ``counters`` integers, on one device. Two words made of key and counter go in at different places,
    so that rows whose first words happen to be alike differ all the same.
    """
    mixed = keys ^ (counters.to(torch.int64) * -7046029254386353131)  # the golden ratio's 64 bits: 0x9E3779B97F4A7C15
    first, second = _mixed_words(mixed)
    across = _finish(torch.arange(1, columns + 1, dtype=torch.int32, device=keys.device) * -1640531527)
    bits = first[:, None] + across[None, :]
    bits ^= (bits >> 16) & 0xFFFF
    bits *= _FIRST
    bits += second[:, None]
    bits ^= (bits >> 15) & 0x1FFFF
    bits *= _SECOND
    bits ^= (bits >> 16) & 0xFFFF
    return bits


def _mixed_words(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two 32-bit words, each a function of all 64 bits."""
    low, high = _signed_32(values & _LOW_32), _signed_32((values >> 32) & _LOW_32)
    first = _finish(low ^ _finish(high))
    return first, _finish(high ^ first)


def _signed_32(values: torch.Tensor) -> torch.Tensor:
    """The low 32 bits of int64 as int32, whatever a device does with what does not fit."""
    return torch.where(values >= 2**31, values - 2**32, values).to(torch.int32)


def _finish(bits: torch.Tensor) -> torch.Tensor:
    """``lowbias32``; the masks make torch's arithmetic shift a logical one."""
    bits = bits ^ ((bits >> 16) & 0xFFFF)
    bits = bits * _FIRST
    bits = bits ^ ((bits >> 15) & 0x1FFFF)
    bits = bits * _SECOND
    return bits ^ ((bits >> 16) & 0xFFFF)


def _splitmix(value: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
