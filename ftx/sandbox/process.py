"""A command at work in a sandbox, and the supervisor that ends it where the kernel's own limits do not."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

from ftx.config.evaluation_schema import SandboxConfig
from ftx.sandbox.usage import memory_without_sharing, usage_of

# How often the supervisor looks; a process allocates some hundred MiB in that time.
WATCH_SECONDS = 0.05
# What a command may say before it is ended, and how much of it is kept.
MOST_SAID = 256 * 2**20
KEPT = 2**20
MOST_FILES = 50_000
# What bubblewrap needs for itself.
OWN_PROCESSES = 4
_CHUNK = 2**16


@dataclass(frozen=True)
class Launch:
    """How a process is started: everything that the system is asked for."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path | None = None
    pass_fds: tuple[int, ...] = ()
    scratch: str | None = None
    """Where its files are, as it sees them; None where nothing counts them."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and the beginning of what it said."""

    returncode: int
    stdout: str
    stderr: str
    ended_by: str
    """The limit that ended it; empty where it ended by itself."""


@cache
def _starter() -> ThreadPoolExecutor:
    """One thread starts every sandbox: bubblewrap dies with the thread, not the process, that started it."""
    return ThreadPoolExecutor(1, "sandbox-starter")


@dataclass
class SandboxedProcess:
    """A command at work. Leaving the context ends it and everything that it started."""

    popen: "subprocess.Popen[bytes]"
    limits: SandboxConfig
    scratch: str | None = None
    when_ended: Callable[[], None] = lambda: None
    ended_by: str = ""
    _over: threading.Event = field(default_factory=threading.Event)
    _watcher: threading.Thread | None = None

    @classmethod
    def start(
        cls, launch: Launch, limits: SandboxConfig, when_ended: Callable[[], None] = lambda: None
    ) -> "SandboxedProcess":
        popen = _starter().submit(_start, launch).result()
        process = cls(popen, limits, launch.scratch, when_ended)
        process._watcher = threading.Thread(target=process._watch, name="sandbox-supervisor", daemon=True)
        process._watcher.start()
        return process

    def __enter__(self) -> "SandboxedProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def stdin(self) -> IO[bytes]:
        assert self.popen.stdin is not None
        return self.popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    @property
    def stderr(self) -> IO[bytes]:
        assert self.popen.stderr is not None
        return self.popen.stderr

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def end(self, why: str = "") -> None:
        """End it and all that it started; the first reason is the one that is told."""
        self.ended_by = self.ended_by or why
        if not self._over.is_set():
            self._over.set()
            _kill_tree(self.popen)
            with suppress(OSError):
                self.stdin.close()
            self.when_ended()

    def wait(self, stdin: bytes, seconds: float) -> Outcome:
        """Let it work for so long at most; what it says is read, and all but the beginning forgotten."""
        said = [_Said(self, stream) for stream in (self.stdout, self.stderr)]
        threading.Thread(target=self._feed, args=(stdin,), daemon=True).start()
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end(f"it worked for more than {seconds:g} seconds")
        self.end()
        if self._watcher is not None:
            self._watcher.join()
        stdout, stderr = (one.text() for one in said)
        return Outcome(self.popen.returncode, stdout, stderr, self.ended_by)

    def _feed(self, stdin: bytes) -> None:
        with suppress(OSError, ValueError):
            self.stdin.write(stdin)
            self.stdin.close()

    def _watch(self) -> None:
        while not self._over.wait(WATCH_SECONDS) and self.is_alive():
            if why := self._exceeded():
                self.end(why)

    def _exceeded(self) -> str:
        """The limit that it is over, in words; empty where it is within all of them."""
        limits = self.limits
        usage = usage_of(self.popen.pid)
        most = limits.memory_gib * 2**30
        if usage.threads > limits.processes + OWN_PROCESSES:
            return f"it had more than {limits.processes} processes"
        if usage.cpu_seconds > limits.cpu_seconds:
            return f"it took more than {limits.cpu_seconds} seconds of processor time"
        if usage.memory > most and memory_without_sharing(usage) > most:
            return f"it took more than {limits.memory_gib:g} GiB of memory"
        if self.scratch and self._files(usage.pids) > MOST_FILES:
            return f"it made more than {MOST_FILES:,} files"
        return ""

    def _files(self, pids: Sequence[int]) -> int:
        """In the scratch folder, which the command itself, below bubblewrap's two processes, sees."""
        with suppress(OSError, IndexError):
            seen = os.statvfs(f"/proc/{pids[2]}/root{self.scratch}")
            return seen.f_files - seen.f_ffree
        return 0


class _Said:
    """What comes out of one stream; it is read to the end, so that nobody waits for a full pipe."""

    def __init__(self, process: SandboxedProcess, stream: IO[bytes]) -> None:
        self._process, self._stream = process, stream
        self._kept, self._count = bytearray(), 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            while chunk := os.read(self._stream.fileno(), _CHUNK):
                self._kept += chunk[: KEPT - len(self._kept)]
                self._count += len(chunk)
                if self._count > MOST_SAID:
                    self._process.end(f"it said more than {MOST_SAID // 2**20} MiB")
                    break
        self._stream.close()

    def text(self) -> str:
        self._thread.join(5)
        return self._kept.decode(errors="replace")


def _start(launch: Launch) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        launch.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(launch.environment),
        cwd=launch.folder,
        pass_fds=launch.pass_fds,
        start_new_session=True,
    )


def _kill_tree(popen: "subprocess.Popen[bytes]") -> None:
    """bubblewrap's sandbox goes with its first process; without one, whatever is still below is ended one by one."""
    for pid in usage_of(popen.pid).pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    popen.wait()
