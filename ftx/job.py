"""One process of a run: prepare, train, score; whatever of it is still missing."""

import ctypes
import logging
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from ftx import progress
from ftx.checkpoints import set_damaged_aside
from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.data.prepare import Prepared, prepare
from ftx.distributed import end_process, join, leave, rank_of
from ftx.environment import Rank, announce_cpu, slurm_job_id
from ftx.errors import ExitCode, Interrupted, UserError
from ftx.lock import Held, lock
from ftx.models import load_model, load_trained, trainable
from ftx.precision import computing, set_device_options
from ftx.processes import die_with
from ftx.rank_failure import RankFailure, first_failure, note_failure
from ftx.resume import make_readable
from ftx.run_folder import TRAINED, Phase, RunFolder, remove_leftovers
from ftx.scores import describe
from ftx.scoring import check_task, keep_result, score_task
from ftx.stopping import StopRequest, listening
from ftx.strategies import forget_sharing
from ftx.tasks.task import TaskInput
from ftx.tracking import Tracker
from ftx.trainer import train

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def run_job(folder: RunFolder, phase: Phase = Phase.ALL) -> ExitCode:
    """Bring the run in ``folder`` to its end, or to that of ``phase``, and say in status.json how it ended.

    Of several ranks the first one does both; the others take part in the training.
    """
    run = (folder.read_scoring() if phase is Phase.SCORE else None) or folder.read_run()
    if run.hardware.device == "cpu":
        announce_cpu()
    rank = rank_of(run)
    try:
        with listening() as stop:
            if not rank.is_main:
                return _other_rank(folder, run, rank, stop)
            with lock(folder.lock, job_id=slurm_job_id()):
                return _held_job(folder, run, stop, phase)
    except Held as held:
        progress.say(f"{folder.name} is {held}; left alone")
        return ExitCode.FAILED


def _held_job(folder: RunFolder, run: RunConfig, stop: StopRequest, phase: Phase) -> ExitCode:
    """The job once nobody else can be at it; every way out leaves a state and a reason."""
    folder.write_status(state="running", reason="", job_id=slurm_job_id())
    with Tracker(folder, run) as tracker:
        try:
            with stop.at_once():
                _train_and_score(folder, run, stop, tracker.hear, phase)
            is_left = phase is Phase.TRAIN and bool(folder.missing_tasks(run))
            state, reason = ("pending", TRAINED) if is_left else ("finished", "")
            code = ExitCode.FINISHED
        except (Exception, Interrupted) as error:
            state, reason, code = _how_it_ended(folder, run, error)
        tracker.end(state, reason)
    # Only now, with everything sent: a run killed before this line comes back and sends what is missing.
    folder.write_status(state=state, reason=reason)
    return code


def _how_it_ended(folder: RunFolder, run: RunConfig, error: BaseException) -> tuple[str, str, ExitCode]:
    """(state, reason, exit code), said to the user."""
    if isinstance(error, UserError):
        log.error("%s", error)
        return "failed", str(error), ExitCode.USER_MISTAKE
    first = first_failure(folder)
    if first is not None:  # what went wrong here is only that the other rank is gone
        log.error("%s", first)
        return "failed", str(first), ExitCode.FAILED
    if isinstance(error, Interrupted):
        progress.say(f"interrupted ({error}); the same command resumes it")
        return "interrupted", str(error), ExitCode.INTERRUPTED
    log.error("%s", "".join(traceback.format_exception(error)))
    reason = f"{type(error).__name__}: {error}"
    if ranks(run) > 1:
        note_failure(folder, RankFailure(0, reason))
    return "failed", reason, ExitCode.FAILED


def _other_rank(folder: RunFolder, run: RunConfig, rank: Rank, stop: StopRequest) -> ExitCode:
    """Take part in the training; rank 0 does what is left of the run."""
    try:
        with stop.at_once():
            _set_up(run)
            if run.schedule.epochs != 0 and not folder.model.exists():
                _train(folder, run, prepare(run), stop, on_row=lambda: None)
        return ExitCode.FINISHED
    except Interrupted:
        return ExitCode.INTERRUPTED
    except Exception as error:
        log.error("%s", traceback.format_exc())
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        note_failure(folder, RankFailure(rank.index, reason))
        return ExitCode.USER_MISTAKE if isinstance(error, UserError) else ExitCode.FAILED


def _train_and_score(
    folder: RunFolder, run: RunConfig, stop: StopRequest, on_row: Callable[[], None], phase: Phase
) -> None:
    _set_up(run)
    remove_leftovers(folder)
    set_damaged_aside(folder)
    prepared = prepare(run)
    progress.say(prepared.counts.describe())
    for task in folder.missing_tasks(run):
        check_task(task, prepared)
    model = None
    if phase is not Phase.SCORE and run.schedule.epochs != 0 and not folder.model.exists():
        model = _train(folder, run, prepared, stop, on_row)
    for task in folder.missing_tasks(run) if phase is not Phase.TRAIN else []:
        if model is None:
            model = _model_to_score(folder, run, prepared)
        given = TaskInput(model, prepared, run.evaluation.limit, run.evaluation.batch_size, run.seed)
        with computing(run):
            result = score_task(task, given)
        scores = keep_result(folder, run, task, result)
        progress.say(describe({task: scores[task]}))


def _model_to_score(folder: RunFolder, run: RunConfig, prepared: Prepared) -> PreTrainedModel:
    """The trained one, or the base model of a run without training, where it is to compute."""
    if folder.model.exists():
        model = load_trained(folder.model, run, prepared.tokenizer)
    elif run.schedule.epochs != 0:
        raise UserError(
            f"{folder.name} has no model/ to score: it is not trained yet, the same command does that first"
        )
    else:
        model = load_model(run, prepared.tokenizer)
    # Quantised models are loaded where they belong, and cannot be moved.
    if run.hardware.device == "cuda" and run.method.name != "qlora":
        torch.nn.Module.to(model, "cuda")
    return model


def _set_up(run: RunConfig) -> None:
    if run.hardware.device == "cpu":
        torch.set_num_threads(run.hardware.threads or torch.get_num_threads())
        keep_freed_memory()
    set_device_options(run)
    disable_progress_bar()


def _train(
    folder: RunFolder, run: RunConfig, prepared: Prepared, stop: StopRequest, on_row: Callable[[], None]
) -> PreTrainedModel | None:
    """The trained model where it is whole in this process, which is then alone; else None, and ``model/`` has it."""
    if rank_of(run).is_main:
        make_readable(folder, run)
    join(run)
    model = model_to_train(run, prepared)
    train(run, prepared, model, folder, stop, on_row)
    leave()
    forget_sharing()
    return model if ranks(run) == 1 else None


def model_to_train(run: RunConfig, prepared: Prepared) -> PreTrainedModel:
    """What the run starts from, with what its method adds."""
    return trainable(load_model(run, prepared.tokenizer), run)


def keep_freed_memory() -> None:
    """glibc gives large blocks back to the system when freed; a training step wants the same ones again at once.

    Keeping them saves the page faults: a tenth of a CPU step and more.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


if __name__ == "__main__":
    options = sys.argv[3:]
    to_log = "console" not in options
    part = next((phase for phase in Phase if phase in options), Phase.ALL)
    progress.start_console(with_time=to_log)
    die_with(int(sys.argv[2]))
    described = RunFolder(Path(sys.argv[1]))
    try:
        with nullcontext() if to_log else progress.also_into(described.log):
            ended_with = run_job(described, part)
    except Interrupted:  # a second signal, while the first was being seen to
        ended_with = ExitCode.INTERRUPTED
    end_process(ended_with)
