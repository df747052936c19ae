"""NEFTune (Jain et al., 2023): uniform noise on the embeddings while training, for each sample of a packed row its own.

Each sample's noise has the size that its own length gives it, and is drawn from seed, epoch and sample alone, so that
packing, micro-batches, ranks and resuming change nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ftx.config.schema import RunConfig
from ftx.counter_random import keys_of, random_bits
from ftx.data.store import Row

# The entry of a batch that the noise is made from: int64 ``[segments, 2]``, a key and a length for each segment.
NOISE = "noise"

Collator = Callable[[Sequence[Sequence[Row]]], dict[str, Any]]


def with_noise(collate: Collator, run: RunConfig) -> Collator:
    """``collate``, which flattens one micro-batch of rows, with the entry NOISE added where the run has any."""
    return collate if run.method.neftune_alpha is None else NoisyCollator(collate, run.seed)


@dataclass(frozen=True)
class NoisyCollator:
    """A collator whose batches say what the noise of their segments is drawn from; these must share no tokens."""

    collate: Collator
    seed: int

    def __call__(self, batch: Sequence[Sequence[Row]]) -> dict[str, Any]:
        (rows,) = batch
        drawn = [np.stack([keys_of(self.seed, row.epoch, row.samples), row.lengths], axis=1) for row in rows]
        # A micro-batch without rows is one segment of one token, which counts for nothing.
        noise = np.concatenate(drawn) if drawn else np.array([[0, 1]])
        return {**self.collate(batch), NOISE: torch.from_numpy(noise)}


@contextmanager
def noisy_embeddings(model: torch.nn.Module, alpha: float | None) -> Iterator[None]:
    """Within it ``model`` adds noise in training mode; batches need the entry NOISE. ``alpha=None``: no noise.

    Two hooks, which no saved model has: one takes the entry out of the batch before the model's forward sees it (the
    outermost one's, since peft calls the inner forward without hooks), one adds the noise to what the embedding layer
    gives out.
    """
    if alpha is None:
        yield
        return
    noise = _Noise(alpha)
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    handles = [
        model.register_forward_pre_hook(noise.take, with_kwargs=True),
        embeddings.register_forward_hook(noise.add),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _Noise:
    """What the two hooks share: the batch that is on its way."""

    alpha: float
    batch: dict[str, torch.Tensor] = field(default_factory=dict)

    def take(
        self, module: torch.nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.batch = {name: named[name] for name in (NOISE, "position_ids") if name in named}
        return positional, {name: value for name, value in named.items() if name != NOISE}

    def add(self, module: torch.nn.Module, positional: tuple[Any, ...], embedded: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return embedded
        if NOISE not in self.batch:
            raise RuntimeError(f"a batch without {NOISE} in training with NEFTune: it would be left out")
        noise = segment_noise(self.alpha, self.batch[NOISE], self.batch["position_ids"][0], embedded.shape[-1])
        return embedded + noise.to(embedded.dtype)


def segment_noise(alpha: float, drawn: torch.Tensor, positions: torch.Tensor, dimensions: int) -> torch.Tensor:
    """``[1, tokens, dimensions]``, uniform in ±alpha/√(length · dimensions) of each segment.

    ``drawn`` as in a batch's entry NOISE; ``positions`` ``[tokens]`` count within a segment.
    """
    keys, lengths = drawn.unbind(1)
    size = alpha / torch.sqrt(lengths.float() * dimensions)
    segment = torch.repeat_interleave(torch.arange(len(keys), device=keys.device), lengths, output_size=len(positions))
    # One word of bits makes two numbers: 16 bits each are more than the noise needs.
    bits = random_bits(keys[segment], positions, -(-dimensions // 2)).view(torch.int16)[:, :dimensions]
    return ((bits.float() + 0.5) * (size[segment] / 2**15)[:, None])[None]
