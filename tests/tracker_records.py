"""What TensorBoard and W&B read of a run, by their own readers, and what it says itself."""

import json
from collections import defaultdict
from pathlib import Path

from run_records import points_of, rows_of

from ftx import metrics_log
from ftx.mlflow_names import score_name
from ftx.run_folder import RunFolder

Points = dict[str, list[tuple[int, float]]]


def said_by(folder: RunFolder) -> Points:
    """Every scalar's points by metrics.jsonl and system.jsonl; of what the machine was doing at a step, the first."""
    first: dict[int, dict] = {}
    for row in metrics_log.read(folder.system):
        first.setdefault(row["step"], row)
    last = max((row["step"] for row in rows_of(folder)), default=-1)
    system = points_of([row for step, row in first.items() if step <= last])
    return points_of(rows_of(folder)) | system


def scores_of(folder: RunFolder) -> dict[str, float]:
    return {
        score_name(task, name): entry["value"]
        for task, metrics in folder.read_scores().items()
        for name, entry in metrics.items()
    }


def tensorboard_of(folder: RunFolder) -> Points:
    """As `tensorboard --logdir` would draw them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.tensorboard), size_guidance={"scalars": 0}).Reload()
    names = events.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def wandb_files(folder: RunFolder) -> list[Path]:
    return sorted(folder.wandb.glob("*run-*/*.wandb"))


def wandb_records(file: Path) -> list:
    """As `wandb sync` reads them; the half record of a killed writer is none."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    store, records = DataStore(), []
    store.open_for_scan(file)
    while (written := store.scan_data()) is not None:
        records.append(Record.FromString(written))
    store.close()
    return records


def wandb_of(folder: RunFolder) -> Points:
    """All steps of all files that `wandb sync` would send, in their order."""
    points = defaultdict(list)
    for record in (record for file in wandb_files(folder) for record in wandb_records(file)):
        if record.WhichOneof("record_type") != "history":
            continue
        values = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for name, value in values.items():
            if not name.startswith("_"):
                points[name].append((values["_step"], value))
    return dict(points)


def wandb_summary(file: Path) -> dict:
    """What the run's page shows as its values."""
    summary: dict = {}
    for record in wandb_records(file):
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return summary


def wandb_run(file: Path):
    """The run's own record."""
    return next(record.run for record in wandb_records(file) if record.WhichOneof("record_type") == "run")
