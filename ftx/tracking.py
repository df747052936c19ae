"""MLflow: metrics.jsonl is the truth, and what MLflow lacks of it is sent, in batches, while training goes on.

A sender that dies, or a server that is away, loses nothing: the next sender asks MLflow what it has and goes on there.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ftx import metrics_log
from ftx.config.schema import RunConfig, TrackingConfig
from ftx.metric_points import ROW_KINDS, TrainingTime, kind_of, later_than, points_of
from ftx.mlflow_names import (
    EXPERIMENT_TAG,
    KEY_TAG,
    KIND_OF_EXPERIMENT,
    NOTE_TAG,
    PARENT_TAG,
    RUN_TAG,
    STATE_TAG,
    SWEEP_TAG,
    named_scores,
    parameters_of,
)
from ftx.run_folder import RunFolder
from ftx.while_ours import while_ours

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo

log = logging.getLogger(__name__)

STATE_OF = {
    "pending": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
SQLITE = "sqlite:///"
ROWS_IN_BATCH = 60


def client(tracking: TrackingConfig) -> "MlflowClient":
    """A client of the tracking server or file."""
    from mlflow import MlflowClient

    return MlflowClient(tracking.uri)


def experiment_id(tracking: "MlflowClient", settings: TrackingConfig) -> str:
    """The run's experiment, made if it is not there; another process may make it at the same moment."""
    from mlflow.exceptions import MlflowException

    name = str(settings.experiment)
    found = tracking.get_experiment_by_name(name)
    if found is None:
        try:
            artifacts = _artifacts_beside(settings.uri)
            return str(tracking.create_experiment(name, artifact_location=artifacts, tags=KIND_OF_EXPERIMENT))
        except MlflowException:
            found = tracking.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _artifacts_beside(uri: str) -> str | None:
    """``mlruns`` next to a SQLite file: MLflow would take the working directory. A server knows where its own are."""
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).absolute().parent / "mlruns").as_uri()


def tell(folder: RunFolder, run: RunConfig, state: str, reason: str) -> None:
    """Say how a run stands that nobody works on, and send what MLflow lacks of it; a warning while that is away."""
    if run.tracking.offline:
        return
    try:
        Sender(folder, run).send(state, reason)
    except failures() as error:
        log.warning(
            "MLflow at %s does not answer (%s); `python -m ftx.report --sync %s` tells it later",
            run.tracking.uri,
            brief(error),
            folder.name,
        )


def failures() -> tuple[type[Exception], ...]:
    """What a tracking server that is away, or a file that is no database, raises."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, OSError, SQLAlchemyError


def brief(error: Exception) -> str:
    """The first line of what it says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class Sender:
    """Brings MLflow up to date with a run's folder, as often as it is asked to."""

    def __init__(self, folder: RunFolder, run: RunConfig) -> None:
        self._folder, self._run = folder, run
        self._there: RunInfo | None = None
        self._said_state = ""
        self._sent: dict[str, int] = {}

    def send(self, state: str, reason: str) -> None:
        """The run itself, the rows it does not have, at the end scores and figures, and the state."""
        tracking = while_ours(client(self._run.tracking), self._folder)
        if self._there is None:
            there = _ensure_run(tracking, self._folder, self._run)
            self._sent = {kind: _last_step(tracking, there.run_id, kind) for kind in ROW_KINDS}
            self._there = there
        mlflow_id = self._there.run_id
        self._send_rows(tracking, self._there)
        if state == self._said_state:
            return
        if state in ("pending", "running"):
            tracking.update_run(mlflow_id, status=STATE_OF[state])
        else:
            _send_scores(tracking, mlflow_id, self._folder)
            tracking.set_terminated(mlflow_id, STATE_OF[state])
        tracking.set_tag(mlflow_id, "ftx.reason", reason[:500])
        tracking.set_tag(mlflow_id, STATE_TAG, state)
        self._said_state = state

    def _send_rows(self, tracking: "MlflowClient", there: "RunInfo") -> None:
        """History is append-only, and MLflow is asked for its last step only: a batch holds whole rows, in order."""
        trained = metrics_log.read(self._folder.metrics)
        clock = TrainingTime(there.start_time, trained)
        for written in (trained, metrics_log.read(self._folder.system)):
            fresh = later_than(self._sent, written)
            for begin in range(0, len(fresh), ROWS_IN_BATCH):
                rows = fresh[begin : begin + ROWS_IN_BATCH]
                tracking.log_batch(there.run_id, metrics=[point for row in rows for point in points_of(row, clock)])
                for row in rows:
                    self._sent[kind_of(row)] = row["step"]


