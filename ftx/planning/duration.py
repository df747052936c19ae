"""Steps, tokens, FLOPs and time of a run."""

from dataclasses import dataclass

from ftx.config.model_schema import ArchitectureConfig
from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig, ScheduleConfig
from ftx.planning.data_facts import DataSize
from ftx.planning.exchange import Bound
from ftx.planning.parameters import query_width
from ftx.planning.states import Parameters, count

# What trainings of billions of parameters reach on GPUs with packed rows and nothing computed twice: published figures
# lie between 31 and 46 %.
ASSUMED_MFU = 0.4


@dataclass(frozen=True)
class Work:
    """Of a whole training."""

    steps: int
    tokens: float
    flops: float
    """Without what is computed again; ``ftx.flops`` has the formula."""


@dataclass(frozen=True)
class Time:
    """``hours`` on all devices together at work; None where nobody knows how fast these are."""

    hours: float | None
    by: str
    measured: bool = False


def steps_an_epoch(schedule: ScheduleConfig, rows: int) -> int:
    """The last one may be short."""
    return -(-rows // schedule.global_batch_size)


def steps_of(schedule: ScheduleConfig, rows: int) -> int:
    """Of the whole training."""
    each = steps_an_epoch(schedule, rows)
    if schedule.epochs is None:
        return int(schedule.max_steps or 0)
    return min(schedule.epochs * each, schedule.max_steps or schedule.epochs * each)


def work_of(run: RunConfig, architecture: ArchitectureConfig, parameters: Parameters, size: DataSize) -> Work:
    """Of training on data of this size."""
    steps = steps_of(run.schedule, size.rows)
    whole, begun = divmod(steps, max(steps_an_epoch(run.schedule, size.rows), 1))
    epochs = whole + begun * run.schedule.global_batch_size / max(size.rows, 1)
    return Work(steps, epochs * size.tokens, epochs * _flops_an_epoch(run, architecture, parameters, size))


def _flops_an_epoch(run: RunConfig, architecture: ArchitectureConfig, parameters: Parameters, size: DataSize) -> float:
    is_full = run.method.name == "full"
    linear = count([one for one in parameters.base if one.kind == "linear"])
    each = (6 if is_full else 4) * linear + (0 if is_full else 6 * count(parameters.trained))
    head = (6 if is_full else 4) * architecture.vocabulary_size * architecture.hidden_size
    # As if all conversations were as long as their mean: a lower bound.
    pairs = size.tokens**2 / (2 * size.conversations)
    attention = 12 * query_width(architecture) * architecture.layers * pairs
    return each * size.tokens + head * size.supervised + attention


def time_of(run: RunConfig, work: Work, mfu: float | None, bound: Bound | None = None) -> Time:
    """By a share of the device's peak: ``mfu``, else what is usual; no step is shorter than its ``bound``."""
    peak = peak_of(run)
    if peak is None:
        return Time(None, "nobody said how fast the device is: hardware.tflops")
    assumed = mfu or ASSUMED_MFU
    again = _computed_again(run) if mfu is None else 1.0
    hours = work.flops * again / (assumed * peak * ranks(run)) / 3600
    how = f"at an MFU of {assumed / again:.0%}" + ("" if mfu else ", assumed; --mfu says another")
    least = work.steps * bound.seconds / 3600 if bound else 0.0
    if bound is None or least <= hours:
        return Time(hours, how)
    return Time(least, f"bound by {bound.by}; to compute takes {hours / least:.0%} of it, {how}")


def _computed_again(run: RunConfig) -> float:
    """Activation checkpointing takes the forward pass twice: 4/3 of the FLOPs where weights are trained, else 3/2."""
    if not run.hardware.activation_checkpointing:
        return 1.0
    return 4 / 3 if run.method.name == "full" else 3 / 2


def peak_of(run: RunConfig) -> float | None:
    """FLOP/s of one device at most, as its choice of hardware says."""
    hardware = run.hardware
    if hardware.peak_tflops:
        return hardware.peak_tflops * 1e12
    single = hardware.tflops.tf32 if hardware.tf32 else hardware.tflops.single
    peak = single if hardware.precision == "fp32" else hardware.tflops.half
    return peak * 1e12 if peak else None
