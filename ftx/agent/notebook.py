"""A notebook whose kernel is in a sandbox: one cell after the other, variables persist."""

import json
import os
import selectors
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ftx.agent.cells import CellOutcome
from ftx.sandbox import Sandbox, SandboxedProcess

_INSIDE = Path(__file__).with_name("kernel_inside.py")
# Two starts of a kernel, and what an interrupted cell has to end.
_SPARE_SECONDS = 90.0
# Four streams of what the kernel's side keeps, each character as JSON escapes it.
_LONGEST_LINE = 8 * 2**20
_PARTS = ("stdout", "stderr", "result", "traceback")


class NotebookFailed(Exception):
    """The kernel's side no longer answers as it should; the text says why."""


class Notebook:
    """Cells in one kernel, started with the first of them, and again after the sandbox had to be ended.

    What comes out of the sandbox is read as what it is, something that the code in there may have written: lines of
    limited length, values of known types.
    """

    def __init__(self, sandbox: Sandbox, files: Mapping[str, Path]) -> None:
        self._sandbox, self._files = sandbox, files
        self._process: SandboxedProcess | None = None

    def __enter__(self) -> "Notebook":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.end()
            self._read.close()
            self._process = None

    def run(self, code: str) -> CellOutcome:
        """Never raises for what the code does."""
        began = time.monotonic()
        seconds = self._sandbox.limits.wall_seconds
        try:
            if self._process is None:
                self._start()
            name = os.urandom(8).hex()
            self._send({"id": name, "code": code, "seconds": seconds})
            outcome = self._reply(name, seconds + _SPARE_SECONDS)
        except NotebookFailed as error:
            self.close()
            return CellOutcome("ended", why=str(error), seconds=time.monotonic() - began)
        parts = {part: str(outcome.get(part, "")) for part in _PARTS}
        return CellOutcome(str(outcome.get("state")), **parts, seconds=time.monotonic() - began)

    def _start(self) -> None:
        self._process = self._sandbox.start([sys.executable, "-I", "-c", _INSIDE.read_text()], self._files)
        self._read = _Lines(self._process)
        self._reply("", _SPARE_SECONDS)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        # A cell may have stopped the kernel's side: then nobody empties the pipe, and a long message fills it.
        give_up = threading.Timer(_SPARE_SECONDS, self._process.end, ["its kernel no longer answered"])
        give_up.start()
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise NotebookFailed(self._why_gone()) from error
        finally:
            give_up.cancel()

    def _reply(self, name: str, seconds: float) -> dict[str, Any]:
        """To the message of that name; what else may come is not for us."""
        deadline = time.monotonic() + seconds
        while True:
            line = self._read.next(deadline)
            if line is None:
                raise NotebookFailed(self._why_gone())
            with suppress(ValueError, RecursionError):
                message = json.loads(line)
                if isinstance(message, dict) and message.get("id") == name:
                    return message

    def _why_gone(self) -> str:
        assert self._process is not None
        self._process.end("its kernel no longer answered")
        said = self._read.errors()
        return self._process.ended_by + (f" ({said})" if said else "")


class _Lines:
    """Lines that a process writes, read as they come, up to a length and a time."""

    def __init__(self, process: SandboxedProcess) -> None:
        self._process, self._file = process, process.stdout.fileno()
        self._errors: deque[str] = deque(maxlen=3)
        self._held = bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._file, selectors.EVENT_READ)
        threading.Thread(target=self._read_errors, daemon=True).start()

    def next(self, deadline: float) -> bytes | None:
        """None where the process is gone, takes too long, or writes what is no line of ours."""
        while (end := self._held.find(b"\n")) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or len(self._held) > _LONGEST_LINE or not self._selector.select(left):
                return None
            if not (chunk := os.read(self._file, 2**16)):
                return None
            self._held += chunk
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line

    def close(self) -> None:
        self._selector.close()
        self._process.stdout.close()

    def errors(self) -> str:
        """The last that was said on stderr."""
        return self._errors[-1] if self._errors else ""

    def _read_errors(self) -> None:
        with suppress(OSError, ValueError), self._process.stderr as stream:
            while chunk := os.read(stream.fileno(), 2**16):
                self._errors += [line[-300:] for line in chunk.decode(errors="replace").splitlines() if line.strip()]
