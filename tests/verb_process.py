"""``python -m ftx.<verb>`` in processes of their own, with nothing pretended; only the imports are paid once.

They fork from multiprocessing's server, which has imported the heavy libraries and nothing else: a process that costs
six seconds to start costs none, and signals, locks and exit codes are those of the command line.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import time
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
DEADLINE_SECONDS = 120

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
    into.mkdir(parents=True, exist_ok=True)
    number = len(list(into.glob("*.out")))
    out, err = into / f"{number}.out", into / f"{number}.err"
    for file in (out, err):
        file.touch()
    process = SERVER.Process(target=_be, args=(verb, [str(word) for word in words], out, err, cwd or into))
    process.start()
    return Verb(process, out, err)


def poll(condition, what: str) -> None:
    """Look again and again until ``condition()``; it is an error if time ends before."""
    limit = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < limit, f"never came: {what}"
        time.sleep(0.01)


def until(condition, at_work: Verb, what: str) -> None:
    """Look again and again until ``condition()``; it is an error if the process ends before, or time does."""
    limit = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if at_work.process.exitcode is not None or time.monotonic() > limit:
            raise AssertionError(f"never came: {what}\n{at_work.out.read_text()}\n{at_work.err.read_text()}")
        time.sleep(0.001)


def _be(verb: str, words: list[str], out: Path, err: Path, cwd: Path) -> None:
    os.setsid()
    os.chdir(cwd)
    for file, stream in ((out, 1), (err, 2)):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, stream)
        os.close(opened)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in (1, 2))
    sys.argv = [f"ftx.{verb}", *words]
    sys.modules.pop(f"ftx.{verb}", None)
    runpy.run_module(f"ftx.{verb}", run_name="__main__", alter_sys=True)
