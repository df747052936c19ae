"""What a run leaves behind, in a shape that two runs can be compared by."""

import json
from collections import defaultdict
from pathlib import Path

from safetensors.torch import load_file

from ftx import metrics_log
from ftx.config.schema import RunConfig
from ftx.run_folder import RunFolder
from ftx.runs_on_disk import open_run_folder
from ftx.tasks.speed import TIMED

MEASURED = {"per_device_tps", "per_device_tps_including_padding", "step_seconds", "memory_gib"}
"""What differs between two computations of the same thing."""


def rows_of(folder: RunFolder) -> list[dict]:
    """What metrics.jsonl says; a run without training has none."""
    return metrics_log.read(folder.metrics) if folder.metrics.exists() else []


def learned(folder: RunFolder) -> list[dict]:
    """metrics.jsonl without what was measured."""
    return learned_in(folder.metrics)


def learned_in(file: Path) -> list[dict]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def same_weights(one: RunFolder, other: RunFolder) -> bool:
    """Bit for bit."""
    first, second = (load_file(folder.model / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def scored(folder: RunFolder) -> dict[str, dict[str, dict]]:
    """scores.json without what was measured."""
    return {
        task: {name: entry for name, entry in metrics.items() if name not in TIMED}
        for task, metrics in folder.read_scores().items()
    }


def histories(mlflow, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every metric's points in MLflow, but for the scores and what the machine was doing."""
    names = mlflow.get_run(run_id).data.metrics
    found = {name: mlflow.get_metric_history(run_id, name) for name in names if "/" not in name}
    return {name: sorted((point.step, point.value) for point in points) for name, points in found.items()}


def points_of(rows: list[dict]) -> dict[str, list[tuple[int, float]]]:
    """The same from the rows of metrics.jsonl; an evaluation row's epoch is not sent."""
    points = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            if name != "step" and value is not None and (name != "epoch" or "train_loss" in row):
                points[name].append((row["step"], value))
    return {name: sorted(found) for name, found in points.items()}


def write_run(folder: RunFolder, run: RunConfig, rows: list[dict]) -> RunFolder:
    """A run that has written these rows."""
    open_run_folder(folder, run, [], {})
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def checkpoints_of(folder: RunFolder) -> set[str]:
    return {path.name for path in folder.checkpoints.iterdir()}
