"""What tests of whole runs share: prepared data, an empty MLflow database, and runs in processes of their own."""

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from slurm_job import Job, submitted
from verb_process import TINY, Ended, Verb, start

from ftx.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ["HF_HUB_OFFLINE"] = "1"
# How long an example takes is no test of anything on a busy machine; and what a change is judged by has to be the same
# each time. --hypothesis-profile=search looks for examples that nobody has tried.
settings.register_profile("ftx", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("ftx")


@dataclass(frozen=True)
class Place:
    """A folder with its own runs and its own MLflow; prepared data is shared by all of the session."""

    path: Path
    cache: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.path}/mlflow.db"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def words(self, *words: object) -> list[object]:
        here = (f"run_root={self.runs}", f"tracking.uri={self.uri}", f"data.cache={self.cache}")
        return [*TINY, *here, *words]

    def start(self, *words: object, cwd: Path | None = None) -> Verb:
        """``python -m ftx.train`` with tiny words and these."""
        return start("train", *self.words(*words), into=self.path / "said", cwd=cwd)

    def train(self, *words: object, cwd: Path | None = None) -> Ended:
        return self.start(*words, cwd=cwd).ended()

    def report(self, *arguments: object) -> Ended:
        return start("report", *arguments, "--run-root", self.runs, into=self.path / "said").ended()

    def folder(self) -> RunFolder:
        """The only run here."""
        (file,) = [file for file in self.runs.glob("*/run.yaml") if ".old-" not in file.parent.name]
        return RunFolder(file.parent)

    def mlflow(self) -> "MlflowClient":
        from mlflow import MlflowClient

        return MlflowClient(self.uri)


@pytest.fixture(scope="session")
def new_place(tmp_path_factory) -> Callable[[], Place]:
    """Makes places; the tables of MLflow's database take seconds to make, so each gets a copy of the first."""
    from mlflow import MlflowClient

    cache = tmp_path_factory.mktemp("prepared")
    empty = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{empty}").search_experiments()

    def make() -> Place:
        place = Place(tmp_path_factory.mktemp("place"), cache)
        shutil.copy(empty, place.path / "mlflow.db")
        return place

    return make


@pytest.fixture
def place(new_place) -> Place:
    return new_place()


@pytest.fixture
def submit(place) -> Iterator[Callable[..., Job]]:
    """Describes the run of these words in ``place``; whatever of its tasks is left when the test is over is ended."""
    jobs: list[Job] = []

    def describe(*words: str) -> Job:
        jobs.append(submitted(place, *words))
        return jobs[-1]

    yield describe
    for task in [task for job in jobs for task in job.tasks]:
        with suppress(ProcessLookupError):
            os.killpg(task.process.pid, signal.SIGKILL)
        task.killed()


class Said(logging.Handler):
    """What ftx's own logger was told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def ftx_log() -> Iterator[Said]:
    """What is said within the test; the logger does not propagate, so pytest's own fixture hears nothing."""
    said = Said()
    logging.getLogger("ftx").addHandler(said)
    yield said
    logging.getLogger("ftx").removeHandler(said)


@pytest.fixture(scope="module")
def one_thread():
    """For models too small to share out."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def usual_signals():
    """A shell that starts tests in the background has them ignore Ctrl-C, and their processes with them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
