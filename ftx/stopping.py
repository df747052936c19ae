"""Ctrl-C and SIGTERM: training stops at the next step with a checkpoint, anything else stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ftx.errors import Interrupted


class StopRequest:
    """Whether somebody asked the run to stop; ``deferred`` while a step border is awaited."""

    def __init__(self) -> None:
        self.reason = ""
        self._deferring = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it a signal only sets ``reason``; a second one stops at once."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        again = bool(self.reason)
        self.reason = signal.Signals(number).name
        if again or not self._deferring:
            raise Interrupted(self.reason)


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Handle SIGINT and SIGTERM; the handlers of before come back afterwards."""
    request = StopRequest()
    before = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
