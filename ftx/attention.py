"""Attention over packed rows: every segment sees itself and its past, and nothing of its neighbours.

One contract for all devices, that of ``transformers.AttentionInterface``: query ``[1, heads, tokens, head_dim]``, key
and value with their own number of heads, ``segments`` as the collator made them; the result is
``[1, tokens, heads, head_dim]``. Compiled layers call it outside their graph.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.functional import dropout as drop
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from ftx.config.schema import RunConfig
from ftx.data.segments import Segments
from ftx.errors import UserError

PACKED_CPU, PACKED_VARLEN, PACKED_FLASH = "ftx_packed_cpu", "ftx_packed_varlen", "ftx_packed_flash"
# model.attention → the name under which transformers finds it.
IMPLEMENTATIONS = {"cpu": PACKED_CPU, "varlen": PACKED_VARLEN, "flash": PACKED_FLASH}

# Other layers carry a state, or convolve, along the whole row.
PACKABLE_LAYERS = {"full_attention", "sliding_attention"}

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


@dataclass(frozen=True)
class Options:
    """What a model asks of its attention besides being causal."""

    scale: float
    dropout: float
    window: int | None


# Queries, keys and values ``[tokens, heads, head_dim]`` → ``[tokens, heads, head_dim]``.
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Segments, Options], torch.Tensor]


def packed(kernel: Kernel) -> Callable[..., tuple[torch.Tensor, None]]:
    """An attention function of transformers around ``kernel``.

    It raises ValueError for a batch of rows, a cache, and a model that needs more than plain softmax attention.
    """

    @torch.compiler.disable
    def attention(
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
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        unsupported = [name for name in ("softcap", "s_aux") if others.get(name) is not None]
        if unsupported:
            needs = ", ".join(unsupported)
            raise ValueError(f"this model's attention needs {needs}, which packed attention does not have")
        tokens = query.shape[2]
        if query.shape[0] != 1 or key.shape[2] != tokens:
            raise ValueError(
                "packed attention takes one flat row and no cache: set_attn_implementation('sdpa') for others"
            )
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        options = Options(scale, dropout if module.training else 0.0, sliding_window)
        segments = segments or Segments((0, tokens), device=query.device)
        # Token by token, since a model's projections lie so in memory.
        q, k, v = (_as_computed(part[0].transpose(0, 1)) for part in (query, key, value))
        return kernel(q, k, v, segments, options)[None], None

    return attention


def _as_computed(part: torch.Tensor) -> torch.Tensor:
    """In autocast's type, where it is on: queries and keys come out of norms in 32 bits, which no GPU kernel takes."""
    device = part.device.type
    return part.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else part


def _block_diagonal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, options: Options
) -> torch.Tensor:
    """In plain torch: segments of similar length are padded to one batch and attended together."""
    attended = []
    for group in segments.alike:
        q, k, v = _gather(query, group.queries), _gather(key, group.keys), _gather(value, group.keys)
        attended.append(_causal(q, k, v, options).transpose(1, 2).flatten(0, 1))
    return torch.cat(attended).index_select(0, segments.places)


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, options: Options
) -> torch.Tensor:
    """FlashAttention as PyTorch brings it, which has no dropout."""
    from torch.nn.attention.varlen import varlen_attn

    if options.dropout:
        raise ValueError("varlen attention has no dropout: model.attention=flash does")
    attended = varlen_attn(
        *_laid_out(query, key, value, segments),
        scale=options.scale,
        window_size=_window(options),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, torch.Tensor)
    return attended


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, options: Options
) -> torch.Tensor:
    """FlashAttention of the flash-attn package."""
    from flash_attn import flash_attn_varlen_func

    attended: torch.Tensor = flash_attn_varlen_func(
        *_laid_out(query, key, value, segments),
        dropout_p=options.dropout,
        softmax_scale=options.scale,
        causal=True,
        window_size=_window(options),
    )
    return attended


def _laid_out(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments) -> tuple[Any, ...]:
    """What FlashAttention takes first: queries, keys and values, the borders of both, the most a segment has of both.

    Before each segment's keys and values come those that it shares. Causal FlashAttention lines the last query up with
    the last key, so that every query sees what is shared.
    """
    positions = segments.key_positions
    if positions is not None:
        key, value = key.index_select(0, positions), value.index_select(0, positions)
    longest = (segments.longest, segments.shared + segments.longest)
    return query, key, value, segments.query_borders, segments.key_borders, *longest


def _window(options: Options) -> tuple[int, int]:
    """Causal; a window of n tokens counts the query's own."""
    return (-1 if options.window is None else options.window - 1, 0)


def _gather(part: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``[tokens, heads, dim]`` at ``[segments, longest]`` positions → ``[segments, heads, longest, dim]``.

    ``index_select``, because the backward of plain indexing is several times slower.
    """
    chosen = part.index_select(0, index.clamp(min=0).flatten())
    return chosen.view(*index.shape, *chosen.shape[1:]).transpose(1, 2)


def _causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: Options) -> torch.Tensor:
    """Causal attention within each of ``[segments, heads, longest, head_dim]``; the last query sees the last key."""
    own, seen = query.shape[2], key.shape[2]
    windowed = options.window is not None and options.window < seen
    repeats = query.shape[1] // key.shape[1]
    if own > PLAIN_UP_TO and not windowed:
        mask = None if own == seen else torch.ones(own, seen, dtype=torch.bool, device=query.device).tril(seen - own)
        return scaled_dot_product_attention(
            query,
            key,
            value,
            mask,
            dropout_p=options.dropout,
            is_causal=mask is None,
            scale=options.scale,
            enable_gqa=repeats > 1,
        )
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    hidden = torch.ones(own, seen, dtype=torch.bool, device=query.device).triu(seen - own + 1)
    if windowed:
        hidden |= torch.ones_like(hidden).tril(seen - own - int(options.window or 0))
    scores = (query @ key.transpose(-1, -2) * options.scale).masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (drop(weights, options.dropout) if options.dropout else weights) @ value


packed_cpu_attention = packed(_block_diagonal)
packed_varlen_attention = packed(_varlen)
packed_flash_attention = packed(_flash)


def check_packable(model: PreTrainedModel) -> None:
    """Raise UserError for a model that would look across the borders of packed conversations."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - PACKABLE_LAYERS
    if kinds:
        reason = f"its layers of {', '.join(sorted(kinds))} know no borders between the conversations of a row"
    elif not getattr(model, "_supports_attention_backend", False):
        reason = "its attention cannot be replaced by one that keeps the conversations of a row apart"
    else:
        return
    raise UserError(f"model.name={config._name_or_path}: {config.model_type} cannot be trained here, {reason}")


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
