"""One process of a run: prepare, train, score; whatever of it is still missing."""

import ctypes
import logging
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from ftx import progress
from ftx.allocation import check_allocation
from ftx.checkpoints import set_damaged_aside
from ftx.config.engine_checks import ELSEWHERE
from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.data.prepare import Prepared, prepare
from ftx.distributed import end_process, join, leave, rank_of
from ftx.engines.choose import engine_of
from ftx.environment import Rank, announce_cpu, slurm_hosts, slurm_job_id
from ftx.errors import ExitCode, ExportFailed, Fenced, Interrupted, UserError
from ftx.exports.steps import make_exports
from ftx.heartbeat import beat, remove_old_beats, watched
from ftx.holding import ending_when_lost, hold, newer_start, say_taken_over
from ftx.lock import Held, nobody
from ftx.models import load_base, load_model, load_trained, trainable
from ftx.precision import computing, set_device_options
from ftx.processes import Holder, die_with
from ftx.rank_failure import RankFailure, first_failure, note_failure
from ftx.resume import make_readable
from ftx.run_folder import TRAINED, Phase, RunFolder
from ftx.runs_on_disk import remove_leftovers
from ftx.scores import describe
from ftx.scoring import answer_share, keep_result, score_task
from ftx.stopping import WARNING, StopRequest, listening
from ftx.strategies import forget_sharing
from ftx.tasks.registry import task_called
from ftx.tasks.task import TaskInput
from ftx.trackers import Trackers
from ftx.trainer import train

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
WARNED = f"warned of the time limit ({WARNING.name}): goes on when SLURM starts it again"


def run_job(folder: RunFolder, phase: Phase = Phase.ALL, *, supersedes: Callable[[Holder], bool] = nobody) -> ExitCode:
    """Bring the run in ``folder`` to its end, or to that of ``phase``, and say in status.json how it ended.

    Of several ranks the first one does both; the others take part in the training. An earlier start of the same SLURM
    job is taken over, and so is whoever ``supersedes`` says yes to; who loses the run writes no more about it.
    """
    run = (folder.read_scoring() if phase is Phase.SCORE else None) or folder.read_run()
    if run.hardware.device == "cpu":
        announce_cpu()
    rank = rank_of(run)
    with listening() as stop, _seen_by_a_watchdog(folder, run, rank):
        if not rank.is_main:
            return _other_rank(folder, run, rank, stop, phase)
        try:
            with hold(folder, stop, supersedes, queued=on_slurm(run)) as ours:
                return _held_job(ours, run, stop, phase)
        except Held as held:
            progress.say(f"{folder.name} is {held}; left alone")
            return ExitCode.FAILED
        except Fenced as fenced:
            log.error("%s", fenced)
            return ExitCode.FAILED


def on_slurm(run: RunConfig) -> bool:
    """Whether SLURM started it, and starts it again after its time limit."""
    return run.launcher.name == "slurm"


def _seen_by_a_watchdog(folder: RunFolder, run: RunConfig, rank: Rank) -> AbstractContextManager[None]:
    """A process that nobody else started has nobody who would look."""
    is_alone = ranks(run) == 1 and run.launcher.name == "local"
    return nullcontext() if is_alone else watched(folder, rank.index)


def _held_job(folder: RunFolder, run: RunConfig, stop: StopRequest, phase: Phase) -> ExitCode:
    """The job once nobody else can be at it; every way out leaves a state and a reason, or raises Fenced."""
    remove_leftovers(folder)
    remove_old_beats(folder)
    folder.write_status(state="running", reason="", job_id=slurm_job_id())
    with Trackers(folder, run) as trackers:
        try:
            with stop.at_once():
                _train_and_score(folder, run, stop, trackers.hear, phase)
            is_left = phase is Phase.TRAIN and bool(folder.missing_tasks(run))
            if not is_left:
                with stop.at_once():
                    _export(folder)
            state, reason = ("pending", TRAINED) if is_left else ("finished", "")
            code = ExitCode.FINISHED
        except (Exception, Interrupted) as error:
            folder.check_ours()
            state, reason, code = _how_it_ended(folder, run, error)
        trackers.end(state, reason)
    # Only now, with everything sent: a run killed before this line comes back and sends what is missing.
    folder.write_status(state=state, reason=reason)
    return code


def _how_it_ended(folder: RunFolder, run: RunConfig, error: BaseException) -> tuple[str, str, ExitCode]:
    """(state, reason, exit code), said to the user."""
    if isinstance(error, UserError):
        log.error("%s", error)
        return "failed", str(error), ExitCode.USER_MISTAKE
    if isinstance(error, ExportFailed):
        log.error("%s", error)
        return "failed", f"export: {error}", ExitCode.FAILED
    first = first_failure(folder)
    if first is not None:  # what went wrong here is only that the other rank is gone
        log.error("%s", first)
        return "failed", str(first), ExitCode.USER_MISTAKE if first.mistake else ExitCode.FAILED
    if isinstance(error, Interrupted) and str(error) == WARNING.name and on_slurm(run):
        progress.say(WARNED)
        return "pending", WARNED, ExitCode.INTERRUPTED
    if isinstance(error, Interrupted):
        progress.say(f"interrupted ({error}); the same command resumes it")
        return "interrupted", str(error), ExitCode.INTERRUPTED
    log.error("%s", "".join(traceback.format_exception(error)))
    reason = f"{type(error).__name__}: {error}"
    if ranks(run) > 1:
        note_failure(folder, RankFailure(0, reason))
    return "failed", reason, ExitCode.FAILED


