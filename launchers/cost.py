"""What a set of runs will take, before it is submitted: by the speed of earlier runs of the same kind.

It is the training's time: what loading, scoring and checkpoints take besides is not in metrics.jsonl.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from ftx import metrics_log
from ftx.config.keys import flat
from ftx.config.launcher_schema import LauncherConfig
from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.errors import UserError

# Earlier runs that a speed is taken from, and folders that are looked at for them, the newest first.
MOST_RUNS, MOST_FOLDERS = 10, 200
KIND = ("model.weights", "model.name", "model.architecture.", "method.name", "hardware.precision", "data.")
KIND_OF_DEVICE = ("hardware.device", "hardware.gpu")
# Of data, what changes neither its tokens nor how they are cut into rows.
NOT_KIND = ("data.cache", "data.order", "data.processes", "data.share_prefix", "data.tasks")

Kind = dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """``gpu_hours``: None where nobody knows, 0 where all of it is on CPUs; with ``at_most`` they bound one start."""

    text: str
    gpu_hours: float | None
    at_most: bool


@dataclass(frozen=True)
class Pace:
    """What earlier runs tell: tokens an epoch, tokens a row, and tokens a second on one device."""

    tokens_an_epoch: float
    tokens_a_row: float
    tps: float
    runs: int = 1


@dataclass(frozen=True)
class _Estimate:
    """``hours`` of one run, by the pace of ``earlier`` runs, by its time limit where there is none, or None."""

    run: RunConfig
    hours: float | None
    earlier: int

    @property
    def shape(self) -> tuple[object, ...]:
        hardware = self.run.hardware
        by = self.earlier or self.run.launcher.time_min
        return hardware.device, hardware.nodes, hardware.gpus_per_node, bool(self.earlier), by

    @property
    def devices(self) -> int:
        """GPUs, or nodes where there are none."""
        hardware = self.run.hardware
        return hardware.nodes * (hardware.gpus_per_node if self.is_on_gpus else 1)

    @property
    def is_on_gpus(self) -> bool:
        return self.run.hardware.device == "cuda"


def estimate(runs: Sequence[RunConfig], run_root: Path) -> Cost:
    """Runs × nodes × GPUs × hours, a line for each shape; ``run_root`` is where earlier runs are."""
    earlier = list(_earlier_runs(run_root))
    kinds = [kind_of(asdict(run)) for run in runs]
    paces = {repr(kind): _pace_of(kind, earlier) for kind in {repr(kind): kind for kind in kinds}.values()}
    estimates = [_estimate(run, paces[repr(kind)]) for run, kind in zip(runs, kinds, strict=True)]
    shapes: dict[tuple[object, ...], list[_Estimate]] = {}
    for one in estimates:
        shapes.setdefault(one.shape, []).append(one)
    lines = [_line(group) for group in shapes.values()]
    on_gpus = [one for one in estimates if one.is_on_gpus]
    gpu_hours = _sum([one.hours and one.hours * one.devices for one in on_gpus])
    at_most = gpu_hours is not None and any(not one.earlier for one in on_gpus)
    if len(lines) > 1 and gpu_hours:
        lines.append(f"together {'at most ' if at_most else ''}{_number(gpu_hours)} GPU-hours")
    return Cost("\n".join(lines), gpu_hours, at_most)


def _sum(hours: Sequence[float | None]) -> float | None:
    known = [one for one in hours if one is not None]
    return math.fsum(known) if len(known) == len(hours) else None


def check_cost(cost: Cost, launcher: LauncherConfig) -> None:
    """Raise UserError where the user has to say yes first."""
    if launcher.yes:
        return
    if cost.gpu_hours is None:
        raise UserError(
            "launcher.time_min=null: nothing says how many GPU-hours this takes, there is no earlier run of its kind; "
            "say launcher.time_min=MINUTES, or launcher.yes=true to submit it anyway"
        )
    if cost.gpu_hours > launcher.max_gpu_hours:
        raise UserError(
            f"launcher.max_gpu_hours={_number(launcher.max_gpu_hours)}: this takes {'up to ' if cost.at_most else ''}"
            f"{_number(cost.gpu_hours)} GPU-hours; say launcher.yes=true to submit it, or a higher "
            "launcher.max_gpu_hours"
        )


def kind_of(values: dict[str, Any]) -> Kind:
    """What runs have to share for one to tell how long the other takes; ``values`` as in run.yaml."""
    every_key = {**flat(asdict(RunConfig())), **flat(values)}
    chosen = {
        name: value
        for name, value in every_key.items()
        if name.startswith((*KIND, *KIND_OF_DEVICE)) and name not in NOT_KIND
    }
    return dict(sorted(chosen.items()))


def pace_of(metrics: Path, global_batch_size: int) -> Pace | None:
    """What one run's metrics.jsonl tells; None before its first row."""
    rows = [row for row in metrics_log.read(metrics) if "train_loss" in row and row["epoch"] > 0]
    if not rows:
        return None
    last = rows[-1]
    tokens = last["total_tokens"]
    speed = median(row["per_device_tps"] for row in rows)
    return Pace(tokens / last["epoch"], tokens / (last["step"] * global_batch_size), speed)


