"""The least time that a step takes whatever its devices compute: what they send each other, and read of their memory.

Of n devices each has to get (n - 1)/n of what is gathered or summed in parts, and twice as much of what is summed
whole. What other nodes have comes to each node once, a part of it to each of its devices, and goes round within.
"""

from dataclasses import dataclass

from ftx.config.model_schema import ArchitectureConfig
from ftx.config.parallel import ranks, strategy_of, zero_stage
from ftx.config.schema import RunConfig
from ftx.planning.memory import rows_at_once
from ftx.planning.numbers import numbers_of
from ftx.planning.states import Parameters, count, states_of

GB = 10**9


@dataclass(frozen=True)
class Bound:
    """Seconds that a step takes at least, and why."""

    seconds: float
    by: str


def slowest_of(run: RunConfig, architecture: ArchitectureConfig, parameters: Parameters) -> Bound | None:
    """The longest of them; None where nobody said how fast anything is."""
    found = [*_exchanging(run, parameters), *_reading(run, architecture, parameters)]
    return max(found, key=lambda bound: bound.seconds, default=None)


def exchanged_by_all(run: RunConfig, parameters: Parameters) -> float:
    """Bytes a step that are gathered or summed in parts, counted once for all devices together.

    Gradients are summed in 32 bits, as ``ftx.strategies`` asks for; DDP sums them as they are. ZeRO-2 and -3 sum those
    of every micro-batch; ZeRO-3 and FSDP gather all weights for its forward pass and again for its backward pass.
    """
    numbers, strategy = numbers_of(run), strategy_of(run)
    trained, base = count(parameters.trained), count(parameters.base)
    stage, parts = zero_stage(strategy), micro_batches(run)
    if ranks(run) == 1:
        return 0.0
    if strategy == "ddp":
        return 2.0 * numbers.trained * trained
    if stage in (1, 2):
        return 4.0 * trained * (parts if stage == 2 else 1) + numbers.trained * trained
    whole = base + (trained if parameters.adapters else 0)
    return 2.0 * parts * numbers.compute * whole + 4.0 * trained * (parts if stage == 3 else 1)


def micro_batches(run: RunConfig) -> int:
    """That a device computes in a step."""
    return -(-run.schedule.global_batch_size // (ranks(run) * rows_at_once(run)))


def _exchanging(run: RunConfig, parameters: Parameters) -> list[Bound]:
    hardware, whole = run.hardware, exchanged_by_all(run, parameters)
    from_nodes = whole * (hardware.nodes - 1) / hardware.nodes / hardware.processes_per_node
    within = whole * (ranks(run) - 1) / ranks(run) - from_nodes
    found = []
    if within and hardware.interconnect_gb_s:
        found.append(_bound("what each device gets within its node", within, hardware.interconnect_gb_s))
    if from_nodes and hardware.network_gb_s:
        found.append(_bound("what each device gets from other nodes", from_nodes, hardware.network_gb_s))
    return found


def _reading(run: RunConfig, architecture: ArchitectureConfig, parameters: Parameters) -> list[Bound]:
    """Weights are read forwards and backwards in each micro-batch; the optimizer reads and writes all of its own."""
    if not run.hardware.bandwidth_gb_s:
        return []
    states = states_of(run, parameters)
    is_shared = strategy_of(run) in ("zero3", "fsdp")
    weights = states.weights * (ranks(run) if is_shared else 1)
    if not architecture.tied_embeddings:  # of embeddings the rows that occur
        weights -= numbers_of(run).base * architecture.vocabulary_size * architecture.hidden_size
    step = states.gradients + 2 * states.optimizer
    taken = 2 * micro_batches(run) * weights + step
    return [_bound("what a device reads and writes of its memory", taken, run.hardware.bandwidth_gb_s)]


def _bound(what: str, moved: float, gb_s: float) -> Bound:
    return Bound(moved / (gb_s * GB), f"{what}, {moved / GB:,.1f} GB a step at {gb_s:,.0f} GB/s")
