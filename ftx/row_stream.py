"""A run's rows of both files in the order of their steps, as they come, for trackers that take no step late."""

from typing import Any

from ftx.metric_points import ROW_KINDS, TrainingTime, kind_of, later_than
from ftx.metrics_log import Follower
from ftx.run_folder import RunFolder


class RowStream:
    """Every row of metrics.jsonl and system.jsonl once; of a step that a resume went through again, the first.

    It begins when somebody first asks, which must be after a resume has cut metrics.jsonl.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._metrics, self._system = Follower(folder.metrics), Follower(folder.system)
        self._waiting: list[dict[str, Any]] = []
        self._given = dict.fromkeys(ROW_KINDS, -1)
        # The folder's own age, so that a row's time is the same whoever sends it, and however often.
        self._time = TrainingTime((folder.path / "provenance.json").stat().st_mtime_ns // 1_000_000, [])
        self._last = -1

    def fresh(self) -> list[tuple[dict[str, Any], int]]:
        """(row, milliseconds since 1970) of the rows that came since.

        What the machine was doing is sampled before the training row of its step is written, and waits for it here.
        """
        trained = self._metrics.fresh()
        self._time.hear(trained)
        self._last = max([self._last, *(row["step"] for row in trained)])
        sampled = self._waiting + self._system.fresh()
        self._waiting = [row for row in sampled if row["step"] > self._last]
        ready = [row for row in sampled if row["step"] <= self._last]
        rows = later_than(self._given, sorted([*ready, *trained], key=lambda row: row["step"]))
        for row in rows:
            self._given[kind_of(row)] = row["step"]
        return [(row, self._time.of(row)) for row in rows]
