"""Attention over packed rows: every segment sees itself and its past, and nothing of its neighbours.

One contract for all devices, that of ``transformers.AttentionInterface``: query ``[1, heads, tokens, head_dim]``, key
and value with their own number of heads, ``segments`` as the collator made them; the result is
``[1, tokens, heads, head_dim]``. Compiled layers call it outside their graph.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from ftx.config.schema import RunConfig
from ftx.data.segments import Alike, Segments

PACKED_CPU, PACKED_VARLEN, PACKED_FLASH = "ftx_packed_cpu", "ftx_packed_varlen", "ftx_packed_flash"
# model.attention → the name under which transformers finds it.
IMPLEMENTATIONS = {"cpu": PACKED_CPU, "varlen": PACKED_VARLEN, "flash": PACKED_FLASH}

# Up to this many tokens a plain matmul–softmax–matmul is faster on a CPU, forward and backward, than the fused kernel.
PLAIN_UP_TO = 256


def implementation(run: RunConfig) -> str:
    """transformers' name for what ``model.attention`` comes to; the GPU kernels take 16-bit numbers only."""
    choice = run.model.attention
    if choice == "auto":
        if run.hardware.device == "cpu" or run.hardware.precision == "fp32":
            choice = "cpu"
        else:
            choice = "flash" if find_spec("flash_attn") else "varlen"
    return IMPLEMENTATIONS[choice]


@torch.compiler.disable
def packed_cpu_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Block-diagonal causal attention in plain torch: segments of similar length are padded and attended together.

    Raises ValueError for a batch of rows, a cache, and a model that needs more than plain softmax attention.
    """
    segments = _checked(query, key, segments, options)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Token by token, since a model's projections lie so in memory: the rows to gather are whole.
    parts = [part[0].transpose(0, 1) for part in (query, key, value)]
    dropout = dropout if module.training else 0.0
    attended = []
    for group in segments.alike:
        q, k, v = _gather(parts, group)
        attended.append(_causal(q, k, v, scale, dropout, sliding_window).transpose(1, 2).flatten(0, 1))
    return torch.cat(attended).index_select(0, segments.places)[None], None


@torch.compiler.disable
def packed_varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """FlashAttention as PyTorch brings it. Raises ValueError as the CPU's does, and for dropout, which it lacks."""
    from torch.nn.attention.varlen import varlen_attn

    segments = _checked(query, key, segments, options)
    if dropout and module.training:
        raise ValueError("varlen attention has no dropout: model.attention=flash does")
    q, k, v = _flat(query, key, value, segments)
    attended = varlen_attn(
        q,
        k,
        v,
        segments.query_borders,
        segments.key_borders,
        segments.longest,
        segments.shared + segments.longest,
        scale=scaling,
        window_size=_window(sliding_window),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, torch.Tensor)
    return attended[None], None


@torch.compiler.disable
def packed_flash_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """FlashAttention of the flash-attn package. Raises ValueError as the CPU's does."""
    from flash_attn import flash_attn_varlen_func

    segments = _checked(query, key, segments, options)
    q, k, v = _flat(query, key, value, segments)
    attended = flash_attn_varlen_func(
        q,
        k,
        v,
        segments.query_borders,
        segments.key_borders,
        segments.longest,
        segments.shared + segments.longest,
        dropout_p=dropout if module.training else 0.0,
        softmax_scale=scaling,
        causal=True,
        window_size=_window(sliding_window),
    )
    return attended[None], None


def _checked(query: torch.Tensor, key: torch.Tensor, segments: Segments | None, options: dict[str, Any]) -> Segments:
    unsupported = [name for name in ("softcap", "s_aux") if options.get(name) is not None]
    if unsupported:
        raise ValueError(f"this model's attention needs {', '.join(unsupported)}, which packed attention does not have")
    tokens = query.shape[2]
    if query.shape[0] != 1 or key.shape[2] != tokens:
        raise ValueError("packed attention takes one flat row and no cache: set_attn_implementation('sdpa') for others")
    return segments or Segments((0, tokens), device=query.device)


def _flat(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``[tokens, heads, head_dim]``; before each segment's keys and values come those that it shares.

    Causal FlashAttention lines the last query up with the last key, so that every query sees what is shared.
    """
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    if (positions := segments.key_positions) is not None:
        k, v = k.index_select(0, positions), v.index_select(0, positions)
    return q, k, v


def _window(sliding_window: int | None) -> tuple[int, int]:
    """Causal; a window of n tokens counts the query's own."""
    return (-1 if sliding_window is None else sliding_window - 1, 0)


def _gather(parts: list[torch.Tensor], group: Alike) -> list[torch.Tensor]:
    """``[tokens, heads, dim]`` at the group's positions → ``[segments, heads, longest, dim]``.

    ``index_select``, because the backward of plain indexing is several times slower.
    """
    gathered = []
    for part, index in zip(parts, (group.queries, group.keys, group.keys), strict=True):
        chosen = part.index_select(0, index.clamp(min=0).flatten())
        gathered.append(chosen.view(*index.shape, *chosen.shape[1:]).transpose(1, 2))
    return gathered


def _causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float, window: int | None
) -> torch.Tensor:
    """Causal attention within each of ``[segments, heads, longest, head_dim]``; the last query sees the last key."""
    own, seen = query.shape[2], key.shape[2]
    windowed = window is not None and window < seen
    repeats = query.shape[1] // key.shape[1]
    if own > PLAIN_UP_TO and not windowed:
        mask = None if own == seen else torch.ones(own, seen, dtype=torch.bool, device=query.device).tril(seen - own)
        return scaled_dot_product_attention(
            query, key, value, mask, dropout_p=dropout, is_causal=mask is None, scale=scale, enable_gqa=repeats > 1
        )
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    hidden = torch.ones(own, seen, dtype=torch.bool, device=query.device).triu(seen - own + 1)
    if windowed:
        hidden |= torch.ones(own, seen, dtype=torch.bool, device=query.device).tril(seen - own - int(window or 0))
    scores = (query @ key.transpose(-1, -2) * scale).masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return drop(weights, dropout) @ value if dropout else weights @ value


def register() -> None:
    """Make the packed implementations known to transformers under their names."""
    AttentionInterface.register(PACKED_CPU, packed_cpu_attention)
    AttentionInterface.register(PACKED_VARLEN, packed_varlen_attention)
    AttentionInterface.register(PACKED_FLASH, packed_flash_attention)


@contextmanager
def unpacked_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model attends as generation needs it, with a cache and padded batches."""
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
