"""``python -m ftx.report SWEEP``: a sweep as a table and a figure, with the state of what is not finished."""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ftx.config.schema import RunConfig, TrackingConfig
from ftx.errors import ExitCode, UserError
from ftx.lock import holder
from ftx.mlflow_parent import close_parent
from ftx.published import published_arms
from ftx.run_folder import RunFolder
from ftx.slurm_queue import Job
from ftx.standing import ask_slurm, state_of
from ftx.sweep_arms import Arm
from ftx.sweep_folder import Sweep, find_sweep, read_sweep
from ftx.sweep_report import Recorded, Wanted, write_files
from ftx.trackers import Destination, destinations
from ftx.tracking import brief
from ftx.verb import add_run_root, verb

log = logging.getLogger(__name__)


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """Print the report of a sweep or of an experiment's published numbers, or send what MLflow lacks."""
    given = _read_arguments(arguments)
    if given.sync:
        return sync(given.names, given.run_root)
    wanted = Wanted(given.metric, given.against == "published")
    if given.published:
        sys.stdout.write(write_published(given.published, given.run_root, wanted) + "\n")
        return ExitCode.FINISHED
    if len(given.names) != 1:
        raise UserError("name one sweep: python -m ftx.report SWEEP (a folder or its name)")
    sweep = find_sweep(given.names[0], given.run_root)
    sys.stdout.write(write_report(sweep, tracking_of(sweep), wanted=wanted) + "\n")
    return ExitCode.FINISHED


def write_report(sweep: Sweep, tracking: TrackingConfig, *, ran: bool = True, wanted: Wanted | None = None) -> str:
    """Write the report into the sweep's folder and its MLflow parent; returns what to print.

    With ``ran=False`` nothing has changed since the last report, and MLflow is left in peace.
    """
    arms = sweep.arms(_jobs_of(sweep))
    runs = {folder.name: folder for folder in sweep.folders()}
    report = write_files(sweep.path, Recorded(sweep.name, sweep.experiment, arms, runs), wanted or Wanted())
    if ran and sweep.mlflow_parent_id and not tracking.offline:
        close_parent(tracking, sweep.mlflow_parent_id, report.files, report.summary, _state(arms))
    return report.text


def write_published(experiment: str, run_root: Path, wanted: Wanted) -> str:
    """The same from what an experiment states that others have published, without any run; returns what to print."""
    from ftx.config.compose import compose_all

    expected = compose_all([f"experiment={experiment}"]).runs[0].run.expected
    if not expected.results:
        raise UserError(f"--published={experiment}: the experiment states no published numbers under expected.results")
    folder = run_root / "published" / experiment
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{experiment}, as published"
    report = write_files(folder, Recorded(title, title, published_arms(expected), {}), wanted)
    return f"{report.text}\nreport: {folder / 'report.md'}" + (
        f"\nsource: {expected.source}" if expected.source else ""
    )


def _jobs_of(sweep: Sweep) -> dict[str, Job] | None:
    """None where SLURM does not answer, as on a machine that is no part of the cluster."""
    try:
        return ask_slurm(sweep.folders())
    except UserError as error:
        log.warning("%s; the states are those that the runs have written themselves", error)
        return None


def sync(names: Sequence[str], run_root: Path) -> ExitCode:
    """``--sync``: send what MLflow lacks, of the named runs and sweeps, else of all; and what other trackers do."""
    runs, sweeps = _called(names, run_root) if names else _everything(run_root)
    sweeps = [_with_parent(sweep) for sweep in sweeps]
    codes = [_send(folder) for folder in dict.fromkeys([*runs, *(one for sweep in sweeps for one in _runs_of(sweep))])]
    for sweep in sweeps:
        write_report(sweep, replace(tracking_of(sweep), offline=False))
    return max(codes, default=ExitCode.FINISHED)


def _send(folder: RunFolder) -> ExitCode:
    run = folder.read_run()
    if (at_it := holder(folder.lock)) is not None:
        sys.stdout.write(f"{folder.name}: {at_it} is at it and sends it\n")
        return ExitCode.FINISHED
    codes = [_bring_up_to_date(folder, run, destination) for destination in destinations(run)]
    return max(codes)


def _bring_up_to_date(folder: RunFolder, run: RunConfig, destination: Destination) -> ExitCode:
    try:
        destination.sender(folder, run).send(*state_of(folder))
    except Exception as error:  # whatever ails one tracker, the others are told
        sys.stderr.write(f"error: {folder.name}: {destination.failure} ({brief(error)})\n")
        return ExitCode.FAILED
    sys.stdout.write(f"{folder.name}: {destination.name} is up to date\n")
    return ExitCode.FINISHED


def _with_parent(sweep: Sweep) -> Sweep:
    """With the MLflow parent that an offline sweep, or one whose server was away, did not get."""
    orphans = [one for one in sweep.members if not sweep.folder_of(one).read_membership()]
    there = [one for one in orphans if (sweep.folder_of(one).path / "run.yaml").exists()]
    return sweep.with_parent(tracking_of(sweep), there)


def tracking_of(sweep: Sweep) -> TrackingConfig:
    """Where the sweep's runs are tracked."""
    runs = _runs_of(sweep)
    if not runs:
        raise UserError(f"{sweep.name}: none of its runs is left in {sweep.path.parent.parent}")
    return runs[0].read_run().tracking


def _runs_of(sweep: Sweep) -> list[RunFolder]:
    return [folder for folder in sweep.folders() if (folder.path / "run.yaml").exists()]


def _everything(run_root: Path) -> tuple[list[RunFolder], list[Sweep]]:
    runs = [path.parent for path in sorted(run_root.glob("*/run.yaml")) if ".old-" not in path.parent.name]
    sweeps = [read_sweep(path.parent) for path in sorted(run_root.glob("sweeps/*/sweep.json"))]
    return [RunFolder(path.absolute()) for path in runs], [sweep for sweep in sweeps if _runs_of(sweep)]


def _called(names: Sequence[str], run_root: Path) -> tuple[list[RunFolder], list[Sweep]]:
    runs, sweeps = [], []
    for name in names:
        paths = [path for path in (Path(name).expanduser(), run_root / name) if (path / "run.yaml").is_file()]
        if paths:
            runs.append(RunFolder(paths[0].absolute()))
        else:
            sweeps.append(find_sweep(name, run_root))
    return runs, sweeps


def _state(arms: Sequence[Arm]) -> str:
    states = {arm.state for arm in arms}
    return "failed" if "failed" in states else "finished" if states == {"finished"} else "running"


def _read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ftx.report", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SWEEP", help="a sweep's folder or name")
    parser.add_argument("--metric", action="append", help="show these metrics only; the first is the primary one")
    parser.add_argument(
        "--against", choices=["published"], help="test our numbers against those that the experiment states"
    )
    parser.add_argument(
        "--published", metavar="EXPERIMENT", help="the same report from the published numbers alone, without a run"
    )
    parser.add_argument(
        "--sync", action="store_true", help="send the trackers what they lack of all runs, or of the named ones"
    )
    add_run_root(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
