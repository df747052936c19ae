"""The memory that one device needs in training, part by part."""

from dataclasses import dataclass, fields

import psutil

from ftx.config.model_schema import ArchitectureConfig
from ftx.config.parallel import micro_batch_of, ranks, strategy_of, zero_stage
from ftx.config.schema import RunConfig
from ftx.planning.activations import activations_of
from ftx.planning.logits import logits_of
from ftx.planning.numbers import numbers_of
from ftx.planning.originals import as_the_originals
from ftx.planning.parameters import layer_weights
from ftx.planning.states import Parameters, count, parameters_of, states_of
from ftx.reduce_bucket import REDUCE_BUCKET

GIB = 2**30
# A CUDA context with cuBLAS's and the attention's workspaces; what NCCL takes where there are several; what an
# allocator loses between blocks, as a share of what comes and goes; and what an operating system keeps of memory that
# it shares with the device.
CONTEXT, NCCL, LOST, SYSTEM = 0.8 * GIB, 0.4 * GIB, 0.04, 4 * GIB
# Python and its libraries, on a CPU.
LIBRARIES = 0.6 * GIB
# ZeRO-3 keeps at most so many gathered weights (DeepSpeed's stage3_max_live_parameters).
LIVE = 10**9


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, at the fullest moment of a step."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    """What the forward pass leaves for the backward pass."""
    logits: float
    working: float
    """Shortened copies of weights, and what a layer's backward pass takes beyond what the logits needed."""
    buffers: float
    """What is on its way from and to other devices."""
    reserve: float
    """What the device's own software takes, and what an allocator loses."""

    @property
    def total(self) -> float:
        return sum(getattr(self, part.name) for part in fields(self))


def memory_of(run: RunConfig, architecture: ArchitectureConfig, *, as_published: bool = False) -> Memory:
    """At most: every row as long as ``data.max_length``, all of it supervised.

    ``as_published``: as the projects computed that the experiments come from (``ftx.planning.originals``).
    """
    if as_published:
        run = as_the_originals(run)
    tokens = rows_at_once(run) * run.data.max_length
    parameters = parameters_of(run, architecture)
    states = states_of(run, parameters)
    activations = activations_of(run, architecture, tokens, segment=run.data.max_length)
    logits = logits_of(run, architecture, tokens)
    working = _copies(run, architecture, parameters) + max(0.0, activations.working - logits)
    buffers = _exchanged(run, architecture, parameters)
    # What is offloaded to memory that the device shares with its host has gone nowhere.
    saved = activations.saved + (activations.offloaded if run.hardware.unified_memory else 0)
    passing = saved + logits + working + buffers
    return Memory(
        weights=states.weights,
        gradients=states.gradients,
        optimizer=states.optimizer,
        activations=saved,
        logits=logits,
        working=working,
        buffers=buffers,
        reserve=_reserve(run, passing),
    )


def rows_at_once(run: RunConfig) -> int:
    """Of one device: hardware.micro_batch, or its share of the global batch where that is less."""
    return min(micro_batch_of(run), -(-run.schedule.global_batch_size // ranks(run)))


def capacity_of(run: RunConfig) -> float | None:
    """Bytes of one device, or of this machine's share of a CPU's process; None where nobody said."""
    if run.hardware.memory_gib:
        return run.hardware.memory_gib * GIB
    if run.hardware.device == "cpu":
        return psutil.virtual_memory().total / run.hardware.processes_per_node
    return None


def host_memory_of(run: RunConfig, architecture: ArchitectureConfig) -> float:
    """Bytes of activations that wait in the memory of one node."""
    if run.hardware.unified_memory or not run.hardware.activation_offload:
        return 0.0
    tokens = rows_at_once(run) * run.data.max_length
    each = activations_of(run, architecture, tokens, segment=run.data.max_length).offloaded
    return each * run.hardware.processes_per_node


def fits(run: RunConfig, memory: float, host_memory: float) -> bool | None:
    """Whether so many bytes of a device and of a node have room; None where nobody knows how large a device is."""
    capacity, host = capacity_of(run), run.hardware.host_memory_gib
    if capacity is None:
        return None
    return memory <= capacity and (host is None or host_memory <= host * GIB)


def _copies(run: RunConfig, architecture: ArchitectureConfig, parameters: Parameters) -> float:
    """Weights as autocast shortens them, for as long as the forward pass lasts; a 4-bit matrix as it is multiplied."""
    numbers = numbers_of(run)
    matrices = [one for one in parameters.trained if one.kind in ("linear", "adapter")]
    copies = float(numbers.compute * count(matrices)) if numbers.casts else 0.0
    if run.method.name == "qlora":
        copies += numbers.compute * max(one.count for one in layer_weights(architecture) if one.kind == "linear")
    return copies


def _exchanged(run: RunConfig, architecture: ArchitectureConfig, parameters: Parameters) -> float:
    numbers, strategy, trained = numbers_of(run), strategy_of(run), count(parameters.trained)
    if ranks(run) == 1:
        return 0.0
    stage = zero_stage(strategy)
    if stage in (1, 2):  # gradients as they came, twice where computing goes on meanwhile, and once in 32 bits
        staged = 2 if run.hardware.device == "cuda" else 1
        return REDUCE_BUCKET * (staged * numbers.compute + 4)
    if stage == 3:
        return REDUCE_BUCKET * 4 + min(LIVE, count(parameters.base)) * numbers.compute
    if strategy == "fsdp":  # two layers' weights, gathered, and one's gradients in 32 bits; embedding and head likewise
        layer = count(layer_weights(architecture))
        outside = count(parameters.base) - architecture.layers * layer
        gathered = (2 * layer + outside) * numbers.compute
        return gathered + 4 * max(layer, outside) * (1 if run.method.name == "full" else 0)
    return float(numbers.trained * trained)  # DDP's buckets


def _reserve(run: RunConfig, passing: float) -> float:
    if run.hardware.device == "cpu":
        return LIBRARIES
    reserve = CONTEXT + LOST * passing + (NCCL if ranks(run) > 1 else 0)
    return reserve + (SYSTEM if run.hardware.unified_memory else 0)
