"""Model FLOPs, and the share of the devices' peak that training reaches (MFU; PaLM, arXiv:2204.02311, appendix B).

A matrix product of ``[n, a]`` and ``[a, b]`` takes 2·n·a·b FLOPs. A linear layer with p parameters takes for each token
that it sees 2p forward, 2p for the gradient of its input, and 2p for that of its weights where they are trained: 6p, or
4p for frozen weights under an adapter. The layers see every token, the head supervised positions only; looking up
embeddings is no product. Attention, per layer and segment of n tokens: scores and values take 4·heads·head_dim FLOPs
for each pair of positions forward and twice that backward, over the n²/2 pairs that causal attention looks at (a window
w < n leaves out (n-w)²/2 of them), so 6·heads·head_dim·n². What conversations share is counted as often as it is
computed. What activation checkpointing computes again is not counted, nor are norms, activations and the optimizer.

MFU = model FLOPs of the steps / (their seconds · ranks · peak FLOP/s of a device).
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from ftx.data.order import TrainingOrder

log = logging.getLogger(__name__)

PER_PAIR = 12


@dataclass(frozen=True)
class FlopRates:
    """Forward and backward FLOPs: of the layers per token, of the head per supervised position, and of attention per
    pair of positions as ``{window: FLOPs}`` over the layers that look back so far (None: to the beginning)."""

    per_token: float
    per_target: float
    per_pair: dict[int | None, float]

    def of_prefix(self, tokens: int) -> float:
        """Of so many tokens at the beginning of a segment, none of which is supervised."""
        lengths = np.array([tokens])
        pairs = (per_pair * attended_pairs(lengths, window)[0] for window, per_pair in self.per_pair.items())
        return tokens * self.per_token + float(sum(pairs))


@dataclass(frozen=True)
class Sharing:
    """A beginning of so many tokens that all conversations have, computed once in each micro-batch with rows;
    ``micro_batches`` tells how many of these a step has, counted from 0 over all epochs."""

    tokens: int
    micro_batches: Callable[[int], int]


def flop_rates(model: Any) -> FlopRates | None:
    """Of a decoder made of linear layers and softmax attention, with or without adapters; None for other models."""
    text = model.config.get_text_config()
    kinds = _layer_kinds(text)
    if not kinds or _matrices_elsewhere(model):
        return None
    head = set(model.get_output_embeddings().modules())
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    return FlopRates(
        per_token=sum(_per_token(module) for module in linear if module not in head),
        per_target=sum(_per_token(module) for module in linear if module in head),
        per_pair={window: PER_PAIR * heads * head_dim * layers for window, layers in kinds.items()},
    )


def _per_token(layer: nn.Linear) -> float:
    """By its shape: quantised and shared-out weights have other numbers of elements."""
    return (6 if layer.weight.requires_grad else 4) * layer.in_features * layer.out_features


def _layer_kinds(text: Any) -> dict[int | None, int]:
    """How many layers look back how far; {} where a layer is something else."""
    layers = getattr(text, "num_hidden_layers", None)
    if not layers or not getattr(text, "num_attention_heads", None):
        return {}
    windows = {"full_attention": None, "sliding_attention": getattr(text, "sliding_window", None)}
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        return {windows["sliding_attention"]: layers}
    return dict(Counter(windows[kind] for kind in kinds)) if set(kinds) <= set(windows) else {}


def _matrices_elsewhere(model: nn.Module) -> list[str]:
    """Matrices that belong to neither a linear layer nor an embedding, as a mixture of experts has them."""
    modules = ((name, module) for name, module in model.named_modules() if not isinstance(module, _KNOWN))
    owned: Iterable[tuple[str, nn.Parameter]] = chain.from_iterable(
        ((f"{name}.{own}", weights) for own, weights in module.named_parameters(recurse=False))
        for name, module in modules
    )
    return [name for name, weights in owned if weights.ndim > 1]


_KNOWN = (nn.Linear, nn.Embedding)


def attended_pairs(lengths: np.ndarray, window: int | None) -> np.ndarray:
    """Pairs of positions that causal attention looks at in segments of these lengths, by area: n²/2 for n tokens."""
    tokens = lengths.astype(np.float64)
    beyond = np.maximum(tokens - window, 0) if window else 0.0
    return (tokens**2 - beyond**2) / 2


class Utilisation:
    """MFU of one training; ``read`` gives None throughout where the peak or the model's FLOPs are not known."""

    def __init__(
        self, order: TrainingOrder, model: torch.nn.Module, peak: float | None, sharing: Sharing | None = None
    ) -> None:
        """``peak``: FLOP/s of all devices together."""
        self._order, self._peak, self._sharing = order, peak, sharing
        self._rates = flop_rates(model) if peak else None
        if self._rates:
            self._of_items = flops_of_items(order, self._rates)
            self._conversations = np.diff(order.items.starts)
        elif peak:
            log.warning("mfu stays empty: this model is not made of linear layers and softmax attention alone")

    def read(self, first: int, last: int, seconds: float) -> float | None:
        """Of the steps after ``first`` up to ``last``, which took so many seconds."""
        if not self._peak or not self._rates:
            return None
        items = self._order.items_between(first, last)
        flops = float(self._of_items[items].sum())
        if self._sharing:
            computed = sum(self._sharing.micro_batches(step) for step in range(first, last))
            flops -= (int(self._conversations[items].sum()) - computed) * self._rates.of_prefix(self._sharing.tokens)
        return flops / (seconds * self._peak)


def flops_of_items(order: TrainingOrder, rates: FlopRates) -> np.ndarray:
    """Of each item of the order: tokens, supervised positions and attended pairs, times their rates."""
    items = order.items
    tokens, targets = items.token_counts().T
    attention = [
        per_pair * items.sums(attended_pairs(items.tokens.lengths, window))
        for window, per_pair in rates.per_pair.items()
    ]
    return tokens * rates.per_token + targets * rates.per_target + sum(attention)
