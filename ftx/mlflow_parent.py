"""The MLflow run that the runs of a sweep hang under: it has the report, and says how the sweep stands."""

import logging
from collections.abc import Iterable
from pathlib import Path

from ftx.config.schema import TrackingConfig
from ftx.mlflow_names import EXPERIMENT_TAG, KEY_TAG, NOTE_TAG, STATE_TAG, SWEEP_TAG, as_note
from ftx.tracking import STATE_OF, brief, client, exists, experiment_id, failures, make_run

log = logging.getLogger(__name__)


def ensure_parent(tracking: TrackingConfig, sweep: Path, known_id: str | None) -> str | None:
    """The MLflow run that a sweep's runs hang under: the one it had, else a new one; None while MLflow is away.

    ``sweep`` is its folder.
    """
    try:
        mlflow = client(tracking)
        if known_id and exists(mlflow, known_id):
            mlflow.update_run(known_id, status=STATE_OF["running"])
            mlflow.set_tag(known_id, STATE_TAG, "running")
            return known_id
        tags = {SWEEP_TAG: sweep.name, EXPERIMENT_TAG: str(tracking.experiment), STATE_TAG: "running"}
        tags[KEY_TAG] = f"{sweep.name}@{sweep.stat().st_ino}"
        return make_run(mlflow, experiment_id(mlflow, tracking), sweep.name, tags)
    except failures() as error:
        log.warning("MLflow at %s does not answer (%s); the sweep has no parent run there", tracking.uri, brief(error))
        return None


def close_parent(tracking: TrackingConfig, parent_id: str, files: Iterable[Path], text: str, state: str) -> None:
    """Attach the report to a sweep's parent, with ``text`` as its description, and say how the sweep stands."""
    try:
        mlflow = client(tracking)
        for file in files:
            mlflow.log_artifact(parent_id, str(file))
        mlflow.set_tag(parent_id, NOTE_TAG, as_note(text))
        mlflow.set_tag(parent_id, STATE_TAG, state)
        if state == "running":
            mlflow.update_run(parent_id, status=STATE_OF[state])
        else:
            mlflow.set_terminated(parent_id, STATE_OF[state])
    except failures() as error:
        log.warning(
            "MLflow at %s does not answer (%s); the report is in the sweep's folder", tracking.uri, brief(error)
        )