def _ensure_run(tracking: "MlflowClient", folder: RunFolder, run: RunConfig) -> "RunInfo":
    """The run's MLflow run, described: the one it already has, else a new one."""
    known, membership = folder.read_status().mlflow_run_id, folder.read_membership()
    if known is None or not exists(tracking, known):
        experiment = experiment_id(tracking, run.tracking)
        title = membership.title if membership else folder.name
        # Written once in a folder's life.
        made = (folder.path / "provenance.json").stat().st_mtime_ns
        tags = {RUN_TAG: folder.name, EXPERIMENT_TAG: str(run.tracking.experiment), KEY_TAG: f"{folder.name}@{made}"}
        known = make_run(tracking, experiment, title, tags)
        folder.write_status(mlflow_run_id=known)
    there = tracking.get_run(known)
    if membership and there.data.tags.get(PARENT_TAG) != membership.mlflow_parent_id:
        # The one that is looked for comes last.
        tracking.set_tag(known, SWEEP_TAG, membership.sweep)
        tracking.set_tag(known, NOTE_TAG, membership.about)
        tracking.set_tag(known, PARENT_TAG, membership.mlflow_parent_id)
    # Parameters come last: where there are none, whoever made the run died on the way.
    if not there.data.params:
        for name in ("run.yaml", "provenance.json", "overrides.txt"):
            tracking.log_artifact(known, str(folder.path / name))
        _send_parameters(tracking, known, run)
    return there.info


def make_run(tracking: "MlflowClient", experiment: str, title: str, tags: dict[str, str]) -> str:
    """A new MLflow run, or the first that was made with this key.

    Where an answer gets lost, MLflow's own client asks a second time, and the next sender a third time.
    """
    made = [tracking.create_run(experiment, run_name=title, tags=tags)]
    made += tracking.search_runs([experiment], f"tags.`{KEY_TAG}` = '{tags[KEY_TAG]}'")
    ids = dict.fromkeys(run.info.run_id for run in sorted(made, key=lambda run: (run.info.start_time, run.info.run_id)))
    first, *others = ids
    for other in others:
        tracking.delete_run(other)
    return str(first)


def exists(tracking: "MlflowClient", run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return str(tracking.get_run(run_id).info.lifecycle_stage) == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _send_parameters(tracking: "MlflowClient", run_id: str, run: RunConfig) -> None:
    from mlflow.entities import Param

    parameters = [Param(name, value) for name, value in parameters_of(run).items()]
    for begin in range(0, len(parameters), 100):
        tracking.log_batch(run_id, params=parameters[begin : begin + 100])


def _last_step(tracking: "MlflowClient", run_id: str, name: str) -> int:
    history = tracking.get_metric_history(run_id, name)
    return max((metric.step for metric in history), default=-1)


def _send_scores(tracking: "MlflowClient", run_id: str, folder: RunFolder) -> None:
    from mlflow.entities import Metric

    # The file's time: the same for whoever sends these scores, and later for those of another scoring.
    written = folder.path / "scores.json"
    stamp = int(written.stat().st_mtime * 1000) if written.exists() else 0
    scores = [Metric(name, value, stamp, 0) for name, value in named_scores(folder.read_scores()).items()]
    present = tracking.get_run(run_id).data.metrics
    fresh = [metric for metric in scores if present.get(metric.key) != metric.value]
    if fresh:
        tracking.log_batch(run_id, metrics=fresh)
    for file in [written, *sorted(folder.figures.glob("*"))]:
        if file.exists():
            tracking.log_artifact(run_id, str(file), "figures" if file.parent == folder.figures else None)
