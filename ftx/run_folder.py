"""A run's folder, the interface between everything that writes about a run and everything that reads it.

An old start of a run may go on beside the new one: its node was cut off, or SLURM could not end it. The lock tells them
apart. A file is complete under another name before the last look at the lock, and then renamed; the new start puts all
such files away first. So what the old one renames after that look is no longer there, however long it slept between.
"""

import json
import threading
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ftx.config.export_checks import asked_exports, is_as_asked
from ftx.config.schema import RunConfig
from ftx.config.scored_with import scoring_settings
from ftx.config.stored import run_from_yaml
from ftx.errors import Fenced
from ftx.lock import Lock, holder
from ftx.writing import of_this_attempt, publish_folder, write_json, write_text

STATES = ("pending", "running", "interrupted", "failed", "finished")
# Which rank failed first: see rank_failure.
FIRST_FAILURE = ".first-failure"
# Why a run is pending whose training is over.
TRAINED = "trained; to be scored"
_STATUS_LOCK = threading.Lock()


class Phase(StrEnum):
    """What a job does of a run: where it is scored on hardware of its own, one trains and another one scores."""

    ALL = "all"
    TRAIN = "train"
    SCORE = "score"


@dataclass(frozen=True)
class Status:
    """What status.json says: how far a run is, and why it is no further."""

    state: str = "pending"
    reason: str = ""
    mlflow_run_id: str | None = None
    job_id: str | None = None


@dataclass(frozen=True)
class Membership:
    """The sweep that a run was started in."""

    sweep: str
    title: str
    """What MLflow's list calls the run."""
    mlflow_parent_id: str
    about: str = ""
    """The swept keys in full, for its page there."""


