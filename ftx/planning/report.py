"""A plan: everything about one run, as a result and as text."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from ftx.config.parallel import ranks, strategy_of
from ftx.config.schema import RunConfig
from ftx.planning.advice import Follow, WayOut, largest_micro_batch, ways_out
from ftx.planning.data_facts import DataSize, data_size
from ftx.planning.disk import Disk, disk_of
from ftx.planning.duration import Time, Work, steps_an_epoch, time_of, work_of
from ftx.planning.exchange import Bound, slowest_of
from ftx.planning.memory import GIB, Memory, capacity_of, fits, host_memory_of, memory_of, rows_at_once
from ftx.planning.model_facts import architecture_of
from ftx.planning.originals import original_of
from ftx.planning.states import count, parameters_of


@dataclass(frozen=True)
class Plan:
    """Of one run; ``memory`` is None for one that trains nothing, and what hangs on unknown data is None too."""

    name: str
    model: str
    method: str
    device: str
    devices: int
    strategy: str
    precision: str
    optimizer: str
    master_weights: str
    global_batch_size: int
    micro_batch: int
    """Rows at once: no more than a device's share of the global batch."""
    max_length: int
    accumulation: int
    parameters: int
    trained: int
    memory: Memory | None
    published_memory: Memory | None
    published_settings: str | None
    capacity: float | None
    host_memory: float
    """Bytes of one node that offloaded activations take, of ``host_capacity``."""
    host_capacity: float | None
    fits: bool | None
    """None where nobody knows how much memory there is, or nothing is trained."""
    largest_micro_batch: int | None
    ways_out: list[WayOut]
    data: DataSize | None
    work: Work | None
    time: Time | None
    disk: Disk | None

    @property
    def published_fits(self) -> bool | None:
        """The same of the original's settings."""
        if self.published_memory is None or self.capacity is None:
            return None
        return self.published_memory.total <= self.capacity

    @property
    def gpu_hours(self) -> float | None:
        return None if self.time is None or self.time.hours is None else self.time.hours * self.devices

    def as_json(self) -> dict[str, Any]:
        """Plain values, with what follows from them."""
        values = asdict(self)
        for name in ("memory", "published_memory"):
            memory = getattr(self, name)
            if memory is not None:
                values[name]["total"] = memory.total
        return {**values, "gpu_hours": self.gpu_hours}


def plan_of(
    run: RunConfig,
    *,
    as_published: bool = False,
    mfu: float | None = None,
    measured: Time | None = None,
    follow: Follow | None = None,
) -> Plan:
    """``measured``: by earlier runs of the kind, which counts more than an MFU that is only assumed.

    ``follow``: composes the run with some more words, by which advice is tried.
    """
    architecture = architecture_of(run)
    parameters = parameters_of(run, architecture)
    trains = run.schedule.epochs != 0
    size = data_size(run) if trains else None
    memory = memory_of(run, architecture) if trains else None
    capacity = capacity_of(run)
    host_memory = host_memory_of(run, architecture) if trains else 0.0
    verdict = None if memory is None else fits(run, memory.total, host_memory)
    work = work_of(run, architecture, parameters, size) if size else None
    return Plan(
        name=run.name,
        model=str(run.model.name or "random"),
        method=run.method.name,
        device=run.hardware.gpu or run.hardware.device,
        devices=ranks(run),
        strategy=strategy_of(run),
        precision=run.hardware.precision,
        optimizer=run.method.optimizer,
        master_weights=run.method.master_weights,
        global_batch_size=run.schedule.global_batch_size,
        micro_batch=rows_at_once(run),
        max_length=run.data.max_length,
        accumulation=-(-run.schedule.global_batch_size // (ranks(run) * rows_at_once(run))),
        parameters=parameters.total,
        trained=count(parameters.trained) if trains else 0,
        memory=memory,
        published_memory=memory_of(run, architecture, as_published=True) if as_published and trains else None,
        published_settings=original_of(run).describe() if as_published and trains else None,
        capacity=capacity,
        host_memory=host_memory,
        host_capacity=run.hardware.host_memory_gib and run.hardware.host_memory_gib * GIB,
        fits=verdict,
        largest_micro_batch=largest_micro_batch(run, architecture) if trains and capacity else None,
        ways_out=ways_out(run, architecture, follow) if verdict is False else [],
        data=size,
        work=work,
        time=_time(run, work, mfu, measured, slowest_of(run, architecture, parameters)),
        disk=disk_of(run, architecture, parameters, *_length(run, size, work)),
    )


def _length(run: RunConfig, size: DataSize | None, work: Work | None) -> tuple[int | None, int]:
    """Steps, None where they are not known, and epochs begun."""
    schedule = run.schedule
    if size is None or work is None:
        return schedule.max_steps, schedule.epochs or 1
    return work.steps, -(-work.steps // max(steps_an_epoch(schedule, size.rows), 1))


def _time(
    run: RunConfig, work: Work | None, mfu: float | None, measured: Time | None, bound: Bound | None
) -> Time | None:
    if measured is not None and mfu is None:
        return measured
    return time_of(run, work, mfu, bound) if work else None


def in_gib(count_of_bytes: float) -> str:
    """``14.18 GiB``."""
    return f"{count_of_bytes / GIB:,.2f} GiB"


def parts_of(memory: Memory) -> list[tuple[str, float]]:
    return [*((part.name, getattr(memory, part.name)) for part in fields(memory)), ("total", memory.total)]
