"""Ctrl-C, SIGTERM and SIGUSR2: training stops at the next step with a checkpoint, other work stops at once.

SIGUSR2 is what SLURM warns with, before the time limit or a preemption. Some sites send it to every descendant of a
task: data workers, compilers, whatever would die of it. A mask is inherited by ``fork`` and ``exec``, a handler is not;
so a SLURM task blocks it, and a thread waits for it and tells the main thread.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ftx.errors import Interrupted

RETRY_SECONDS = 0.02
# How long the end of ``listening`` waits for the thread that waits for a warning.
WAIT_SECONDS = 0.2
WARNING = signal.SIGUSR2
# An exception out of a signal handler would leave the import lock taken here, and get lost there.
FRAGILE_FILES = ("<frozen importlib", "<frozen zipimport")
FRAGILE_FUNCTIONS = ("__del__",)
# A warning that the waiting thread has heard, and the main thread not yet.
_WARNED = threading.Event()


class StopRequest:
    """Whether somebody asked the run to stop; a second time raises Interrupted, whatever is at work.

    A warning is never a second time: whoever repeats it is in no hurry.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._at_once = False
        self._process = os.getpid()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it a signal raises Interrupted; outside of it, it only sets ``reason``."""
        with self._raising(True):
            if self.reason:
                raise Interrupted(self.reason)
            yield

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it, inside of ``at_once``, a signal only sets ``reason``."""
        with self._raising(False):
            yield

    @contextmanager
    def _raising(self, at_once: bool) -> Iterator[None]:
        before, self._at_once = self._at_once, at_once
        try:
            yield
        finally:
            self._at_once = before

    def receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            _as_without_us(number)
            return
        if self.reason and number == WARNING:
            return
        self._at_once = self._at_once or bool(self.reason)
        self.reason = signal.Signals(number).name
        self._raise_soon(frame)

    def look_again(self, number: int, frame: FrameType | None) -> None:
        """At the warning that the waiting thread has heard, or at a signal that came amid what must not be broken."""
        if _WARNED.is_set():
            _WARNED.clear()
            self.receive(WARNING, frame)
        else:
            self._raise_soon(frame)

    def _raise_soon(self, frame: FrameType | None) -> None:
        """Now, or at the first look after what must not be broken off."""
        if self._at_once and _is_fragile(frame):
            signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
        elif self._at_once:
            raise Interrupted(self.reason)


def _is_fragile(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(FRAGILE_FILES) or frame.f_code.co_name in FRAGILE_FUNCTIONS:
            return True
        frame = frame.f_back
    return False


def _as_without_us(number: int) -> None:
    """In a forked process, which has our handlers, but not our work: it may be ended, and is not warned."""
    if number != WARNING:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def block_warning_signal() -> None:
    """First thing in a SLURM task: threads and processes that were started before would get the signal unblocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {WARNING})


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Handle SIGINT, SIGTERM and SIGUSR2; the handlers of before come back afterwards."""
    request = StopRequest()
    handlers = {
        signal.SIGINT: request.receive,
        signal.SIGTERM: request.receive,
        WARNING: request.receive,
        signal.SIGALRM: request.look_again,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with _hearing_of_warnings():
            yield request
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _hearing_of_warnings() -> Iterator[None]:
    """Where they are blocked: whoever of several threads hears one, tells it to the innermost that listens."""
    if WARNING not in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
        yield
        return
    done = threading.Event()

    def wait() -> None:
        while not done.is_set():
            heard = signal.sigtimedwait({WARNING}, WAIT_SECONDS)
            # One that was stopped for longer answers with whatever was in its memory.
            if heard is not None and heard.si_signo == WARNING:
                _WARNED.set()
                signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)  # type: ignore[arg-type]

    thread = threading.Thread(target=wait, name="waiting for a warning", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
