"""What MLflow has of a run, beside what the run's folder says."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from run_records import histories, points_of, rows_of

from ftx import metrics_log
from ftx.run_folder import RunFolder


def runs_in(mlflow: MlflowClient) -> list[Run]:
    return mlflow.search_runs([experiment.experiment_id for experiment in mlflow.search_experiments(ViewType.ALL)])


def files_in(mlflow: MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    return {file.path for file in mlflow.list_artifacts(run_id, folder)}


def has_system_metrics(mlflow: MlflowClient, folder: RunFolder) -> None:
    """A point of each sampled step, once, although a resume may sample it again."""
    by_step = {row["step"]: row for row in reversed(metrics_log.read(folder.system))}
    for name in ("system/cpu_percent", "system/process_memory_gib"):
        sent = mlflow.get_metric_history(folder.read_status().mlflow_run_id, name)
        assert [(point.step, point.value) for point in sent] == [
            (step, by_step[step][name]) for step in sorted(by_step)
        ]


def has_everything(mlflow: MlflowClient, folder: RunFolder) -> Run:
    """Every number of the run's, exactly once."""
    run_id = folder.read_status().mlflow_run_id
    assert histories(mlflow, run_id) == points_of(rows_of(folder))
    has_system_metrics(mlflow, folder)
    for task, metrics in folder.read_scores().items():
        for name, entry in metrics.items():
            (point,) = mlflow.get_metric_history(run_id, f"{task}/{name}")
            assert point.value == entry["value"]
    assert {"run.yaml", "provenance.json", "overrides.txt", "scores.json", "figures"} <= files_in(mlflow, run_id)
    run = mlflow.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["ftx.run"] == folder.name
    return run


def write_row(folder: RunFolder, step: int) -> None:
    """A training row as a run writes it, now and then with what comes beside one."""
    loss = 2.0 / step
    tokens = {"total_tokens": 512 * step, "supervised_tokens": 100 * step}
    speed = {"per_device_tps": 4000.0 + step, "mfu": None, "step_seconds": 0.125, "memory_gib": 1.5}
    if step % 50 == 0:
        metrics_log.append(folder, folder.metrics, {"step": step, "epoch": step / 50, "eval_loss": loss + 0.5})
        metrics_log.append(
            folder, folder.system, {"step": step, "system/cpu_percent": 50.0, "system/process_memory_gib": step / 100}
        )
    row = {"step": step, "epoch": step / 50, "learning_rate": 1e-3, "train_loss": loss, "grad_norm": 1.0}
    metrics_log.append(folder, folder.metrics, {**row, **tokens, **speed})


def write_results(folder: RunFolder, accuracy: float = 0.75) -> None:
    """Scores and a figure."""
    folder.figures.mkdir(exist_ok=True)
    (folder.figures / "confusion.svg").write_text("<svg/>")
    score = {"value": accuracy, "n": 8, "ci95": [0.5, 0.9]}
    Path(folder.path / "scores.json").write_text(f'{{"classification": {{"accuracy": {score}}}}}'.replace("'", '"'))
