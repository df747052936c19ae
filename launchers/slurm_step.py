"""The srun that runs the ranks of a job, until all of them have ended."""

import math
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.environment import SlurmJob
from ftx.run_folder import RunFolder
from ftx.slurm_queue import steps_of
from launchers.watchdog import Watchdog

POLL_SECONDS = 0.2
# What a rank leaves behind may keep srun's own words open.
READ_SECONDS = 60
# srun's own words on tasks that ended otherwise than with 0.
OF_TASKS = re.compile(r"srun: error: (?P<node>\S+): tasks? (?P<first>\d+)\S*: (?P<how>.+)")


@dataclass(frozen=True)
class Death:
    """How a rank ended that could not say it itself."""

    rank: int
    node: str
    how: str

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.node}: {self.how}"


@dataclass(frozen=True)
class End:
    """How the step ended: srun's exit code, the ranks that ended badly in that order, and whether they were stuck."""

    code: int
    deaths: tuple[Death, ...]
    stuck: str = ""


class Step:
    """srun while it runs; it is ended with this block."""

    def __init__(self, folder: RunFolder, run: RunConfig, job: SlurmJob, command: Sequence[str]) -> None:
        self._folder, self._run, self._job = folder, run, job
        self._command = command
        self._deaths: list[Death] = []
        self._watchdog = Watchdog(folder, ranks(run), 60 * (run.launcher.watchdog_min or math.inf))

    def __enter__(self) -> "Step":
        self._srun = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True, errors="replace")
        assert self._srun.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._srun.stderr,), daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._srun.poll() is None:
            self._srun.kill()
            self._srun.wait()
        self._watchdog.forget()

    def until_the_end(self) -> End:
        """Ranks that get nowhere are ended, with their stacks in their logs."""
        stuck = ""
        while self._srun.poll() is None:
            if not stuck and self._watchdog.silent():
                stuck = self._watchdog.end(self._send)
            time.sleep(POLL_SECONDS)
        self._reader.join(READ_SECONDS)
        return End(self._srun.returncode, tuple(self._deaths), stuck)

    def _send(self, number: signal.Signals) -> None:
        """To every rank, and not to the batch script, which is a step of the job too."""
        for step in steps_of(self._job.id):
            subprocess.run(["scancel", f"--signal={number.name.removeprefix('SIG')}", step], check=False)

    def _read(self, said: IO[str]) -> None:
        for line in said:
            sys.stderr.write(line)
            sys.stderr.flush()
            if found := OF_TASKS.match(line):
                self._deaths.append(Death(int(found["first"]), found["node"], found["how"].strip()))
