"""A sweep's report in its folder: report.md with all its parts, report.csv, and the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftx import metrics_log
from ftx.against_published import against_published
from ftx.figures import save
from ftx.learning_curves import Curve, learning_curves
from ftx.run_folder import RunFolder
from ftx.seeds import pool_seeds
from ftx.sweep_arms import SEED_KEY, Arm, in_order, main_metrics_of
from ftx.sweep_confusion import confusion_figures
from ftx.sweep_cost import ArmCost, TrainingCost, as_columns, cost_table, training_cost
from ftx.sweep_figure import draw_metric, scattered_keys
from ftx.sweep_table import table, to_csv, to_markdown
from ftx.verdict import to_markdown as comparisons
from ftx.writing import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Wanted:
    """``metrics`` by name, the first the primary one, narrow what is printed; the files always have all of them.

    ``against_published`` asks for a test of our numbers against those of others.
    """

    metrics: Sequence[str] | None = None
    against_published: bool = False


@dataclass(frozen=True)
class Recorded:
    """What a report is made of. ``runs`` has the folders by the arms' names; none for published numbers."""

    title: str
    experiment: str
    arms: Sequence[Arm]
    runs: Mapping[str, RunFolder]


@dataclass(frozen=True)
class Report:
    """What to print, its summary (the table and what it says), and every file there is of it."""

    text: str
    summary: str
    files: tuple[Path, ...]


def write_files(folder: Path, recorded: Recorded, wanted: Wanted) -> Report:
    """Write report.md, report.csv, settings.csv where seeds were pooled, and the figures into ``folder``."""
    settings = pool_seeds(recorded.arms)
    costs = [ArmCost(arm, _cost_of(recorded.runs[arm.name])) for arm in in_order(recorded.arms) if recorded.runs]
    pictures = [save(drawn, folder / name) for name, drawn in _figures(recorded, settings, wanted).items()]
    whole = _parts(settings, costs, Wanted(None, wanted.against_published))
    shown = [f"![{png.stem}]({png.name})" for png, _ in pictures]
    write_text(folder / "report.md", "\n\n".join([f"# {recorded.title}", *whole, *shown]) + "\n")
    write_text(folder / "report.csv", to_csv(recorded.arms, {one.arm.name: as_columns(one.training) for one in costs}))
    files = [folder / "report.md", folder / "report.csv"]
    if len(settings) < len(recorded.arms):
        write_text(folder / "settings.csv", to_csv(settings))
        files.append(folder / "settings.csv")
    text = "\n\n".join(_parts(settings, costs, wanted) if wanted.metrics else whole)
    lines = "\n".join(f"figure: {png}" for png, _ in pictures)
    return Report(f"{text}\n\n{lines}".rstrip(), whole[0], (*files, *(file for pair in pictures for file in pair)))


def _parts(settings: Sequence[Arm], costs: Sequence[ArmCost], wanted: Wanted) -> list[str]:
    """The texts of a report, one below the other."""
    main = table(settings, wanted.metrics)
    parts = [to_markdown(main).rstrip()]
    if main.verdict is not None and main.verdict.others:
        parts.append(f"## The best beside the others\n\n{comparisons(main.verdict)}")
    if wanted.against_published:
        arms = in_order(settings)
        tested = against_published(arms, main_metrics_of(arms, wanted.metrics))
        parts.append(f"## Against what is published\n\n{tested}")
    if cost := cost_table(costs):
        parts.append(f"## Cost\n\n{cost}")
    return parts


def _figures(recorded: Recorded, settings: Sequence[Arm], wanted: Wanted) -> dict[str, Figure]:
    """By the names of their files."""
    # Of a sweep over seeds alone there is one setting: the seeds are what can be drawn.
    drawn = settings if len(settings) > 1 else recorded.arms
    found = {"figure": draw_metric(drawn, recorded.experiment, None)}
    for key in scattered_keys(in_order(drawn))[1:]:
        found[f"figure.{key.rsplit('.', 1)[-1]}"] = draw_metric(drawn, recorded.experiment, None, key)
    if wanted.metrics and (metrics := main_metrics_of(drawn, wanted.metrics)):
        found[f"figure.{metrics[0].full_name}"] = draw_metric(drawn, recorded.experiment, metrics[0])
    found["learning_curves"] = learning_curves(_curves(recorded), recorded.experiment)
    found |= confusion_figures(recorded.arms, recorded.runs)
    return {name: figure for name, figure in found.items() if figure is not None}


def _curves(recorded: Recorded) -> list[Curve]:
    return [
        Curve(arm.title, metrics_log.read(recorded.runs[arm.name].metrics), _without_seed(arm))
        for arm in in_order(recorded.arms)
        if recorded.runs
    ]


def _without_seed(arm: Arm) -> str:
    """``epochs=3``"""
    words = [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in arm.swept.items() if key != SEED_KEY]
    return ", ".join(words) or arm.title


def _cost_of(folder: RunFolder) -> TrainingCost | None:
    if not (folder.path / "run.yaml").exists():
        return None
    return training_cost(metrics_log.read(folder.metrics), folder.read_run().hardware)
