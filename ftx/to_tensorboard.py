"""TensorBoard: event files under ``tensorboard/`` of the run's folder, written anew from metrics.jsonl by each start.

So they say what metrics.jsonl says, whatever a resume has cut of it. Scalars have MLflow's names and steps.
"""

import os
import time
from io import BufferedWriter
from typing import TYPE_CHECKING

from ftx.config.schema import RunConfig
from ftx.environment import node_name
from ftx.metric_points import values_of
from ftx.mlflow_names import named_scores
from ftx.row_stream import RowStream
from ftx.run_folder import RunFolder

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

# What a reader of event files asks for first.
VERSION = "brain.Event:2"


class TensorBoardSender:
    """Brings the run's event file up to date, as often as it is asked to; a state other than running closes it."""

    def __init__(self, folder: RunFolder, run: RunConfig) -> None:
        self._folder = folder
        self._rows = RowStream(folder)
        self._file: BufferedWriter | None = None

    def send(self, state: str, reason: str) -> None:
        """The rows that came since, and at the end the scores. Raises Fenced, or OSError where the disk is full."""
        if self._file is None:
            self._begin()
        assert self._file is not None
        self._write_rows(self._file)
        if state != "running":
            self._write_scores(self._file)
        self._folder.check_ours()
        self._file.flush()
        if state != "running":
            self._file.close()

    def _begin(self) -> None:
        """A file with all there is so far takes the place of those that earlier starts have written."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        final = self._folder.tensorboard / f"events.out.tfevents.{time.time():.6f}.{node_name()}.{os.getpid()}"
        final.parent.mkdir(exist_ok=True)
        hidden = final.with_name(f".{final.name}.tmp")
        file = hidden.open("wb")
        now = time.time()
        _write(file, Event(wall_time=now, file_version=VERSION))
        # A TensorBoard that is open forgets what it has read of earlier files.
        _write(file, Event(wall_time=now, step=0, session_log=SessionLog(status=SessionLog.START)))
        self._write_rows(file)
        file.flush()
        self._folder.check_ours()
        hidden.rename(final)
        for other in final.parent.glob("events.out.tfevents.*"):
            if other != final:
                other.unlink()
        self._file = file

    def _write_rows(self, file: BufferedWriter) -> None:
        for row, milliseconds in self._rows.fresh():
            _write(file, _scalars(values_of(row), row["step"], milliseconds / 1000))

    def _write_scores(self, file: BufferedWriter) -> None:
        if values := named_scores(self._folder.read_scores()):
            _write(file, _scalars(values, 0, (self._folder.path / "scores.json").stat().st_mtime))


def _scalars(values: dict[str, float], step: int, wall_time: float) -> "Event":
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    found = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    return Event(step=step, wall_time=wall_time, summary=Summary(value=found))


def _write(file: BufferedWriter, event: "Event") -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    RecordWriter(file).write(event.SerializeToString())
