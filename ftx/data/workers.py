"""One function in several processes at once, for what Python itself has to do with every conversation."""

import gc
import os
import pickle
import pkgutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any

from ftx.config.schema import DataConfig
from ftx.environment import processors

# A process of ftx's own and not one of multiprocessing's, which would import the parent's main module, torch and all.
START = "from ftx.data.workers import serve; serve()"


# From so many bytes, or rows where their size is not known, several processes gain more than starting them takes.
MANY_BYTES, MANY_ROWS = 100_000_000, 50_000
MOST = 16


def processes_for(data: DataConfig, *, many: bool) -> int:
    """``data.processes``, else as many as this process may use processors where there is much to do."""
    return data.processes or (min(processors(), MOST) if many else 1)


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Within it Python looks for garbage in cycles seldom: each conversation makes dozens of objects, none in a cycle.

    It would cost a sixth of the time of preparing.
    """
    before = gc.get_threshold()
    gc.set_threshold(200_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Workers:
    """Processes that each made a function by ``factory(*arguments)``, a class or function at the top of a module."""

    def __init__(self, count: int, factory: Callable[..., Any], *arguments: Any) -> None:
        self._count = count
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._all = [
            # A session of its own: Ctrl-C is for the parent, at whose end they read the end of their input.
            subprocess.Popen(
                [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            for _ in range(count)
        ]
        for process in self._all:
            _send(process.stdin, (sys.path, factory.__module__, factory.__qualname__, arguments))
            self._idle.put(process)

    def map(self, chunks: Iterable[Any]) -> Iterator[Any]:
        """What the function gives for each chunk, in their order; a few are read ahead of what is asked for."""
        waiting = ThreadPoolExecutor(self._count)
        ahead: deque[Future[Any]] = deque()
        try:
            for chunk in chunks:
                ahead.append(waiting.submit(self._call, chunk))
                if len(ahead) > 2 * self._count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            waiting.shutdown(cancel_futures=True)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.kill()
            process.communicate()

    def _call(self, chunk: Any) -> Any:
        process = self._idle.get()
        try:
            _send(process.stdin, chunk)
            succeeded, result = pickle.load(process.stdout)  # type: ignore[arg-type]
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"a process that prepares data died ({process.wait()}): too little memory?") from error
        finally:
            # Also a dead one: whoever gets it next must not wait for another.
            self._idle.put(process)
        if not succeeded:
            raise result
        return result


def serve() -> None:
    """What such a process does until its parent is gone; a signal that all of a job gets is for the parent."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a user's own function prints must not get between the answers.
    os.dup2(2, 1)
    # Its end may come at any moment, also in the middle of what it sends or reads: nobody is left to hear of it.
    with suppress(EOFError, pickle.UnpicklingError, BrokenPipeError):
        sys.path[:], module, name, arguments = pickle.load(source)
        with collecting_seldom():
            _answer(source, sink, f"{module}:{name}", arguments)
    # And what it could not hand over any more is not to be tried again.
    sys.stdout.flush()
    os._exit(0)


def _answer(source: Any, sink: Any, factory: str, arguments: tuple[Any, ...]) -> None:
    function = None
    while True:
        chunk = pickle.load(source)
        try:
            function = function or pkgutil.resolve_name(factory)(*arguments)
            answer = (True, function(chunk))
        except BaseException as error:
            answer = (False, _as_it_travels(error))
        _send(sink, answer)


def _as_it_travels(error: BaseException) -> BaseException:
    """The error itself where it comes out of a pickle as it went in, else its name and text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")


def _send(stream: Any, value: Any) -> None:
    pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()
