"""Runs of ftx on the test cluster: launched as a user launches them, followed, and compared with undisturbed ones."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from cluster import Cluster
from run_records import MEASURED, histories, points_of, rows_of
from safetensors.torch import load_file

from ftx.attempts import attempts
from ftx.environment import submitting_environment
from ftx.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
DEADLINE_SECONDS = 600
WORDS = (
    "data.limit=200",
    "data.holdout=0.05",
    "evaluation.limit=20",
    "hardware.threads=1",
    "hardware.micro_batch=1",
    "model.compile=never",
    "schedule.epochs=8",
    "schedule.learning_rate=1e-4",
    "schedule.log_every=1",
    "schedule.save_every=5",
)
"""A run of some ten seconds: 56 steps, a row of metrics for each, a checkpoint after every fifth."""
ON_SLURM = ("launcher=slurm", "launcher.memory=2G", "launcher.warning_s=10")


@dataclass(frozen=True)
class Said:
    """How the launching command ended."""

    code: int
    out: str
    err: str

    @property
    def folder(self) -> RunFolder:
        (path,) = re.findall(r"^run: (.+)$", self.out, re.MULTILINE)
        return RunFolder(Path(path))

    @property
    def sweep(self) -> Path:
        (path,) = re.findall(r"^sweep: (.+)$", self.out, re.MULTILINE)
        return Path(path)

    @property
    def arrays(self) -> list[str]:
        return re.findall(r"^submitted job (\d+)", self.out, re.MULTILINE)

    @property
    def job(self) -> str:
        """Of the only run."""
        (array,) = self.arrays
        return f"{array}_0"


@dataclass(frozen=True)
class Site:
    """A run_root and a tracking address that the cluster's nodes see."""

    cluster: Cluster
    runs: Path
    cache: Path
    uri: str

    def words(self, *words: object) -> list[str]:
        here = (f"run_root={self.runs}", f"tracking.uri={self.uri}", f"data.cache={self.cache}")
        return [str(word) for word in (*WORDS, *ON_SLURM, *here, *words)]

    def launch(self, *words: object, path: str = "", checkout: Path | None = None) -> Said:
        """``python -m ftx.train``, as from a shell of the cluster."""
        return self.verb("train", *self.words(*words), path=path, checkout=checkout)

    def verb(self, verb: str, *words: object, path: str = "", checkout: Path | None = None) -> Said:
        """``path`` goes before PATH; ``checkout`` is another one than this."""
        environment = submitting_environment() | self.cluster.environment
        environment["PATH"] = f"{path}:{environment['PATH']}" if path else environment["PATH"]
        if checkout:
            environment["PYTHONPATH"] = str(checkout)
        command = [sys.executable, "-m", f"ftx.{verb}", *map(str, words)]
        folder = checkout or self.runs.parent
        how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": DEADLINE_SECONDS}
        done = subprocess.run(command, env=environment, cwd=folder, check=False, **how)
        return Said(done.returncode, done.stdout, done.stderr)

    def launched(self, *words: object, **how: Any) -> Said:
        """The same where it has to succeed."""
        said = self.launch(*words, **how)
        assert said.code == 0, said
        return said

    def wait_for_step(self, folder: RunFolder, step: int, start: int | None = None) -> None:
        """Until the run has made that step, in that start of its job."""

        def is_there() -> bool:
            if start is not None and (not attempts(folder) or attempts(folder)[-1].number < start):
                return False
            return any(row["step"] >= step for row in rows_of(folder) if "train_loss" in row)

        self.wait_for(is_there, f"step {step}", folder)

    def wait_for_end(self, folder: RunFolder, job: str) -> str:
        """The state in which SLURM leaves the job."""

        return self.wait_for(lambda: self.state_at_end(job), f"the end of {job}", folder)

    def state_at_end(self, job: str) -> str:
        """ "" for a job that has not ended."""
        state = self.cluster.job(job)["JobState"]
        return state if state in ENDED else ""

    def wait_for(self, condition: Callable[[], Any], what: str, folder: RunFolder) -> Any:
        """Its answer; what the run has said is in the error if it never comes."""
        try:
            return self.cluster.wait_for(condition, DEADLINE_SECONDS, what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{words_of(folder)}") from None

    def mlflow(self) -> "MlflowClient":
        from mlflow import MlflowClient

        return MlflowClient(self.uri)


def words_of(folder: RunFolder) -> str:
    """The last of what the run's processes said, for a failure."""
    files = [*folder.path.glob("log*.txt"), *folder.path.parent.glob(".jobs/*/*.txt")]
    return "\n".join(f"== {file}\n{file.read_text(errors='replace')[-1500:]}" for file in files)


def check_as_undisturbed(site: Site, folder: RunFolder, job: str, reference: RunFolder) -> None:
    """SLURM, MLflow and the folder say finished; no step is missing or double; losses and weights are the same."""
    assert site.wait_for_end(folder, job) == "COMPLETED", words_of(folder)
    status = folder.read_status()
    assert (status.state, status.job_id) == ("finished", job), words_of(folder)
    assert site.mlflow().get_run(status.mlflow_run_id).info.status == "FINISHED"
    check_same_learning(folder, reference)
    check_same_points(histories(site.mlflow(), status.mlflow_run_id), points_of(rows_of(folder)))


def check_same_learning(folder: RunFolder, reference: RunFolder) -> None:
    """Every step once, its loss as the reference's; the final weights too, to 1e-5."""
    mine, theirs = ({key_of(row): row for row in rows_of(one)} for one in (folder, reference))
    assert [key_of(row) for row in rows_of(folder)] == [key_of(row) for row in rows_of(reference)]
    losses, expected_losses = ([rows[key][key[1]] for key in sorted(rows)] for rows in (mine, theirs))
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected_losses), rtol=1e-5, atol=0)
    weights, expected = (load_file(one.model / "model.safetensors") for one in (folder, reference))
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-5, atol=1e-5)


def check_same_points(sent: dict, written: dict) -> None:
    """Every step once; a step that was made again may have been sent the first time, with other seconds."""
    assert {name: [step for step, _ in points] for name, points in sent.items()} == {
        name: [step for step, _ in points] for name, points in written.items()
    }
    for name in written.keys() - MEASURED:
        assert [value for _, value in sent[name]] == pytest.approx([value for _, value in written[name]], rel=1e-4)


def key_of(row: dict) -> tuple[int, str]:
    return row["step"], "train_loss" if "train_loss" in row else "eval_loss"


def outcomes(folder: RunFolder) -> list[tuple[int, str]]:
    """(number of the start, how it ended) of each."""
    return [(one.number, one.outcome) for one in attempts(folder)]


def ranks_on(cluster, node):
    """srun and the supervisor have them in their command lines too."""
    found = cluster.processes_on(node, "-m launchers.slurm_task")
    return [one for one in found if "srun" not in one.command and "slurmstepd" not in one.command]
