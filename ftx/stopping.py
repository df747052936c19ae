"""Ctrl-C and SIGTERM: training stops at the next step with a checkpoint, other work stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ftx.errors import Interrupted

RETRY_SECONDS = 0.02
# An exception out of a signal handler would leave the import lock taken here, and get lost there.
FRAGILE_FILES = ("<frozen importlib", "<frozen zipimport")
FRAGILE_FUNCTIONS = ("__del__",)


class StopRequest:
    """Whether somebody asked the run to stop; a second time always raises Interrupted, whatever is at work."""

    def __init__(self) -> None:
        self.reason = ""
        self._at_once = False

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
        self._at_once = self._at_once or bool(self.reason)
        self.reason = signal.Signals(number).name
        self.raise_soon(number, frame)

    def raise_soon(self, number: int, frame: FrameType | None) -> None:
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


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Handle SIGINT and SIGTERM; the handlers of before come back afterwards."""
    request = StopRequest()
    handlers = {signal.SIGINT: request.receive, signal.SIGTERM: request.receive, signal.SIGALRM: request.raise_soon}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield request
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
