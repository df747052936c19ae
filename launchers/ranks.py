"""The processes of one run on this machine: started together, stopped together, ended when one of them dies."""

import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from ftx import progress
from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.environment import Rank, Rendezvous, child_environment, processors
from ftx.errors import ExitCode, Interrupted
from ftx.lock import holder
from ftx.processes import die_with
from ftx.rank_failure import RankFailure, first_failure, forget_failure, note_failure
from ftx.run_folder import Phase, RunFolder
from ftx.stopping import StopRequest, listening
from launchers.last_word import say_state
from launchers.watchdog import Watchdog

POLL_SECONDS = 0.1
# How long the others have to say themselves why they cannot go on without a dead rank.
GRACE_SECONDS = 20.0

Process = subprocess.Popen[bytes]


def threads_of_each(run: RunConfig, side_by_side: int = 1) -> int:
    """CPU threads of one process where ``side_by_side`` runs share this machine."""
    return run.hardware.threads or max(1, processors() // (side_by_side * ranks(run)))


def run_phases(
    folder: RunFolder, run: RunConfig, scoring: RunConfig | None, threads: int, *, with_time: bool
) -> ExitCode:
    """The run in processes of its own; with ``scoring``, one more on its hardware scores what they have trained."""
    if scoring is None:
        return run_ranks(folder, run, threads, with_time=with_time)
    if run.schedule.epochs != 0 and not folder.model.exists():
        code = run_ranks(folder, run, threads, with_time=with_time, phase=Phase.TRAIN)
        if code != ExitCode.FINISHED:
            return code
    threads = scoring.hardware.threads or threads * ranks(run)
    return run_ranks(folder, scoring, threads, with_time=with_time, phase=Phase.SCORE)


def run_ranks(
    folder: RunFolder, run: RunConfig, threads: int, *, with_time: bool, phase: Phase = Phase.ALL
) -> ExitCode:
    """One process for each rank until all have ended; what rank 0 says goes where this process's words go.

    What the others say is in ``log-rank<n>.txt``. ``with_time``: the words go to a log file.
    """
    forget_failure(folder)
    count = ranks(run)
    watchdog = Watchdog(folder, count, 60 * (run.launcher.watchdog_min or math.inf))
    meet_at = Rendezvous("127.0.0.1", _free_port())
    with listening() as stop, ExitStack() as stack:
        processes: list[Process] = []
        stack.callback(watchdog.forget)
        stack.callback(_kill_all, processes)
        for index in range(count):
            # One alone is to find nothing that speaks of others.
            rank = Rank(index, count, index) if count > 1 else None
            environment = child_environment(threads, rank, meet_at if rank else None)
            processes.append(_start(folder, index, environment, with_time, phase))
        code = _Watch(folder, processes, stop, watchdog).until_the_end()
    # Told to stop when the training was over: its scoring is still to come.
    return ExitCode.INTERRUPTED if stop.reason and phase is Phase.TRAIN and code == ExitCode.FINISHED else code


def _start(folder: RunFolder, index: int, environment: dict[str, str], with_time: bool, phase: Phase) -> Process:
    """In a session of its own: Ctrl-C reaches it through us only, once."""
    with ExitStack() as stack:
        log = None if index == 0 else stack.enter_context(folder.log_of(index).open("ab"))
        say_to = "log" if with_time or index else "console"
        return subprocess.Popen(
            [sys.executable, "-m", "ftx.job", str(folder.path), str(os.getpid()), say_to, phase],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


class _Watch:
    """Passes signals on and ends what a dead rank leaves behind."""

    def __init__(self, folder: RunFolder, processes: list[Process], stop: StopRequest, watchdog: Watchdog) -> None:
        self._folder, self._processes, self._stop, self._watchdog = folder, processes, stop, watchdog
        self._told = False
        self._alone_since: float | None = None
        self._death: RankFailure | None = None
        # Why they were killed from here.
        self._stuck = ""

    def until_the_end(self) -> ExitCode:
        while None in self._codes():
            try:
                if self._stop.reason and not self._told:
                    self._told = True
                    self._send(signal.Signals[self._stop.reason])
                self._see_to_the_rest()
                self._see_to_a_standstill()
                time.sleep(POLL_SECONDS)
            except Interrupted:  # told a second time: to end at once
                self._send(signal.SIGTERM)
        self._look_for_a_death()
        return self._outcome()

    def _codes(self) -> list[int | None]:
        return [process.poll() for process in self._processes]

    def _look_for_a_death(self) -> None:
        """By a signal that was not ours: of that, only we know."""
        if self._death or self._stuck or self._alone_since is not None:
            return
        for index, code in enumerate(self._codes()):
            if code is not None and code < 0 and self._death is None:
                reason = f"process {self._processes[index].pid} was killed by {signal.Signals(-code).name}"
                self._death = RankFailure(index, reason)
                note_failure(self._folder, self._death)

    def _see_to_the_rest(self) -> None:
        """Ranks cannot go on without one that is gone: they have a while to notice and say so, then they are ended."""
        self._look_for_a_death()
        codes = self._codes()
        failed = any(code not in (None, ExitCode.FINISHED, ExitCode.INTERRUPTED) for code in codes)
        gave_up = ExitCode.INTERRUPTED in codes and not self._told
        if self._stuck or not (failed or gave_up):
            return
        if self._alone_since is None:
            self._alone_since = time.monotonic()
        waited = time.monotonic() - self._alone_since
        if failed and waited > 2 * GRACE_SECONDS:
            self._send(signal.SIGKILL)
        elif not self._told and (waited > GRACE_SECONDS or codes[0] is not None):
            self._told = True
            self._send(signal.SIGTERM)

    def _see_to_a_standstill(self) -> None:
        """All ranks live, and one or more get nowhere."""
        if self._alone_since is None and not self._stuck and self._watchdog.silent():
            self._stuck = self._watchdog.end(self._send)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _outcome(self) -> ExitCode:
        """Rank 0's own word on how the run ended, unless another rank's death was the reason for it."""
        code, first = self._processes[0].returncode, self._death or first_failure(self._folder)
        forget_failure(self._folder)
        if self._stuck:
            say_state(self._folder, "failed", self._stuck)
            progress.say(f"failed: {self._stuck}")
            return ExitCode.FAILED
        was_told = self._stop.reason and code == ExitCode.INTERRUPTED
        if first is None or was_told or code in (ExitCode.FINISHED, ExitCode.USER_MISTAKE):
            return ExitCode(code) if code in set(ExitCode) else ExitCode.FAILED
        if holder(self._folder.lock) is None:  # else somebody else has it, who says how it is
            say_state(self._folder, "failed", str(first))
        where = f"; see {self._folder.log_of(first.rank)}" if first.rank else ""
        progress.say(f"failed: {first}{where}")
        return ExitCode.FAILED


def _kill_all(processes: list[Process]) -> None:
    """Only where this process itself failed."""
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def _free_port() -> int:
    """Below those that outgoing connections take: it is many imports until rank 0 listens there."""
    for port in random.sample(range(20_000, 32_000), 1000):
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("none of 1,000 ports between 20000 and 32000 is free")


if __name__ == "__main__":
    progress.start_console(with_time=True)
    die_with(int(sys.argv[2]))
    described = RunFolder(Path(sys.argv[1]))
    sys.exit(run_phases(described, described.read_run(), described.read_scoring(), int(sys.argv[3]), with_time=True))
