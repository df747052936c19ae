"""Where the segments of a flat row lie: all that attention has to know about a micro-batch, worked out once for it."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch


@dataclass(frozen=True)
class Alike:
    """Segments of similar length, padded to one batch; -1 where padded.

    ``queries`` ``[segments, longest]`` and ``keys`` ``[segments, shared + longest]`` are positions in the row. Query i
    sees the keys up to shared + i: padding stands behind the real tokens, where it is not looked at.
    """

    queries: torch.Tensor
    keys: torch.Tensor

    @property
    def shared(self) -> int:
        return self.keys.shape[1] - self.queries.shape[1]


@dataclass(frozen=True)
class Segments:
    """``borders``: where each segment begins, and the end of the last one.

    With ``shared`` > 0 the first segment is the beginning of all others, computed once: each of them attends to it and
    to itself. Trainer moves it to the model's device as it does with tensors.
    """

    borders: tuple[int, ...]
    shared: int = 0
    device: torch.device | None = None

    def to(self, device: Any, **_: Any) -> "Segments":
        return Segments(self.borders, self.shared, torch.device(device))

    @property
    def longest(self) -> int:
        """Tokens of the longest segment, without what it shares."""
        return max(end - start for start, end in pairwise(self.borders))

    @cached_property
    def query_borders(self) -> torch.Tensor:
        """int32 ``[segments + 1]``, as FlashAttention takes them."""
        return torch.tensor(self.borders, dtype=torch.int32, device=self.device)

    @cached_property
    def key_borders(self) -> torch.Tensor:
        """The same for the keys that ``key_positions`` puts one after another."""
        if not self.shared:
            return self.query_borders
        before = torch.arange(len(self.borders), device=self.device) - 1
        return self.query_borders + (before.clamp(min=0) * self.shared).to(torch.int32)

    @cached_property
    def key_positions(self) -> torch.Tensor | None:
        """Where each segment's keys lie in the row, the shared ones before its own; None where nothing is shared."""
        if not self.shared:
            return None
        shared = torch.arange(self.shared)
        pieces = [shared]
        for start, end in pairwise(self.borders[1:]):
            pieces += [shared, torch.arange(start, end)]
        return torch.cat(pieces).to(self.device)

    @cached_property
    def alike(self) -> tuple[Alike, ...]:
        """Every segment in exactly one group, those that share nothing first."""
        spans = list(pairwise(self.borders))
        apart, sharing = (spans[:1], spans[1:]) if self.shared else (spans, [])
        return tuple(self._group(group, 0) for group in _by_length(apart)) + tuple(
            self._group(group, self.shared) for group in _by_length(sharing)
        )

    @cached_property
    def places(self) -> torch.Tensor:
        """Of every token, its place among the padded queries of all groups put one after another."""
        queries = torch.cat([group.queries.flatten() for group in self.alike])
        real = (queries >= 0).nonzero()[:, 0]
        places = torch.empty(self.borders[-1], dtype=torch.long, device=self.device)
        places[queries[real]] = real
        return places

    def _group(self, spans: list[tuple[int, int]], shared: int) -> Alike:
        starts = torch.tensor([start for start, _ in spans])
        lengths = torch.tensor([end - start for start, end in spans])
        offsets = torch.arange(int(lengths.max()))
        queries = torch.where(offsets < lengths[:, None], starts[:, None] + offsets, -1)
        keys = torch.cat([torch.arange(shared).expand(len(spans), shared), queries], dim=1)
        return Alike(queries.to(self.device), keys.to(self.device))


def _by_length(spans: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Segments whose lengths are at most a quarter apart, or within a step of 16 tokens."""
    groups: list[list[tuple[int, int]]] = []
    for span in sorted(spans, key=lambda span: span[0] - span[1]):
        length = span[1] - span[0]
        longest = groups[-1][0][1] - groups[-1][0][0] if groups else 0
        if groups and longest <= max(length * 1.25, length + 16):
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups
