"""Optimizers beyond those that Trainer knows by name, and a warning where bf16 weights would not move."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from ftx.config.schema import RunConfig
from ftx.counter_random import keys_of

# Numbers of a tensor that are worked on at a time: temporaries in 32 bits stay small beside the weights.
CHUNK = 2**24
SAMPLED = 2**16


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter, 2019) whose results are rounded to bf16 up or down at random, right on average.

    Weights in bf16 have 8 significant bits: rounded to the nearest, a step below 1/512 of a weight is lost however
    often it is taken. The moments are kept in bf16 too, as the memory that this saves is why one trains without 32-bit
    weights, and rounded in the same way: with beta2=0.999 a second moment rounded to the nearest could never shrink.
    The draws follow from ``seed`` and the number of the step, so that a resumed training goes on as it would have.
    Tensors in other types are not rounded.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is None:
                    continue
                state = self.state[weights]
                if not state:
                    state |= {"step": 0, "exp_avg": torch.zeros_like(weights), "exp_avg_sq": torch.zeros_like(weights)}
                state["step"] += 1
                if weights.device not in generators:
                    generators[weights.device] = torch.Generator(weights.device)
                    generators[weights.device].manual_seed(int(keys_of(self._seed, state["step"])[0]))
                _update(weights, state, group, generators[weights.device])
        return loss


def _update(weights: torch.Tensor, state: dict[str, Any], group: dict[str, Any], generator: torch.Generator) -> None:
    """One step of one tensor, computed in 32 bits."""
    rate, (beta1, beta2) = group["lr"], group["betas"]
    correction = math.sqrt(1 - beta2 ** state["step"])
    step_size = rate / (1 - beta1 ** state["step"])
    stored = (weights, weights.grad, state["exp_avg"], state["exp_avg_sq"])
    for chunk, gradient, mean, square in _chunks(*stored):
        exact = gradient.float()
        new_mean = mean.float().lerp_(exact, 1 - beta1)
        new_square = square.float().mul_(beta2).addcmul_(exact, exact, value=1 - beta2)
        moved = chunk.float().mul_(1 - rate * group["weight_decay"])
        moved.addcdiv_(new_mean, (new_square.sqrt() / correction).add_(group["eps"]), value=-step_size)
        for target, value in ((chunk, moved), (mean, new_mean), (square, new_square)):
            _store(target, value, generator)


def _chunks(*tensors: torch.Tensor | None) -> Iterator[tuple[torch.Tensor, ...]]:
    """Tensors of one shape as flat pieces of at most CHUNK numbers, which share their memory."""
    flat = [tensor.view(-1) for tensor in tensors if tensor is not None]
    for start in range(0, flat[0].numel(), CHUNK):
        yield tuple(tensor[start : start + CHUNK] for tensor in flat)


def _store(target: torch.Tensor, value: torch.Tensor, generator: torch.Generator) -> None:
    target.copy_(round_stochastically(value, generator) if target.dtype == torch.bfloat16 else value)


def round_stochastically(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """fp32 → bf16: to one of the two neighbours, the nearer one the likelier, so that the expectation is the value.

    bf16 is the upper half of fp32's bits: a random number added to the lower half carries over into the upper one as
    often as the lower half is large. ``values`` is used up.
    """
    words = -(-values.numel() // 2)
    drawn = torch.empty(words, dtype=torch.int32, device=values.device)
    drawn.random_(-(2**31), 2**31, generator=generator)
    bits = values.view(torch.int32)
    bits += drawn.view(torch.int16)[: values.numel()].view(values.shape).to(torch.int32) & 0xFFFF
    bits &= -(2**16)
    return values.to(torch.bfloat16)


def own_optimizer(run: RunConfig) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """What Trainer takes in place of an optimizer that it knows by name."""
    if not run.method.stochastic_rounding:
        return None
    method = run.method
    return StochasticAdamW, {
        "lr": run.schedule.learning_rate,
        "betas": (method.adam_beta1, method.adam_beta2),
        "eps": method.adam_epsilon,
        "seed": run.seed,
    }


def lost_steps(model: torch.nn.Module, learning_rate: float) -> str | None:
    """Says so where bf16 rounds a step of ``learning_rate``, which is about what Adam takes, away on most weights.

    Between 2^e and 2^(e+1) bf16 numbers lie 2^(e-7) apart, and a step of less than half of that is lost.
    """
    sizes = _sizes(model)
    if not len(sizes):
        return None
    smallest_step = torch.exp2(torch.floor(torch.log2(sizes)) - 8)
    lost = float((smallest_step > learning_rate).float().mean())
    if lost <= 0.5:
        return None
    return (
        f"schedule.learning_rate={learning_rate:g}: method.master_weights=none rounds steps of this size away on "
        f"{lost:.0%} of the weights (bf16; their median size is {float(sizes.median()):.2g}, where steps below "
        f"{float(smallest_step.median()):.2g} are lost); say method.stochastic_rounding=true, "
        "method.master_weights=fp32, or a higher rate"
    )


def _sizes(model: torch.nn.Module) -> torch.Tensor:
    """|weight| of the trained matrices, evenly sampled; zeros, which any step moves, left out."""
    samples = [torch.zeros(0)]
    for weights in model.parameters():
        if weights.requires_grad and weights.ndim > 1:
            flat = weights.detach().flatten()
            samples.append(flat[:: max(1, flat.numel() // SAMPLED)].abs().float().cpu())
    sizes = torch.cat(samples)
    return sizes[sizes > 0]
