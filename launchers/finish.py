"""The end of a sweep whose runs end in jobs of their own: the last of them writes the report."""

from contextlib import suppress
from pathlib import Path

from ftx import progress
from ftx.lock import Held, lock
from ftx.standing import OVER
from ftx.sweep_folder import read_sweep


def finish_sweep(path: Path | None) -> None:
    """Write the report, and close the MLflow parent, if no run of the sweep is left to end."""
    if path is None:
        return
    sweep = read_sweep(path)
    if any(folder.read_status().state not in OVER for folder in sweep.folders()):
        return
    from ftx.report import tracking_of, write_report

    # Of two that end at the same time both may come here; each has written its own end before it looked.
    with suppress(Held), lock(path / "report.lock"):
        progress.say(write_report(sweep, tracking_of(sweep)))
