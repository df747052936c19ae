"""``python -m ftx.report SWEEP``: a sweep as a table and a figure, with the state of what is not finished."""

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from ftx.config.schema import TrackingConfig
from ftx.environment import CHECKOUT
from ftx.errors import ExitCode, UserError
from ftx.figures import Point, metric_against, save
from ftx.run_folder import RunFolder, write_text
from ftx.sweep_folder import Sweep, find_sweep, state_of
from ftx.sweep_table import BASE_KEY, Arm, metrics_of, swept_keys, table, to_csv, to_markdown
from ftx.verb import verb

log = logging.getLogger(__name__)


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """Print the report of a sweep, or send what MLflow lacks."""
    given = _read_arguments(arguments)
    if given.sync:
        return sync(given.names, given.run_root)
    if len(given.names) != 1:
        raise UserError("name one sweep: python -m ftx.report SWEEP (a folder or its name)")
    sweep = find_sweep(given.names[0], given.run_root)
    tracking = sweep.folders()[0].read_run().tracking
    sys.stdout.write(write_report(sweep, tracking, metrics=given.metric) + "\n")
    return ExitCode.FINISHED


def write_report(
    sweep: Sweep, tracking: TrackingConfig, *, ran: bool = True, metrics: Sequence[str] | None = None
) -> str:
    """Write report.md, report.csv and the figure into the sweep's folder and its MLflow parent; returns the text.

    With ``ran=False`` nothing has changed since the last report, and MLflow is left in peace.
    """
    arms = sweep.arms()
    text = to_markdown(table(arms, metrics))
    write_text(sweep.path / "report.md", f"# {sweep.name}\n\n{text}")
    write_text(sweep.path / "report.csv", to_csv(arms))
    figure = _draw(sweep, arms, metrics)
    if ran and sweep.mlflow_parent_id and not tracking.offline:
        from ftx.tracking import close_parent

        files = [sweep.path / name for name in ("report.md", "report.csv", "figure.png", "figure.svg")]
        close_parent(tracking, sweep.mlflow_parent_id, [file for file in files if file.exists()], _state(arms))
    return text + (f"\nfigure: {figure}" if figure else "")


def sync(names: Sequence[str], run_root: Path) -> ExitCode:
    """``--sync``: send what MLflow lacks, of the named runs and sweeps, else of all runs."""
    from ftx.tracking import Sender

    folders = [
        RunFolder(path.parent) for path in sorted(run_root.glob("*/run.yaml")) if ".old-" not in path.parent.name
    ]
    if names:
        folders = [folder for name in names for folder in _folders_called(name, run_root)]
    for folder in folders:
        run = folder.read_run()
        Sender(folder, run).send(*state_of(folder))
        sys.stdout.write(f"{folder.name}: MLflow at {run.tracking.uri} is up to date\n")
    return ExitCode.FINISHED


def _folders_called(name: str, run_root: Path) -> list[RunFolder]:
    for path in (Path(name), run_root / name):
        if (path / "run.yaml").is_file():
            return [RunFolder(path.absolute())]
    return find_sweep(name, run_root).folders()


def _draw(sweep: Sweep, arms: Sequence[Arm], metrics: Sequence[str] | None) -> Path | None:
    """The primary metric against the swept key, where one key with numbers was swept and an arm has a score."""
    keys = swept_keys(arms)
    known = metrics_of(arms, metrics)
    if len(keys) != 1 or not known or not all(_is_number(arm.swept[keys[0]]) for arm in arms):
        return None
    metric, key = known[0], keys[0]
    points = []
    for arm in arms:
        score = metric.score(arm)
        if score is not None:
            low, high = score.interval or (math.nan, math.nan)
            points.append(Point(float(arm.swept[key]), score.value, low, high, ""))
    labels = max(sum(name.startswith("f1.") for name in arm.scores.get(metric.task, {})) for arm in arms)
    drawn = metric_against(
        points,
        x_label=key.rsplit(".", 1)[-1],
        y_label=f"{metric.task} {metric.name}".replace("_", " "),
        title=sweep.experiment,
        chance=1 / labels if metric.name == "accuracy" and labels else None,
        percent=metric.is_rate(arms),
        lower_is_better=metric.lower_is_better,
        base_at=0 if key == BASE_KEY else None,
    )
    return save(drawn, sweep.path / "figure")[0]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _state(arms: Sequence[Arm]) -> str:
    states = {arm.state for arm in arms}
    return "failed" if "failed" in states else "finished" if states == {"finished"} else "running"


def _read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ftx.report", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SWEEP", help="a sweep's folder or name")
    parser.add_argument("--metric", action="append", help="show these metrics only; the first is the primary one")
    parser.add_argument(
        "--sync", action="store_true", help="send MLflow what it lacks of all runs, or of the named ones"
    )
    parser.add_argument(
        "--run-root", type=Path, default=CHECKOUT / "runs", help="where runs are (default: %(default)s)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
