"""``python -m ftx.sweep status|cancel|retry SWEEP``: what has become of a launched sweep, and what shall."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from ftx.attempts import attempts
from ftx.config.compose import ComposedRun
from ftx.errors import ExitCode
from ftx.lock import holder
from ftx.metrics_log import last_training_row
from ftx.processes import is_here
from ftx.progress import say
from ftx.run_folder import STATES, RunFolder
from ftx.slurm_queue import Job
from ftx.standing import ask_slurm, job_of, settle, state_of
from ftx.sweep_folder import Sweep, find_sweep
from ftx.verb import add_run_root, verb

POLL_SECONDS = 3.0


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """Look at a sweep, end it, or start again what of it is not finished."""
    given = _read_arguments(arguments)
    sweep = find_sweep(given.name, given.run_root)
    jobs = ask_slurm(sweep.folders())
    if given.what == "cancel":
        return cancel(sweep, jobs)
    _settle_all(sweep, jobs)
    if given.what == "retry":
        return retry(sweep)
    return follow(sweep) if given.wait else look(sweep, jobs)


def look(sweep: Sweep, jobs: Mapping[str, Job]) -> ExitCode:
    """Print how the sweep stands."""
    sys.stdout.write(describe(sweep, jobs))
    return ExitCode.FINISHED


def follow(sweep: Sweep) -> ExitCode:
    """Print it again whenever a state changes, until no run is queued or at work; the exit code is the sweep's."""
    before: list[str] = []
    while True:
        jobs = ask_slurm(sweep.folders())
        _settle_all(sweep, jobs)
        states = [state_of(folder, jobs)[0] for folder in sweep.folders()]
        if states != before:
            look(sweep, jobs)
            sys.stdout.flush()
        if not {"pending", "running"} & set(states):
            break
        before = states
        time.sleep(POLL_SECONDS)
    if "failed" in states:
        return ExitCode.FAILED
    return ExitCode.FINISHED if set(states) == {"finished"} else ExitCode.INTERRUPTED


def describe(sweep: Sweep, jobs: Mapping[str, Job]) -> str:
    """Every run with its state, how often it was started, how far it is, and what is to say about it."""
    rows = [("run", "state", "starts", "epoch", "")]
    states = []
    for member in sweep.members:
        folder = sweep.folder_of(member)
        state, reason = state_of(folder, jobs)
        job = job_of(folder, jobs)
        starts = str(len(attempts(folder))) if attempts(folder) else ""
        epoch = last_training_row(folder.metrics).get("epoch")
        about = reason if reason or job is None else str(job)
        states.append(state)
        rows.append((member.title, state, starts, "" if epoch is None else f"{epoch:.2f}", about))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counts = Counter(states)
    summary = ", ".join(f"{counts[state]} {state}" for state in reversed(STATES) if counts[state])
    return "\n".join([f"{sweep.path}: {summary}", *lines]) + "\n"


def cancel(sweep: Sweep, jobs: Mapping[str, Job]) -> ExitCode:
    """End every run that is queued or at work; a run that trains writes a checkpoint first if it is given the time."""
    active = {job.id for folder in sweep.folders() if (job := job_of(folder, jobs)) and job.is_active}
    # The job that would score a run waits for the run's own.
    ids = sorted(active | {job.id for job in jobs.values() if job.is_active})
    if ids:
        subprocess.run(["scancel", *ids], check=True)
    for folder in sweep.folders():
        at_it = holder(folder.lock)
        if at_it is not None and at_it.job_id is None and is_here(at_it):
            os.kill(at_it.pid, signal.SIGTERM)
    waiting = [folder for folder in sweep.folders() if folder.read_status().state == "pending"]
    for folder in waiting:
        folder.write_status(state="interrupted", reason="cancelled before it began")
    say(f"cancelled {len(ids)} job{'s' * (len(ids) != 1)}; python -m ftx.sweep retry {sweep.name} goes on with them")
    return ExitCode.FINISHED


def retry(sweep: Sweep) -> ExitCode:
    """Start again every run that is neither finished nor queued nor running, as it was described then."""
    from launchers import local, slurm

    runs = [_described(folder) for folder in sweep.folders()]
    launcher = slurm if runs[0].run.launcher.name == "slurm" else local
    return launcher.work_on(sweep, runs)


def _described(folder: RunFolder) -> ComposedRun:
    words = (folder.path / "overrides.txt").read_text(encoding="utf-8").splitlines()
    return ComposedRun(folder.read_run(), tuple(words), {}, folder.read_scoring())


def _settle_all(sweep: Sweep, jobs: Mapping[str, Job]) -> None:
    """What ended without a word is said of now, in MLflow too."""
    from ftx.tracking import tell

    for folder in sweep.folders():
        if news := settle(folder, jobs):
            tell(folder, folder.read_run(), *news)


def _read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ftx.sweep", description=__doc__)
    parser.add_argument("what", choices=["status", "cancel", "retry"])
    parser.add_argument("name", metavar="SWEEP", help="a sweep's folder or name")
    parser.add_argument("--wait", action="store_true", help="with status: until no run is queued or at work")
    add_run_root(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