def earlier_pace(run: RunConfig) -> Pace | None:
    """Of earlier runs of the same kind where this one goes to."""
    return _pace_of(kind_of(asdict(run)), _earlier_runs(Path(run.run_root)))


def training_hours(run: RunConfig, pace: Pace) -> float:
    """As long as its epochs take, or its steps where they are fewer."""
    schedule = run.schedule
    tokens = [] if schedule.epochs is None else [schedule.epochs * pace.tokens_an_epoch]
    if schedule.max_steps is not None:
        tokens.append(schedule.max_steps * schedule.global_batch_size * pace.tokens_a_row)
    return min(tokens) / (pace.tps * ranks(run)) / 3600


def _estimate(run: RunConfig, pace: Pace | None) -> _Estimate:
    if pace is not None:
        return _Estimate(run, training_hours(run, pace), pace.runs)
    limit = run.launcher.time_min
    return _Estimate(run, None if limit is None else limit / 60, 0)


def _earlier_runs(run_root: Path) -> Iterator[tuple[Kind, Path, int]]:
    """(kind, metrics.jsonl, global batch size) of runs that have trained, the newest first."""
    written = sorted(run_root.glob("*/metrics.jsonl"), key=lambda file: -file.stat().st_mtime)
    for metrics in written[:MOST_FOLDERS]:
        described = metrics.with_name("run.yaml")
        values = _plain(described) if described.exists() else None
        if values is not None:
            yield kind_of(values), metrics, int(values["schedule"]["global_batch_size"])


def _plain(described: Path) -> dict[str, Any] | None:
    """run.yaml without the checks that reading a run takes, there may be hundreds; None for somebody's own edit."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = yaml.load(described.read_text(encoding="utf-8"), loader)
    except yaml.YAMLError:
        return None
    whole = isinstance(values, dict) and isinstance(values.get("schedule"), dict)
    return values if whole and values["schedule"].get("global_batch_size") else None


def _pace_of(kind: Kind, earlier: Iterable[tuple[Kind, Path, int]]) -> Pace | None:
    """The medians over earlier runs of the kind."""
    found: list[Pace] = []
    for other, metrics, batch in earlier:
        if other == kind and len(found) < MOST_RUNS and (pace := pace_of(metrics, batch)) is not None:
            found.append(pace)
    if not found:
        return None
    return Pace(
        median(pace.tokens_an_epoch for pace in found),
        median(pace.tokens_a_row for pace in found),
        median(pace.tps for pace in found),
        len(found),
    )


def _line(group: Sequence[_Estimate]) -> str:
    """``8 runs × 2 nodes × 8 GPUs × 1.5 h = 192 GPU-hours (…)`` for runs of one shape."""
    first = group[0]
    hardware, limit = first.run.hardware, first.run.launcher.time_min
    unit = "GPU-hours" if first.is_on_gpus else "node-hours"
    shape = f"{_count(len(group), 'run')} × {_count(hardware.nodes, 'node')}"
    if first.is_on_gpus:
        shape += f" × {_count(hardware.gpus_per_node, 'GPU')}"
    hours = [one.hours for one in group if one.hours is not None]
    if not hours:
        return f"{shape}: {unit} unknown (launcher.time_min=null, and no earlier run of this kind to go by)"
    each = f"{_number(math.fsum(hours) / len(hours))} h" + ("" if min(hours) == max(hours) else " on average")
    total = f"{shape} × {each} = {_number(math.fsum(hours) * first.devices)} {unit}"
    if first.earlier:
        return f"{total} (of training, by tokens/s of {_count(first.earlier, 'earlier run')})"
    return (
        f"at most {total} a start (by launcher.time_min={limit}; no earlier run of this kind to go by; a job that "
        "reaches its limit starts again)"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _number(value: float) -> str:
    """As people write them: ``1,235``, ``100.5``, ``384``, ``0.25``."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}".removesuffix(".0") if value >= 10 else f"{value:.3g}"
