"""``python -m ftx.<verb>`` in processes of their own, with nothing pretended; only the imports are paid once.

They fork from multiprocessing's server, which has imported the heavy libraries and nothing else: a process that costs
six seconds to start costs none, and signals, locks and exit codes are those of the command line.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "ftx.job",
        "ftx.report",
        "launchers.local",
        "mlflow.store.tracking.sqlalchemy_store",
        "matplotlib.figure",
        "pytest",
    ]
)
DEADLINE_SECONDS = 600

TINY = (
    "data.limit=200",
    "data.holdout=0.05",
    "evaluation.limit=20",
    "model.architecture.vocabulary_size=1024",
    "model.architecture.hidden_size=32",
    "model.architecture.head_dim=8",
    "model.architecture.intermediate_size=64",
    "hardware.threads=1",
)
"""Words for a run of a second: nine steps an epoch."""


@dataclass(frozen=True)
class Ended:
    """How a process ended and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Verb:
    """A verb at work."""

    process: ForkServerProcess
    out: Path
    err: Path

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def ended(self) -> Ended:
        self.process.join(DEADLINE_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"still at work after {DEADLINE_SECONDS} s: {self.out.read_text()}")
        return Ended(self.process.exitcode, self.out.read_text(), self.err.read_text())

    def killed(self) -> None:
        """``kill -9``, and wait until it is gone."""
        self.process.kill()
        self.process.join(DEADLINE_SECONDS)


def start(verb: str, *words: object, into: Path, cwd: Path | None = None) -> Verb:
    """Start it; what it says goes to files in ``into``."""
    out, err = _files_in(into)
    process = SERVER.Process(target=_be, args=(verb, [str(word) for word in words], out, err, cwd or into))
    process.start()
    return Verb(process, out, err)


def poll(condition, what: str) -> None:
    """Look again and again until ``condition()``; it is an error if time ends before."""
    limit = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < limit, f"never came: {what}"
        time.sleep(0.01)


def start_task(folder: Path, *, into: Path, children: bool = False, **environment: object) -> Verb:
    """A task of a SLURM job with this environment, which brings the run in ``folder`` on.

    ``children``: it has two that idle, one forked as data workers may be, and one that is another program.
    """
    out, err = _files_in(into)
    said = {name: str(value) for name, value in environment.items()}
    process = SERVER.Process(target=_be_task, args=(folder, said, out, err, children))
    process.start()
    return Verb(process, out, err)


def until(condition, at_work: Verb, what: str) -> None:
    """Look again and again until ``condition()``; it is an error if the process ends before, or time does."""
    limit = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if at_work.process.exitcode is not None or time.monotonic() > limit:
            raise AssertionError(f"never came: {what}\n{at_work.out.read_text()}\n{at_work.err.read_text()}")
        time.sleep(0.001)


def _files_in(into: Path) -> tuple[Path, Path]:
    into.mkdir(parents=True, exist_ok=True)
    number = len(list(into.glob("*.out")))
    out, err = into / f"{number}.out", into / f"{number}.err"
    for file in (out, err):
        file.touch()
    return out, err


def _speak_into(out: Path, err: Path) -> None:
    os.setsid()
    for file, stream in ((out, 1), (err, 2)):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, stream)
        os.close(opened)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in (1, 2))


def descendants(process: int) -> list[int]:
    """Of whatever session, as SLURM finds them where it has no control groups."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_bytes().rpartition(b")")[2].split()[1])
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _have_children() -> None:
    """Once the task handles signals."""
    while not callable(signal.getsignal(signal.SIGALRM)):
        time.sleep(0.001)
    subprocess.Popen(["sleep", "600"])
    if os.fork() == 0:
        while True:
            signal.pause()


def _be_task(folder: Path, environment: dict[str, str], out: Path, err: Path, children: bool) -> None:
    from ftx.distributed import end_process
    from ftx.job import run_job
    from ftx.progress import start_console
    from ftx.run_folder import RunFolder
    from ftx.stopping import block_warning_signal

    block_warning_signal()
    _speak_into(out, err)
    os.environ.update(environment)
    start_console(with_time=True)
    if children:
        threading.Thread(target=_have_children).start()
    end_process(run_job(RunFolder(folder)))


def _be(verb: str, words: list[str], out: Path, err: Path, cwd: Path) -> None:
    _speak_into(out, err)
    os.chdir(cwd)
    sys.argv = [f"ftx.{verb}", *words]
    sys.modules.pop(f"ftx.{verb}", None)
    runpy.run_module(f"ftx.{verb}", run_name="__main__", alter_sys=True)
