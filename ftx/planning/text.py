"""A plan as people read it."""

from collections.abc import Iterator, Sequence

from ftx.disk import in_words
from ftx.planning.memory import GIB
from ftx.planning.report import Plan, in_gib, parts_of

WIDTH = 13


def describe(plan: Plan) -> str:
    """Several lines; facts that nobody knows are said to be unknown."""
    return "\n".join([*_head(plan), *_memory(plan), *_batch(plan), *_work(plan), *_disk(plan)])


def describe_sweep(plans: Sequence[Plan], arms: Sequence[str]) -> str:
    """A line for each run, which ``arms`` tell apart, and what all of them take together."""
    lines = [f"{plans[0].name}: {len(plans)} runs"]
    for plan, arm in zip(plans, arms, strict=True):
        takes = f"{in_gib(plan.memory.total)}{_verdict(plan)}, time {_hours(plan)}" if plan.memory else "trains nothing"
        lines.append(f"  {arm}: {takes}")
    hours = [plan.gpu_hours or 0.0 for plan in plans if plan.memory is not None]
    unknown = any(plan.gpu_hours is None for plan in plans if plan.memory is not None)
    disk = sum(plan.disk.most for plan in plans if plan.disk)
    devices = "GPU-hours" if any(plan.device != "cpu" for plan in plans) else "CPU-hours"
    total = "unknown" if unknown else f"{sum(hours):,.1f}"
    lines.append(f"together: {total} {devices} of training, {in_words(disk)} on disk")
    return "\n".join(lines)


def _head(plan: Plan) -> Iterator[str]:
    how = "" if plan.devices == 1 else f" · {plan.strategy}"
    yield f"{plan.name}: {plan.model} · {plan.method} · {plan.devices} × {plan.device}{how} · {plan.precision}"
    share = "all trained" if plan.trained == plan.parameters else f"{plan.trained:,} trained"
    short = f", in {plan.precision} without 32-bit weights" if plan.master_weights == "none" else ""
    how = f" by {plan.optimizer}{short}" if plan.trained else ""
    yield _line("parameters", f"{plan.parameters:,}, {share}{how}")


def _memory(plan: Plan) -> Iterator[str]:
    if plan.memory is None:
        yield _line("memory", "trains nothing")
        return
    rows = f"{plan.micro_batch} × {plan.max_length:,} tokens at once"
    beside = f"; ours, and as published: {plan.published_settings}" if plan.published_memory else ""
    yield _line("memory", f"of each device, at most ({rows}){beside}")
    published = dict(parts_of(plan.published_memory)) if plan.published_memory else {}
    for name, value in parts_of(plan.memory):
        beside = f"{published[name] / GIB:12,.2f} GiB" if published else ""
        yield f"  {name:<{WIDTH}}{value / GIB:10,.2f} GiB{beside}"
    if plan.capacity is None:
        yield _line("", "nobody said how much there is: hardware.memory_gib")
        return
    verdicts = [plan.fits] if plan.published_memory is None else [plan.fits, plan.published_fits]
    verdicts = [plan.fits] if plan.published_memory is None else [plan.fits, plan.published_fits]
    said = ", ".join("fits" if one else "does not fit" for one in verdicts)
    yield _line("", f"of {in_gib(plan.capacity)}{_offloaded(plan)}: {said}")
    for number, way in enumerate(plan.ways_out, 1):
        yield f"  {number}. {' '.join(way.words)}  → {in_gib(way.total)} ({'; '.join(way.costs)})"
    if not plan.fits and not plan.ways_out:
        yield "  nothing known makes it fit"


def _offloaded(plan: Plan) -> str:
    if not plan.host_memory:
        return ""
    there = "" if plan.host_capacity is None else f" {in_gib(plan.host_capacity)}"
    return f", and {in_gib(plan.host_memory)} of each node's{there} for what is offloaded"


def _batch(plan: Plan) -> Iterator[str]:
    if plan.memory is None:
        return
    most, together = plan.largest_micro_batch, plan.global_batch_size
    largest = ""
    if most and most * plan.devices == together:
        largest = f"; schedule.global_batch_size={together} allows no more than hardware.micro_batch={most}, which fits"
    elif most:
        largest = f"; at most hardware.micro_batch={most} fits"
    yield _line("accumulation", f"{plan.accumulation}{largest}")


def _work(plan: Plan) -> Iterator[str]:
    if plan.memory is None:
        return
    data, work = plan.data, plan.work
    most = "at most " if data and data.at_most else ""
    if data is None:
        yield _line("data", "its size is not known before it is prepared: python -m ftx.data prepare does that")
    else:
        yield _line(
            "data",
            f"{data.conversations:,} conversations, {data.rows:,} rows, {most}{data.tokens:,} tokens ({data.source})",
        )
    if work is not None:
        yield _line("training", f"{work.steps:,} steps, {most}{work.tokens:.3g} tokens, {most}{work.flops:.3g} FLOPs")
    # What earlier runs measured is no bound.
    bound = "" if plan.time and plan.time.measured else most
    yield _line("time", f"{bound}{_hours(plan)} ({plan.time.by})" if plan.time else "unknown")


def _disk(plan: Plan) -> Iterator[str]:
    if plan.disk is None or plan.memory is None:
        return
    disk = plan.disk
    yield _line(
        "disk",
        f"model {in_words(disk.model)}, a checkpoint {in_words(disk.checkpoint)}, at most {in_words(disk.most)}, "
        f"in the end {in_words(disk.end)}" + (f"; exports {in_words(disk.exports)}" if disk.exports else ""),
    )


def _hours(plan: Plan) -> str:
    if plan.time is None or plan.time.hours is None:
        return "unknown"
    hours = f"{plan.time.hours:,.1f} h" if plan.time.hours >= 1 else f"{plan.time.hours * 60:,.1f} min"
    if plan.device == "cpu":
        return hours
    return f"{hours} × {plan.devices} GPU{'s' if plan.devices > 1 else ''} = {plan.gpu_hours:,.1f} GPU-hours"


def _verdict(plan: Plan) -> str:
    return "" if plan.fits is None else " (fits)" if plan.fits else " (does not fit)"


def _line(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}"
