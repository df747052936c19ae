"""A sweep's folder: which runs belong to it, where they stand, and its report."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ftx.config.compose import Composition
from ftx.config.identity import HASH_LENGTH
from ftx.config.keys import flat
from ftx.config.schema import TrackingConfig
from ftx.errors import UserError
from ftx.metrics_log import last_training_row
from ftx.mlflow_names import run_name
from ftx.mlflow_parent import ensure_parent
from ftx.outcomes import read_outcomes
from ftx.published import published_of
from ftx.run_folder import Membership, RunFolder
from ftx.slurm_queue import Job
from ftx.standing import state_of
from ftx.sweep_arms import SEED_KEY, Arm
from ftx.writing import write_json


@dataclass(frozen=True)
class Member:
    """A run of a sweep: its folder's name and its value for each swept key."""

    run: str
    swept: dict[str, str]

    @property
    def title(self) -> str:
        """``epochs=3``: what tells this run from the others, short."""
        return ", ".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in self.swept.items()) or self.run


@dataclass(frozen=True)
class Sweep:
    """What sweep.json says; ``path`` is ``<run_root>/sweeps/<name>-<hash8>``."""

    path: Path
    members: tuple[Member, ...]
    experiment: str
    mlflow_parent_id: str | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def folder_of(self, member: Member) -> RunFolder:
        return RunFolder(self.path.parent.parent / member.run)

    def folders(self) -> list[RunFolder]:
        return [self.folder_of(member) for member in self.members]

    def with_parent(self, tracking: TrackingConfig, members: Iterable[Member]) -> "Sweep":
        """The sweep with its MLflow parent, which ``members`` hang under from now on; as it was while MLflow is away.

        The parent is made once, before any run starts, so that no two runs race for it.
        """
        parent = ensure_parent(tracking, self.path, self.mlflow_parent_id)
        if parent is None:
            return self
        for member in members:
            about = ", ".join(f"{key}={value}" for key, value in member.swept.items())
            title = run_name(member.swept) or member.title
            self.folder_of(member).write_membership(Membership(self.name, title, parent, about))
        sweep = replace(self, mlflow_parent_id=parent)
        sweep.save()
        return sweep

    def save(self) -> None:
        described = {
            "experiment": self.experiment,
            "mlflow_parent_id": self.mlflow_parent_id,
            "runs": [asdict(member) for member in self.members],
        }
        write_json(self.path / "sweep.json", described)

    def arms(self, jobs: Mapping[str, Job] | None = None) -> list[Arm]:
        """Where every run stands, for a report; ``jobs`` is what SLURM says of theirs."""
        return [_arm(self.folder_of(member), member, jobs) for member in self.members]


def open_sweep(composition: Composition, folders: Sequence[RunFolder]) -> Sweep:
    """The folder of the sweep with these runs: made, or found again with the MLflow parent it had."""
    path = sweep_path(composition, folders)
    members = tuple(
        Member(folder.name, {key: _value(composed.choices, flat(composed.run), key) for key in composition.swept})
        for folder, composed in zip(folders, composition.runs, strict=True)
    )
    path.mkdir(parents=True, exist_ok=True)
    known = read_sweep(path).mlflow_parent_id if (path / "sweep.json").exists() else None
    sweep = Sweep(path, members, str(composition.runs[0].run.tracking.experiment), known)
    sweep.save()
    return sweep


def sweep_path(composition: Composition, folders: Sequence[RunFolder]) -> Path:
    """Where the sweep of these runs lives, whatever their order; nothing is made yet."""
    names = sorted(folder.name for folder in folders)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:HASH_LENGTH]
    first = composition.runs[0].run
    # An MLflow experiment may have slashes in its name, a folder may not.
    title = re.sub(r"[^\w.+=-]+", "-", str(first.tracking.experiment)).strip("-")
    return Path(first.run_root) / "sweeps" / f"{title}-{digest}"


def read_sweep(path: Path) -> Sweep:
    """The sweep in a folder; raises UserError where there is none."""
    file = path / "sweep.json"
    if not file.is_file():
        raise UserError(f"{path} is not a sweep's folder: it has no sweep.json")
    described = json.loads(file.read_text(encoding="utf-8"))
    members = tuple(Member(**member) for member in described["runs"])
    return Sweep(path.absolute(), members, described["experiment"], described["mlflow_parent_id"])


def find_sweep(word: str, run_root: Path) -> Sweep:
    """A sweep by its folder or by its name under ``run_root``."""
    for path in (Path(word).expanduser(), run_root / "sweeps" / word):
        if (path / "sweep.json").is_file():
            return read_sweep(path)
    known = sorted(path.parent.name for path in run_root.glob("sweeps/*/sweep.json"))
    there = f"there are {', '.join(known)}" if known else f"there is none under {run_root}"
    raise UserError(f"{word}: no such sweep; {there}")


def _arm(folder: RunFolder, member: Member, jobs: Mapping[str, Job] | None) -> Arm:
    state, reason = state_of(folder, jobs)
    scores = folder.read_scores()
    return Arm(
        name=folder.name,
        swept=member.swept,
        state=state,
        reason=reason,
        scores=scores,
        train=last_training_row(folder.metrics),
        published=published_of(folder.read_run()) if (folder.path / "run.yaml").exists() else {},
        outcomes={task: read_outcomes(folder.predictions(task), member.swept.get(SEED_KEY, "")) for task in scores},
    )


def _value(choices: dict[str, str | None], values: dict[str, object], key: str) -> str:
    return str(values[key] if key in values else choices[key])