def _other_rank(folder: RunFolder, run: RunConfig, rank: Rank, stop: StopRequest, phase: Phase) -> ExitCode:
    """Take part in the training and in the scoring; rank 0 does what is left of the run."""
    may_be_lost = ending_when_lost(folder) if on_slurm(run) else nullcontext()
    try:
        with may_be_lost, stop.at_once():
            _set_up(run)
            _check_allocation(folder, run)
            prepared = prepare(run)
            if run.schedule.epochs != 0 and not folder.model.exists():
                _train(folder, run, prepared, stop, on_row=lambda: None)
            if phase is not Phase.TRAIN:
                _score(folder, run, prepared, None)
        return ExitCode.FINISHED
    except Interrupted:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if (at_it := newer_start(folder)) is not None:
            say_taken_over(folder, at_it)
            return ExitCode.FAILED
        log.error("%s", traceback.format_exc())
        mistake = isinstance(error, UserError)
        reason = str(error) if mistake else f"{type(error).__name__}: {error}"
        note_failure(folder, RankFailure(rank.index, reason, mistake))
        return ExitCode.USER_MISTAKE if mistake else ExitCode.FAILED


def _train_and_score(
    folder: RunFolder, run: RunConfig, stop: StopRequest, on_row: Callable[[], None], phase: Phase
) -> None:
    _set_up(run)
    _check_allocation(folder, run)
    set_damaged_aside(folder)
    prepared = prepare(run)
    progress.say(prepared.counts.describe())
    for task in folder.missing_tasks(run):
        task_called(task).check(prepared, run.evaluation)
    model = None
    if phase is not Phase.SCORE and run.schedule.epochs != 0 and not folder.model.exists():
        model = _train(folder, run, prepared, stop, on_row)
    if phase is not Phase.TRAIN:
        _score(folder, run, prepared, model)


def _score(folder: RunFolder, run: RunConfig, prepared: Prepared, model: PreTrainedModel | None) -> None:
    """Every task that has no score: each rank answers its share, and the first one waits for all and scores."""
    rank = rank_of(run)
    for task in folder.missing_tasks(run):
        beat(f"score {task}")
        if model is None and run.evaluation.engine not in ELSEWHERE:
            model = _model_to_score(folder, run, prepared)
        with computing(run):
            engine = engine_of(run, prepared, model, folder)
            given = TaskInput(engine, model, prepared, run.evaluation, run.seed, folder.predictions_folder(task))
            items = task_called(task).items(prepared, run.evaluation)
            answer_share(folder, run, task, given, items, rank)
        if rank.is_main:
            result = score_task(folder, run, task, given, items, _look(folder, task))
            scores = keep_result(folder, run, task, result)
            progress.say(describe({task: scores[task]}))


def _export(folder: RunFolder) -> None:
    """What the run asks for and has not yet; by how it was trained, wherever it is scored."""
    run = folder.read_run()
    if missing := folder.missing_exports(run):
        make_exports(folder, run, missing)


def _look(folder: RunFolder, task: str) -> Callable[[int], None]:
    """While the other ranks are at it: raises RuntimeError where one of them has failed."""

    def look(done: int) -> None:
        beat(f"waiting for the other ranks' part of {task}", done, "item")
        if (failure := first_failure(folder)) is not None:
            raise RuntimeError(str(failure))

    return look


def _model_to_score(folder: RunFolder, run: RunConfig, prepared: Prepared) -> PreTrainedModel:
    """The trained one, or the base model of a run without training, where it is to compute."""
    if folder.model.exists():
        model = load_trained(folder.model, run, prepared.tokenizer)
    elif run.schedule.epochs != 0:
        raise UserError(
            f"{folder.name} has no model/ to score: it is not trained yet, the same command does that first"
        )
    else:
        model = load_base(run, prepared.tokenizer)
    # Quantised models are loaded where they belong, and cannot be moved.
    if run.hardware.device == "cuda" and run.method.name != "qlora":
        torch.nn.Module.to(model, "cuda")
    return model


def _set_up(run: RunConfig) -> None:
    if run.hardware.device == "cpu":
        torch.set_num_threads(run.hardware.threads or torch.get_num_threads())
        keep_freed_memory()
    elif ranks(run) > 1:
        torch.cuda.set_device(rank_of(run).local)
    set_device_options(run)
    disable_progress_bar()


def _check_allocation(folder: RunFolder, run: RunConfig) -> None:
    """On SLURM, where ranks, nodes and disks come together for the first time."""
    if run.launcher.name == "slurm" and slurm_job_id() is not None:
        check_allocation(folder, run, slurm_hosts(), run.hardware.processes_per_node)


def _train(
    folder: RunFolder, run: RunConfig, prepared: Prepared, stop: StopRequest, on_row: Callable[[], None]
) -> PreTrainedModel | None:
    """The trained model where it is whole in this process, which is then alone; else None, and ``model/`` has it."""
    if rank_of(run).is_main:
        make_readable(folder, run)
    beat("meeting the other ranks")
    join(run)
    beat("loading the model")
    model = model_to_train(run, prepared)
    beat("setting training up")
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
