"""MLflow: metrics.jsonl is the truth, and what MLflow lacks of it is sent, in batches, while training goes on.

A sender that dies, or a server that is away, loses nothing: the next sender asks MLflow what it has and goes on there.
"""

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftx import metrics_log
from ftx.config.keys import flat
from ftx.config.schema import RunConfig, TrackingConfig
from ftx.errors import Fenced
from ftx.run_folder import RunFolder
from ftx.while_ours import while_ours

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

RUN_TAG, SWEEP_TAG, PARENT_TAG = "ftx.run", "ftx.sweep", "mlflow.parentRunId"
STATE_OF = {
    "pending": "SCHEDULED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
SQLITE = "sqlite:///"
# Training rows, evaluation rows and rows of system.jsonl: each kind has a metric of its own.
ROW_KINDS = ("train_loss", "eval_loss", "system/cpu_percent")
ROWS_IN_BATCH = 60
SEND_SECONDS = 5.0
# How long a batch may be on its way that was sent before its sender lost the run: longer than a client waits.
SETTLE_SECONDS = 20.0


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
            return str(tracking.create_experiment(name, artifact_location=_artifacts_beside(settings.uri)))
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


def ensure_parent(tracking: TrackingConfig, sweep_name: str, known_id: str | None) -> str | None:
    """The MLflow run that a sweep's runs hang under: the one it had, else a new one; None while MLflow is away."""
    try:
        mlflow = client(tracking)
        if known_id and _exists(mlflow, known_id):
            mlflow.update_run(known_id, status=STATE_OF["running"])
            return known_id
        experiment = experiment_id(mlflow, tracking)
        return str(mlflow.create_run(experiment, run_name=sweep_name, tags={SWEEP_TAG: sweep_name}).info.run_id)
    except failures() as error:
        log.warning("MLflow at %s does not answer (%s); the sweep has no parent run there", tracking.uri, brief(error))
        return None


def close_parent(tracking: TrackingConfig, parent_id: str, files: Iterable[Path], state: str) -> None:
    """Attach the report to a sweep's parent and say how the sweep stands."""
    try:
        mlflow = client(tracking)
        for file in files:
            mlflow.log_artifact(parent_id, str(file))
        if state == "running":
            mlflow.update_run(parent_id, status=STATE_OF[state])
        else:
            mlflow.set_terminated(parent_id, STATE_OF[state])
    except failures() as error:
        log.warning(
            "MLflow at %s does not answer (%s); the report is in the sweep's folder", tracking.uri, brief(error)
        )


def failures() -> tuple[type[Exception], ...]:
    """What a tracking server that is away, or a file that is no database, raises."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, OSError, SQLAlchemyError


def brief(error: Exception) -> str:
    """The first line of what it says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class Tracker:
    """Sends one run's rows from a thread of its own; ``hear`` wakes it, leaving the context sends the rest."""

    def __init__(self, folder: RunFolder, run: RunConfig) -> None:
        self._folder, self._run = folder, run
        self._news, self._ending = threading.Event(), threading.Event()
        self._state, self._reason, self._warned = "running", "", False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def __enter__(self) -> "Tracker":
        if not self._run.tracking.offline:
            self._news.set()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._news.set()
        if self._thread.ident is not None:
            self._thread.join()

    def hear(self) -> None:
        """There are new rows."""
        self._news.set()

    def end(self, state: str, reason: str) -> None:
        """The run has come to its end; said to MLflow with the last rows."""
        self._state, self._reason = state, reason

    def _work(self) -> None:
        sender = Sender(self._folder, self._run)
        ended = False
        if self._folder.held is not None and self._folder.held.taken_from is not None:
            self._ending.wait(SETTLE_SECONDS)
        while not ended:
            self._news.wait()
            self._news.clear()
            ended = self._ending.is_set()
            try:
                sender.send(self._state, self._reason)
            except Fenced:  # whoever has the run now sends the rest
                return
            except Exception as error:
                self._warn(error)
                # What of it arrived is for MLflow to say: the answer may have got lost, not the rows.
                sender = Sender(self._folder, self._run)
            self._ending.wait(SEND_SECONDS)

    def _warn(self, error: Exception) -> None:
        """Once: whatever ails the tracking server, training goes on and metrics.jsonl has every row."""
        if not self._warned:
            log.warning(
                "MLflow at %s does not answer (%s); metrics.jsonl has everything, and `python -m ftx.report --sync %s` "
                "sends it later",
                self._run.tracking.uri,
                brief(error),
                self._folder.name,
            )
        self._warned = True


class Sender:
    """Brings MLflow up to date with a run's folder, as often as it is asked to."""

    def __init__(self, folder: RunFolder, run: RunConfig) -> None:
        self._folder, self._run = folder, run
        self._mlflow_id: str | None = None
        self._said_state = ""
        self._sent: dict[str, int] = {}

    def send(self, state: str, reason: str) -> None:
        """The run itself, the rows it does not have, at the end scores and figures, and the state."""
        tracking = while_ours(client(self._run.tracking), self._folder)
        if self._mlflow_id is None:
            mlflow_id = _ensure_run(tracking, self._folder, self._run)
            self._sent = {kind: _last_step(tracking, mlflow_id, kind) for kind in ROW_KINDS}
            self._mlflow_id = mlflow_id
        self._send_rows(tracking, self._mlflow_id)
        if state == self._said_state:
            return
        if state in ("pending", "running"):
            tracking.update_run(self._mlflow_id, status=STATE_OF[state])
        else:
            _send_scores(tracking, self._mlflow_id, self._folder)
            tracking.set_terminated(self._mlflow_id, STATE_OF[state])
        tracking.set_tag(self._mlflow_id, "ftx.reason", reason[:500])
        tracking.set_tag(self._mlflow_id, "ftx.state", state)
        self._said_state = state

    def _send_rows(self, tracking: "MlflowClient", mlflow_id: str) -> None:
        """History is append-only: a step sent twice would stand there twice, so a batch holds whole rows."""
        for file in (self._folder.metrics, self._folder.system):
            fresh = _later_than(self._sent, metrics_log.read(file))
            for begin in range(0, len(fresh), ROWS_IN_BATCH):
                rows = fresh[begin : begin + ROWS_IN_BATCH]
                tracking.log_batch(mlflow_id, metrics=[metric for row in rows for metric in _as_metrics(row)])
                for row in rows:
                    self._sent[_kind(row)] = row["step"]


def _later_than(sent: dict[str, int], rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of steps that were not sent; of a step that a resume went through again, the first."""
    newest, fresh = dict(sent), []
    for row in rows:
        if row["step"] > newest[_kind(row)]:
            newest[_kind(row)] = row["step"]
            fresh.append(row)
    return fresh


def _kind(row: dict[str, Any]) -> str:
    """Rows of one step come apart; each kind is known by a metric that only it has."""
    return next(kind for kind in ROW_KINDS if kind in row)


def _as_metrics(row: dict[str, Any]) -> "list[Metric]":
    """``epoch`` comes with training rows only: an evaluation row of the same step would bring it a second time."""
    from mlflow.entities import Metric

    stamp = _milliseconds()
    left_out = {"step"} if _kind(row) == ROW_KINDS[0] else {"step", "epoch"}
    return [
        Metric(name, float(value), stamp, row["step"])
        for name, value in row.items()
        if name not in left_out and value is not None
    ]


def _ensure_run(tracking: "MlflowClient", folder: RunFolder, run: RunConfig) -> str:
    """The run's MLflow run, described: the one it already has, else a new one."""
    known, membership = folder.read_status().mlflow_run_id, folder.read_membership()
    if known is None or not _exists(tracking, known):
        experiment = experiment_id(tracking, run.tracking)
        title = membership.title if membership else folder.name
        known = str(tracking.create_run(experiment, run_name=title, tags={RUN_TAG: folder.name}).info.run_id)
        folder.write_status(mlflow_run_id=known)
    there = tracking.get_run(known).data
    if membership and there.tags.get(PARENT_TAG) != membership.mlflow_parent_id:
        tracking.set_tag(known, PARENT_TAG, membership.mlflow_parent_id)
        tracking.set_tag(known, SWEEP_TAG, membership.sweep)
    # Parameters come last: where there are none, whoever made the run died on the way.
    if not there.params:
        for name in ("run.yaml", "provenance.json", "overrides.txt"):
            tracking.log_artifact(known, str(folder.path / name))
        _send_parameters(tracking, known, run)
    return known


def _exists(tracking: "MlflowClient", run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return str(tracking.get_run(run_id).info.lifecycle_stage) == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _send_parameters(tracking: "MlflowClient", run_id: str, run: RunConfig) -> None:
    """Flat keys; a value too long for MLflow would fail the whole batch, and run.yaml has it whole."""
    from mlflow.entities import Param

    parameters = [Param(name, str(value)[:500]) for name, value in flat(run).items()]
    for begin in range(0, len(parameters), 100):
        tracking.log_batch(run_id, params=parameters[begin : begin + 100])


def _last_step(tracking: "MlflowClient", run_id: str, name: str) -> int:
    history = tracking.get_metric_history(run_id, name)
    return max((metric.step for metric in history), default=-1)


def _send_scores(tracking: "MlflowClient", run_id: str, folder: RunFolder) -> None:
    from mlflow.entities import Metric

    stamp = _milliseconds()
    scores = [
        Metric(f"{task}.{name}", entry["value"], stamp, 0)
        for task, metrics in folder.read_scores().items()
        for name, entry in metrics.items()
    ]
    present = tracking.get_run(run_id).data.metrics
    fresh = [metric for metric in scores if present.get(metric.key) != metric.value]
    if fresh:
        tracking.log_batch(run_id, metrics=fresh)
    for file in [folder.path / "scores.json", *sorted(folder.figures.glob("*"))]:
        if file.exists():
            tracking.log_artifact(run_id, str(file), "figures" if file.parent == folder.figures else None)


def _milliseconds() -> int:
    return int(time.time() * 1000)
