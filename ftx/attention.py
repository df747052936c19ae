"""Attention over packed rows: every segment sees itself and its past, and nothing of its neighbours.

One contract for all devices, that of ``transformers.AttentionInterface``: query ``[1, heads, tokens, head_dim]``, key
and value with their own number of heads, the borders of the segments as ``cu_seq_lens_q``; the result is
``[1, tokens, heads, head_dim]``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

PACKED_CPU = "ftx_packed_cpu"
# model.attention → the name under which transformers finds it.
IMPLEMENTATIONS = {"auto": PACKED_CPU, "cpu": PACKED_CPU}

# Below this many tokens a plain matmul–softmax–matmul is faster on a CPU, forward and backward, than the fused kernel.
PLAIN_UP_TO = 256


def packed_cpu_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Block-diagonal causal attention: segments of similar length are padded to one batch and attended together.

    Padding stands behind the real tokens, where causal attention never looks. Raises ValueError for a batch of rows, a
    cache, and a model that needs more than plain softmax attention.
    """
    unsupported = [name for name in ("softcap", "s_aux") if options.get(name) is not None]
    if unsupported:
        raise ValueError(
            f"this model's attention needs {', '.join(unsupported)}, which packed CPU attention does not have"
        )
    tokens = query.shape[2]
    if query.shape[0] != 1 or key.shape[2] != tokens:
        raise ValueError("packed attention takes one flat row and no cache: set_attn_implementation('sdpa') for others")
    borders = [0, tokens] if cu_seq_lens_q is None else cu_seq_lens_q.tolist()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    pieces, where = [], []
    for index in _groups(borders):
        real = index >= 0
        queries, keys, values = (_gather(part, index) for part in (query, key, value))
        attended = _causal(queries, keys, values, scale, dropout if module.training else 0.0, sliding_window)
        pieces.append(attended.transpose(1, 2).flatten(0, 1).index_select(0, real.flatten().nonzero()[:, 0]))
        where.append(index[real])
    order = torch.cat(where)
    return torch.cat(pieces).index_select(0, torch.argsort(order))[None], None


def _gather(part: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``[1, heads, tokens, dim]`` at ``[segments, longest]`` positions → ``[segments, heads, longest, dim]``.

    ``index_select``, because the backward of plain indexing is several times slower.
    """
    chosen = part[0].transpose(0, 1).index_select(0, index.clamp(min=0).flatten())
    return chosen.view(*index.shape, *chosen.shape[1:]).transpose(1, 2)


def _groups(borders: list[int]) -> list[torch.Tensor]:
    """Positions of the segments of similar length, ``[segments, longest]`` for each group, -1 where padded."""
    groups: dict[int, list[tuple[int, int]]] = {}
    for start, end in pairwise(borders):
        groups.setdefault((end - start - 1).bit_length(), []).append((start, end))
    indices = []
    for segments in groups.values():
        starts = torch.tensor([start for start, _ in segments])
        lengths = torch.tensor([end - start for start, end in segments])
        offsets = torch.arange(int(lengths.max()))
        indices.append(torch.where(offsets < lengths[:, None], starts[:, None] + offsets, -1))
    return indices


def _causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float, window: int | None
) -> torch.Tensor:
    """Causal attention within each of ``[segments, heads, longest, head_dim]``."""
    longest = query.shape[2]
    windowed = window is not None and window < longest
    repeats = query.shape[1] // key.shape[1]
    if longest > PLAIN_UP_TO and not windowed:
        return scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=repeats > 1
        )
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    hidden = torch.ones(longest, longest, dtype=torch.bool).triu(1)
    if windowed:
        hidden |= torch.ones(longest, longest, dtype=torch.bool).tril(-int(window or 0))
    scores = (query @ key.transpose(-1, -2) * scale).masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return drop(weights, dropout) @ value if dropout else weights @ value


def register() -> None:
    """Make the packed implementations known to transformers under their names."""
    AttentionInterface.register(PACKED_CPU, packed_cpu_attention)


@contextmanager
def unpacked_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model attends as generation needs it, with a cache and padded batches."""
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
