"""On this machine: a single run in this process, each run of a sweep and each of several ranks in one of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ftx import progress
from ftx.config.compose import ComposedRun, Composition
from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.data.fingerprint import data_fingerprint, model_fingerprint
from ftx.environment import child_environment
from ftx.errors import ExitCode
from ftx.lock import holder
from ftx.metrics_log import last_training_row
from ftx.preflight import list_gpus
from ftx.provenance import describe_provenance
from ftx.report import write_report
from ftx.run_folder import RunFolder, find_run_folder, move_aside, open_run_folder
from ftx.scores import describe
from ftx.sweep_folder import Member, Sweep, open_sweep, state_of
from launchers.ranks import run_phases, threads_of_each

POLL_SECONDS = 0.2


def launch_run(composed: ComposedRun, folder: RunFolder) -> ExitCode:
    """One run, here and now, in the folder that ``locate`` gave it."""
    progress.say(f"run: {folder.path}")
    if folder.is_complete(composed.run):
        progress.say("finished already, nothing to do; fresh=true starts over")
        progress.say(describe(folder.read_scores()))
        return ExitCode.FINISHED
    if (at_it := holder(folder.lock)) is not None:
        progress.say(f"{at_it} is at it; left alone")
        return ExitCode.FAILED
    describe_on_disk(composed, folder)
    if ranks(composed.run) > 1 or composed.scoring is not None:
        return run_phases(folder, composed.run, composed.scoring, threads_of_each(composed.run), with_time=False)
    from ftx.job import run_job

    with progress.also_into(folder.log):
        return run_job(folder)


def launch_sweep(composition: Composition) -> ExitCode:
    """Every run of the sweep that is not finished, then the report."""
    folders = [locate(composed) for composed in composition.runs]
    sweep = open_sweep(composition, folders)
    progress.say(f"sweep: {sweep.path}")
    waiting = []
    for composed, member in zip(composition.runs, sweep.members, strict=True):
        folder = sweep.folder_of(member)
        if folder.is_complete(composed.run):
            progress.say(f"{member.title}: finished already")
        elif (at_it := holder(folder.lock)) is not None:
            progress.say(f"{member.title}: {at_it} is at it; left alone")
        else:
            describe_on_disk(composed, folder)
            waiting.append(_Waiting(composed.run, composed.scoring, member, folder))
    if waiting:
        tracking = waiting[0].run.tracking
        if not tracking.offline:
            sweep = sweep.with_parent(tracking, [one.member for one in waiting])
        _work_off(sweep, waiting, composition.runs[0].run.launcher.parallel)
    progress.say(write_report(sweep, composition.runs[0].run.tracking, ran=bool(waiting)))
    states = {state_of(folder)[0] for folder in folders}
    if "failed" in states:
        return ExitCode.FAILED
    return ExitCode.FINISHED if states == {"finished"} else ExitCode.INTERRUPTED


def locate(composed: ComposedRun) -> RunFolder:
    """The run's folder by its identity; with ``fresh=true`` what is there is moved aside first."""
    run = composed.run
    folder = find_run_folder(run, data_fingerprint(run), model_fingerprint(run))
    if run.fresh and holder(folder.lock) is None and (aside := move_aside(folder)):
        progress.say(f"fresh: moved {folder.name} to {aside}")
    return folder


def describe_on_disk(composed: ComposedRun, folder: RunFolder) -> None:
    """Make the run's folder with everything a job needs to know."""
    run = composed.run
    provenance = describe_provenance(data_fingerprint(run), model_fingerprint(run))
    open_run_folder(folder, run, composed.words, provenance, composed.scoring)


@dataclass(frozen=True)
class _Waiting:
    run: RunConfig
    scoring: RunConfig | None
    member: Member
    folder: RunFolder


def _work_off(sweep: Sweep, waiting: Sequence[_Waiting], parallel: int) -> None:
    """As many at a time as ``launcher.parallel`` says; all of them end when this process is told to."""
    # The longest first, so that none is left to work alone at the end.
    queue = sorted(waiting, key=lambda one: -_epochs(one)) if parallel > 1 else list(waiting)
    running: dict[subprocess.Popen[bytes], _Waiting] = {}
    places: dict[subprocess.Popen[bytes], int] = {}
    gpus = gpus_of_places([run for one in waiting for run in (one.run, one.scoring) if run is not None], parallel)
    epochs_ended = 0
    with (
        progress.Progress(sweep.experiment, sum(map(_epochs, waiting)), unit="epoch") as shown,
        _ended_with_us(running),
    ):
        while queue or running:
            while queue and len(running) < parallel:
                one = queue.pop(0)
                place = min(set(range(parallel)) - set(places.values()))
                process = _start(one, parallel, gpus[place])
                running[process], places[process] = one, place
            for process in [process for process in running if process.poll() is not None]:
                ended = running.pop(process)
                del places[process]
                epochs_ended += _epochs(ended)
                _say_how_it_ended(ended)
            rows = {one.member.title: last_training_row(one.folder.metrics) for one in running.values()}
            shown.show(epochs_ended + int(sum(row.get("epoch", 0) for row in rows.values())), _at_the_moment(rows))
            time.sleep(POLL_SECONDS)


def _epochs(one: _Waiting) -> int:
    """For a run by steps nobody knows before its data is prepared: counted as one."""
    epochs = one.run.schedule.epochs
    return 1 if epochs is None else epochs


def _start(one: _Waiting, parallel: int, gpus: list[str]) -> "subprocess.Popen[bytes]":
    """The run in a process and session of its own, which sees these GPUs; what it says goes to its log.txt."""
    threads = threads_of_each(one.run, parallel)
    here = [str(one.folder.path), str(os.getpid())]
    is_one = ranks(one.run) == 1 and one.scoring is None
    command = ["ftx.job", *here] if is_one else ["launchers.ranks", *here, str(threads)]
    with one.folder.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            env=child_environment(threads, gpus=gpus),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def gpus_of_places(runs: Sequence[RunConfig], parallel: int) -> list[list[str]]:
    """The GPUs that each of ``parallel`` runs side by side has to itself, as many as the largest run takes."""
    each = max((run.hardware.gpus_per_node for run in runs if run.hardware.device == "cuda"), default=0)
    there = list_gpus() if each else []
    return [there[place * each : (place + 1) * each] for place in range(parallel)]


@contextmanager
def _ended_with_us(running: "dict[subprocess.Popen[bytes], _Waiting]") -> Iterator[None]:
    """Interrupted runs write a checkpoint before they go: wait for them."""
    try:
        yield
    except BaseException:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        raise


def _say_how_it_ended(one: _Waiting) -> None:
    state, reason = state_of(one.folder)
    if state == "finished":
        progress.say(f"{one.member.title}: {describe(one.folder.read_scores(), brief=True)}")
    else:
        progress.say(f"{one.member.title}: {state}: {reason} (see {one.folder.log})")


def _at_the_moment(rows: dict[str, dict[str, Any]]) -> str:
    """``epochs=5 step 120 loss 0.312`` of each run that is at work, by its title and newest row."""
    facts = [
        f"{title} step {row['step']} loss {row['train_loss']:.3f}" if row else title for title, row in rows.items()
    ]
    return " · ".join(facts)
