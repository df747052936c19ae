"""Who may bring a run on: one start of it at a time, and the newest of a SLURM job's starts before the older ones."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from ftx import progress
from ftx.distributed import end_process
from ftx.environment import slurm_attempt, slurm_job_id
from ftx.errors import ExitCode
from ftx.lock import Held, Lock, holder, lock
from ftx.processes import Holder, is_earlier_attempt
from ftx.run_folder import RunFolder
from ftx.stopping import StopRequest

log = logging.getLogger(__name__)

# A lock whose holder's machine has gone is free after 60 seconds; its clock and ours may look at it at bad moments.
PATIENCE_SECONDS, LOOK_SECONDS = 90.0, 2.0
# As often as the lock's holder looks whether it still is.
BESIDE_SECONDS = 10.0


@contextmanager
def hold(
    folder: RunFolder, stop: StopRequest, supersedes: Callable[[Holder], bool], *, queued: bool
) -> Iterator[RunFolder]:
    """The folder with its lock, while this process holds it; raises Held where somebody else is at it.

    An earlier start of our own SLURM job is taken over, and whoever ``supersedes`` says yes to: they may be alive, and
    then hear of it at their next write. ``queued``: SLURM started us, so that nobody is there to try again later. A
    holder is waited for until his lock may go stale, and whoever loses the run ends even where it writes nothing.
    """
    with ExitStack() as stack:
        ours = _take(stack, folder, stop, supersedes, queued=queued)
        if ours.taken_from is not None:
            progress.say(f"{folder.name} was held by {ours.taken_from}: taken over")
        yield replace(folder, held=ours)


def newer_start(folder: RunFolder) -> Holder | None:
    """The later start of our own job that has the run now, if any; for who belongs to ours and does not hold the lock.

    Of another job's holder nobody can tell here whether he comes after us or is to be taken over.
    """
    at_it = holder(folder.lock)
    is_later = at_it is not None and at_it.job_id == slurm_job_id() is not None and at_it.attempt > slurm_attempt()
    return at_it if is_later else None


@contextmanager
def ending_when_lost(folder: RunFolder) -> Iterator[None]:
    """Within it this process, which does not hold the lock, ends once a newer start has the run, wherever it is.

    The rank that it works with may be gone, and a collective without it sometimes waits for ever: gloo does not always
    notice.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(BESIDE_SECONDS):
            if (at_it := newer_start(folder)) is not None:
                say_taken_over(folder, at_it)
                end_process(ExitCode.FAILED)

    thread = threading.Thread(target=look, name=f"whose is {folder.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def say_taken_over(folder: RunFolder, by: Holder) -> None:
    log.error("%s has taken %s over: this process ends", by, folder.name)


def _take(
    stack: ExitStack, folder: RunFolder, stop: StopRequest, supersedes: Callable[[Holder], bool], *, queued: bool
) -> Lock:
    job_id, attempt = slurm_job_id(), slurm_attempt()

    def is_over(found: Holder) -> bool:
        return is_earlier_attempt(found, job_id, attempt) or supersedes(found)

    def end_at_once() -> None:
        """From the heartbeat's thread: the others may be stuck in a call that never comes back."""
        log.error("%s", folder.why_not_ours())
        end_process(ExitCode.FAILED)

    on_lost = end_at_once if queued else None
    give_up = time.monotonic() + PATIENCE_SECONDS if queued else 0.0
    told = False
    while True:
        try:
            return stack.enter_context(
                lock(folder.lock, job_id=job_id, attempt=attempt, supersedes=is_over, on_lost=on_lost)
            )
        except Held as held:
            if time.monotonic() > give_up:
                raise
            if not told:
                progress.say(f"{folder.name} is {held}: waiting up to {PATIENCE_SECONDS:.0f} s for that to end")
            told = True
        with stop.at_once():
            time.sleep(LOOK_SECONDS)
