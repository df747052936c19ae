"""Each rank of a run says that it gets somewhere, so that one that hangs can be told from one that is slow.

``beat`` is called where work is done, by the thread that does it: a rank that is stuck falls silent, whatever its other
threads do. Outside of ``watched`` nothing is written.
"""

import faulthandler
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ftx.run_folder import RunFolder

# A new phase is written at once, steps of the same one not more often than this.
BEAT_SECONDS = 1.0
STILL_SECONDS = 10.0
STACKS_SIGNAL = signal.SIGUSR1


@dataclass(frozen=True)
class Beat:
    """How far a rank says that it is."""

    phase: str = "starting"
    done: int | None = None
    unit: str = "step"
    ended: bool = False

    def __str__(self) -> str:
        return self.phase if self.done is None else f"{self.phase}, {self.unit} {self.done:,}"


class Heartbeat:
    """The file of one rank; it changes as the rank moves on."""

    def __init__(self, folder: Path, index: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._file, self._clock = folder, beat_file(folder, index), clock
        self._now = Beat()
        self._write()

    def beat(self, phase: str = "", done: int | None = None, unit: str = "step") -> None:
        """Without a phase: still at what was said last."""
        is_new = bool(phase) and phase != self._now.phase
        if phase:
            self._now = Beat(phase, done, unit)
        if is_new or self._clock() - self._written >= BEAT_SECONDS:
            self._write()

    def end(self) -> None:
        """From here on silence means nothing."""
        self._now = Beat("ended", ended=True)
        self._write()

    def _write(self) -> None:
        """A disk that is full, or away for a moment, is no reason for a run to end.

        Where it is full the file is emptied, which is a change too.
        """
        self._written = self._clock()
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(asdict(self._now)), encoding="utf-8")


@dataclass(frozen=True)
class Found:
    """What a look at a rank's file saw: ``seen`` differs from one beat to the next, ``beat`` is None for half a one."""

    seen: tuple[bytes, int]
    beat: Beat | None


def read_beat(file: Path) -> Found | None:
    """None before the first beat. It opens the file each time: only that asks a file server for what is new."""
    try:
        with file.open("rb") as opened:
            raw, changed = opened.read(), os.fstat(opened.fileno()).st_mtime_ns
    except OSError:
        return None
    try:
        return Found((raw, changed), Beat(**json.loads(raw)))
    except (ValueError, TypeError):
        return Found((raw, changed), None)


def beat_file(folder: Path, index: int) -> Path:
    """Where a rank's beats are, in the ``heartbeats`` of its run's folder."""
    return folder / f"rank-{index}"


_current: Heartbeat | None = None


def beat(phase: str = "", done: int | None = None, unit: str = "step") -> None:
    """This process got somewhere; cheap enough for every micro-batch."""
    if _current is not None:
        _current.beat(phase, done, unit)


@contextmanager
def beating(phase: str) -> Iterator[None]:
    """Within it this process counts as getting somewhere: for a call that takes long, and gives up by itself."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(STILL_SECONDS):
            beat()

    beat(phase)
    thread = threading.Thread(target=go_on, name=phase, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def watched(folder: RunFolder, index: int) -> Iterator[None]:
    """Within it this process's beats are written, and a signal has its stacks written to its log.

    Whoever starts the process may enter it before the job does, which then does nothing more.
    """
    global _current  # noqa: PLW0603 - a process is one rank
    if _current is not None:
        yield
        return
    _current = Heartbeat(folder.heartbeats, index)
    try:
        with _stacks_on_signal(folder.log_of(index)):
            yield
    finally:
        _current.end()
        _current = None


def remove_old_beats(folder: RunFolder) -> None:
    """Those of earlier attempts; for whoever holds the run's lock."""
    for old in folder.path.glob(".heartbeat*"):
        if _current is None or old != folder.heartbeats:
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _stacks_on_signal(log: Path) -> Iterator[None]:
    """By faulthandler, which needs no turn of the interpreter: also a thread that waits in C for ever is written."""
    # What comes in the last moment, when the sender has not seen the end yet, must not end this process.
    signal.signal(STACKS_SIGNAL, signal.SIG_IGN)
    with log.open("ab") as file:
        faulthandler.register(STACKS_SIGNAL, file=file, all_threads=True, chain=False)
        try:
            yield
        finally:
            faulthandler.unregister(STACKS_SIGNAL)
