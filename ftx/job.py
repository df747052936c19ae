"""One run in one process: prepare, train, score; whatever of it is still missing."""

import ctypes
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from ftx import progress
from ftx.checkpoints import set_damaged_aside
from ftx.config.schema import RunConfig
from ftx.data.prepare import prepare
from ftx.environment import announce_cpu, slurm_job_id
from ftx.errors import ExitCode, Interrupted, UserError
from ftx.lock import Held, lock
from ftx.models import load_model, load_trained, trainable
from ftx.precision import computing, set_device_options
from ftx.run_folder import RunFolder, remove_leftovers
from ftx.scores import describe
from ftx.scoring import check_task, keep_result, score_task
from ftx.stopping import StopRequest, listening
from ftx.tasks.task import TaskInput
from ftx.tracking import Tracker
from ftx.trainer import train

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def run_job(folder: RunFolder) -> ExitCode:
    """Bring the run in ``folder`` to its end, and say in status.json how it ended."""
    run = folder.read_run()
    if run.hardware.device == "cpu":
        announce_cpu()
    try:
        with listening() as stop, lock(folder.lock, job_id=slurm_job_id()):
            return _held_job(folder, run, stop)
    except Held as held:
        progress.say(f"{folder.name} is {held}; left alone")
        return ExitCode.FAILED


def _held_job(folder: RunFolder, run: RunConfig, stop: StopRequest) -> ExitCode:
    """The job once nobody else can be at it; every way out leaves a state and a reason."""
    folder.write_status(state="running", reason="", job_id=slurm_job_id())
    with Tracker(folder, run) as tracker:
        try:
            with stop.at_once():
                _train_and_score(folder, run, stop, tracker.hear)
            state, reason, code = "finished", "", ExitCode.FINISHED
        except Interrupted as interruption:
            state, reason, code = "interrupted", str(interruption), ExitCode.INTERRUPTED
            progress.say(f"interrupted ({reason}); the same command resumes it")
        except UserError as mistake:
            state, reason, code = "failed", str(mistake), ExitCode.USER_MISTAKE
            log.error("%s", mistake)
        except Exception as error:
            state, reason, code = "failed", f"{type(error).__name__}: {error}", ExitCode.FAILED
            log.error("%s", traceback.format_exc())
        tracker.end(state, reason)
    # Only now, with everything sent: a run killed before this line comes back and sends what is missing.
    folder.write_status(state=state, reason=reason)
    return code


def _train_and_score(folder: RunFolder, run: RunConfig, stop: StopRequest, on_row: Callable[[], None]) -> None:
    if run.hardware.device == "cpu":
        torch.set_num_threads(run.hardware.threads or torch.get_num_threads())
        keep_freed_memory()
    set_device_options(run)
    disable_progress_bar()
    remove_leftovers(folder)
    set_damaged_aside(folder)
    prepared = prepare(run)
    progress.say(prepared.counts.describe())
    for task in folder.missing_tasks(run):
        check_task(task, prepared)
    trained = folder.model.exists()
    if run.schedule.epochs != 0 and not trained:
        model = trainable(load_model(run, prepared.tokenizer), run)
        train(run, prepared, model, folder, stop, on_row)
    elif trained:
        model = load_trained(folder.model, run, prepared.tokenizer)
    else:
        model = load_model(run, prepared.tokenizer)
    for task in folder.missing_tasks(run):
        given = TaskInput(model, prepared, run.evaluation.limit, run.evaluation.batch_size, run.seed)
        with computing(run):
            result = score_task(task, given)
        scores = keep_result(folder, run, task, result)
        progress.say(describe({task: scores[task]}))


def keep_freed_memory() -> None:
    """glibc gives large blocks back to the system when freed; a training step wants the same ones again at once.

    Keeping them saves the page faults: a tenth of a CPU step and more.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def die_with(launcher: int) -> None:
    """On Linux, get SIGTERM when the launcher dies, however it dies; elsewhere the run goes on alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher:  # it died while this process was still importing
            sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    progress.start_console(with_time=True)
    die_with(int(sys.argv[2]))
    try:
        sys.exit(run_job(RunFolder(Path(sys.argv[1]))))
    except Interrupted:  # a second signal, while the first was being seen to
        sys.exit(ExitCode.INTERRUPTED)