@dataclass(frozen=True)
class Ticket:
    """A run's place in a SLURM array; an array that no ticket names any more leaves the run alone."""

    submission: str
    """The submission's folder."""
    index: int
    job_id: str | None = None
    """None until sbatch has answered: whoever submitted may have died in between."""


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run's folder. What is not there yet reads as empty."""

    path: Path
    held: Lock | None = field(default=None, compare=False, repr=False)
    """The run's lock, for whoever brings the run on: all it writes, it writes while the lock is its own."""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def lock(self) -> Path:
        return self.path / "lock.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def weights(self) -> Path:
        """Copies of the weights, ``epoch-<n>`` each."""
        return self.path / "weights"

    @property
    def profile(self) -> Path:
        return self.path / "profile"

    @property
    def system(self) -> Path:
        """What the machine was doing, a row now and then."""
        return self.path / "system.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def wandb(self) -> Path:
        """What W&B keeps here of the run, whether it sends it or not."""
        return self.path / "wandb"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def log_of(self, rank: int) -> Path:
        """What one of several ranks says; the first one speaks for the run."""
        return self.path / f"log-rank{rank}.txt" if rank else self.log

    @property
    def heartbeats(self) -> Path:
        """Of the ranks, as long as they work; an attempt that is thought dead cannot pass for this one."""
        return self.path / of_this_attempt(".heartbeat")

    def predictions(self, task: str) -> Path:
        return self.path / "predictions" / f"{task}.jsonl"

    def predictions_folder(self, task: str) -> Path:
        """What a task keeps while it works, and of its own."""
        return self.path / "predictions" / task

    def check_ours(self) -> None:
        """Right before whatever is written; raises Fenced where the lock that we held is ours no longer."""
        if self.held is not None and not self.held.is_ours():
            raise Fenced(self.why_not_ours())

    def why_not_ours(self) -> str:
        """Of a run whose lock we have lost."""
        now_at_it = holder(self.lock)
        why = f"{now_at_it} has taken {self.name} over" if now_at_it else f"the lock on {self.name} is gone"
        return f"{why}: this process leaves the run alone and ends"

    def write_text(self, path: Path, text: str) -> None:
        """A file of the run's; raises Fenced."""
        write_text(path, text, self.check_ours)

    def write_json(self, path: Path, value: Any) -> None:
        """The same for json."""
        write_json(path, value, self.check_ours)

    def publish(self, written: Path, final: Path) -> None:
        """Give a complete folder the name that readers look for; raises Fenced."""
        publish_folder(written, final, self.check_ours)

    def read_run(self) -> RunConfig:
        return run_from_yaml((self.path / "run.yaml").read_text(encoding="utf-8"), self.path / "run.yaml")

    def read_scoring(self) -> RunConfig | None:
        """The run as a job of its own scores it."""
        file = self.path / "scoring.yaml"
        return run_from_yaml(file.read_text(encoding="utf-8"), file) if file.exists() else None

    def read_status(self) -> Status:
        file = self.path / "status.json"
        return Status(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else Status()

    def write_status(self, **changes: Any) -> Status:
        """Change some of it; the thread that sends to MLflow and the run itself both do."""
        with _STATUS_LOCK:
            status = replace(self.read_status(), **changes)
            self.write_json(self.path / "status.json", asdict(status))
            return status

    def read_membership(self) -> Membership | None:
        file = self.path / "membership.json"
        return Membership(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None

    def write_membership(self, membership: Membership) -> None:
        self.write_json(self.path / "membership.json", asdict(membership))

    def read_ticket(self, phase: Phase = Phase.ALL) -> Ticket | None:
        """Where the run was submitted last; None for one that never was. ``score`` may have a job of its own."""
        file = self._ticket(phase)
        return Ticket(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None

    def write_ticket(self, ticket: Ticket, phase: Phase = Phase.ALL) -> None:
        write_json(self._ticket(phase), asdict(ticket))

    def _ticket(self, phase: Phase) -> Path:
        return self.path / ("ticket-score.json" if phase is Phase.SCORE else "ticket.json")

    @property
    def attempts(self) -> Path:
        """What became of each start of the run by SLURM."""
        return self.path / "attempts.jsonl"

    def read_scores(self) -> dict[str, Any]:
        file = self.path / "scores.json"
        scores: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return scores

    def read_scored_with(self) -> dict[str, Any]:
        """Task → the evaluation settings that its scores depend on."""
        file = self.path / "scored_with.json"
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return settings

    def missing_tasks(self, run: RunConfig) -> list[str]:
        """The tasks that the run is asked for and has no score of, or one of other evaluation settings."""
        scores, scored_with = self.read_scores(), self.read_scored_with()
        return [
            task
            for task in run.evaluation.tasks
            if task not in scores or scored_with.get(task) != scoring_settings(run, task)
        ]

    @property
    def exports(self) -> Path:
        """The model in other forms."""
        return self.path / "exports"

    def read_exports(self) -> dict[str, Any]:
        """Export → its ``state`` (running, failed, unchecked, ok), where it lies, and how its check went."""
        file = self.path / "exports.json"
        exports: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return exports

    def write_export(self, name: str, **entry: Any) -> None:
        self.write_json(self.path / "exports.json", {**self.read_exports(), name: entry})

    def missing_exports(self, run: RunConfig) -> list[str]:
        """What the run is asked for and has not, or not with a check where one is wanted."""
        exports = self.read_exports()
        return [
            name
            for name in asked_exports(run)
            if not is_as_asked(entry := exports.get(name, {}), run.export)
            or not (self.path / entry.get("made", ".")).exists()
        ]

    def is_complete(self, run: RunConfig) -> bool:
        """Nothing of what the run asks for is missing."""
        trained = run.schedule.epochs == 0 or self.model.is_dir()
        missing = [*self.missing_tasks(run), *self.missing_exports(run)]
        return self.read_status().state == "finished" and trained and not missing

    def read_provenance(self) -> dict[str, Any]:
        provenance: dict[str, Any] = json.loads((self.path / "provenance.json").read_text(encoding="utf-8"))
        return provenance
