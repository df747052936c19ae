"""What one device holds of a training from step to step: weights, gradients, and the optimizer's state.

ZeRO: Rajbhandari et al., 2020, with the types that ``ftx.strategies`` asks for: gradients are summed in 32 bits.
NF4 with double quantisation (Dettmers et al., 2023): half a byte a number; each block of 64 has a scale of one byte,
and 256 of these a 32-bit one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ftx.config.model_schema import ArchitectureConfig
from ftx.config.parallel import ranks, strategy_of, zero_stage
from ftx.config.schema import RunConfig
from ftx.planning.numbers import numbers_of
from ftx.planning.parameters import Weight, adapter_weights, weights_of

BLOCK, SCALES_TOGETHER = 64, 256
# bitsandbytes keeps the moments of smaller tensors in 32 bits, and a 32-bit scale for so many numbers of larger ones;
# Trainer has it keep those of embeddings in 32 bits too.
SMALL_TENSOR, NUMBERS_A_SCALE = 4096, 256
# DeepSpeed's stage3_param_persistence_threshold.
KEPT_WHOLE = 100_000


@dataclass(frozen=True)
class Parameters:
    """``base`` is the model, ``trained`` what moves: the model's weights, or the adapters that come on top."""

    base: Sequence[Weight]
    trained: Sequence[Weight]
    adapters: bool

    @property
    def total(self) -> int:
        return count(self.base) + (count(self.trained) if self.adapters else 0)


@dataclass(frozen=True)
class States:
    """Bytes on one device."""

    weights: float
    gradients: float
    optimizer: float
    """Moments, and the 32-bit weights that the optimizer steps on where the model's own are shorter."""


def count(weights: Sequence[Weight]) -> int:
    return sum(one.count for one in weights)


def parameters_of(run: RunConfig, architecture: ArchitectureConfig) -> Parameters:
    """Of the run's model and method."""
    base, lora = weights_of(architecture), run.method.lora
    if run.method.name == "full":
        return Parameters(base, base, adapters=False)
    trained = adapter_weights(architecture, lora.rank, list(lora.targets), dora=lora.dora)
    return Parameters(base, trained, adapters=True)


def states_of(run: RunConfig, parameters: Parameters) -> States:
    """Between two steps, with the gradients that a step starts from."""
    numbers, shares = numbers_of(run), ranks(run)
    trained = count(parameters.trained)
    stage = zero_stage(strategy_of(run))
    weights = _base_bytes(run, parameters) + (numbers.trained * trained if parameters.adapters else 0)
    gradients: float = numbers.trained * trained
    moments = _moments(run, parameters.trained, numbers.trained)
    if strategy_of(run) == "fsdp":
        return States(weights / shares, gradients / shares, moments / shares)
    if not stage:
        return States(weights, gradients, moments)
    flat = [Weight("part", (-(-trained // shares),), "part")]
    optimizer = 4 * trained / shares + _moments(run, flat, 4)
    # Stage 1 adds all gradients up whole, in 32 bits besides the short ones that come out of the backward pass.
    gradients = (4 + numbers.trained) * trained if stage == 1 else 4 * trained / shares
    if stage == 3:
        weights = weights / shares + _kept_whole(parameters, numbers.base)
    return States(weights, gradients, optimizer)


def _kept_whole(parameters: Parameters, each: int) -> int:
    """ZeRO-3 gathers small tensors once and keeps them, besides its own part of them."""
    return each * sum(one.count for one in parameters.base if one.count <= KEPT_WHOLE)


def _base_bytes(run: RunConfig, parameters: Parameters) -> float:
    numbers = numbers_of(run)
    return sum(_held(one, run, numbers.norm if one.kind == "norm" else numbers.base) for one in parameters.base)


def _held(weight: Weight, run: RunConfig, each: int) -> float:
    """Of one of the model's tensors."""
    return four_bits(weight) if run.method.name == "qlora" and weight.kind == "linear" else weight.count * each


def four_bits(weight: Weight) -> float:
    """Bytes of a matrix in NF4, with its scales."""
    blocks = -(-weight.count // BLOCK)
    return weight.count / 2 + blocks + 4 * -(-blocks // SCALES_TOGETHER)


def _moments(run: RunConfig, trained: Sequence[Weight], each: int) -> float:
    """Adam's two for every number."""
    if "8bit" not in run.method.optimizer:
        return 2 * each * count(trained)
    small = count([one for one in trained if one.count < SMALL_TENSOR or one.kind == "embedding"])
    large = count(trained) - small
    return 8 * small + 2 * large * (1 + 4 / NUMBERS_A_SCALE)
