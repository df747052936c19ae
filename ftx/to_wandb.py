"""Weights & Biases: a run for each life of a run's folder, by its name, in the project of its experiment.

``tracking.wandb_mode=offline``, the default, only writes under ``wandb/`` of the run's folder what `wandb sync` sends;
each start writes it anew from metrics.jsonl, so that it says what metrics.jsonl says. ``online`` sends: history is
append-only there, so a start goes on behind the last step that arrived.
"""

import hashlib
import re
from typing import TYPE_CHECKING, Any

from ftx.config.keys import flat
from ftx.config.schema import RunConfig
from ftx.metric_points import values_of
from ftx.mlflow_names import named_scores
from ftx.redaction import redacted
from ftx.row_stream import RowStream
from ftx.run_folder import RunFolder
from ftx.writing import put_away

if TYPE_CHECKING:
    from wandb import Run, Settings

LONGEST_NAME = 128
# Letters of the hash that tells one life of a folder from another.
LIFE = 8
# A server that is away must not hold the end of a run up: what is missing is in the run's folder.
INIT_SECONDS, FINISH_SECONDS = 20.0, 30.0


class WandbSender:
    """Brings the W&B run up to date, as often as it is asked to; a state other than running finishes it."""

    def __init__(self, folder: RunFolder, run: RunConfig) -> None:
        self._folder, self._run = folder, run
        self._rows = RowStream(folder)
        self._there: Run | None = None
        self._first_step = 0

    def send(self, state: str, reason: str) -> None:
        """The rows that came since, and at the end the scores. Raises Fenced, or wandb's errors."""
        self._folder.check_ours()
        if self._there is None:
            self._there = self._begin()
            self._first_step = self._there.starting_step
        for row, milliseconds in self._rows.fresh():
            if row["step"] >= self._first_step:
                self._there.log({**values_of(row), "_timestamp": milliseconds / 1000}, step=row["step"])
        if state == "running":
            return
        summary = {**named_scores(self._folder.read_scores()), "ftx.state": state, "ftx.reason": reason}
        self._there.summary.update(summary)
        self._there.finish(exit_code=0 if state in ("finished", "pending") else 1)

    def _begin(self) -> "Run":
        import wandb

        for earlier in self._folder.wandb.glob("offline-run-*"):
            put_away(earlier)
        membership, tracking = self._folder.read_membership(), self._run.tracking
        # It writes where its log files belong before it says that it cannot.
        self._folder.wandb.mkdir(exist_ok=True)
        return wandb.init(
            dir=self._folder.path,
            project=project_of(str(tracking.experiment)),
            id=id_of(self._folder),
            name=membership.title if membership else self._folder.name,
            group=membership.sweep if membership else None,
            config=config_of(self._run),
            resume="allow" if tracking.wandb_mode == "online" else None,
            # This process may have others, in a notebook also of the user's.
            reinit="create_new",
            settings=_settings(str(tracking.wandb_mode)),
        )


def id_of(folder: RunFolder) -> str:
    """Of one life of the folder: what fresh=true starts over, and a colleague's run of the same words, have their own.

    History is append-only, so rows of another life would hide those of this one. A folder that was moved keeps its id.
    """
    # Written once in a folder's life, as MLflow's key of it.
    made = (folder.path / "provenance.json").stat().st_mtime_ns
    name = folder.name.partition(".old-")[0]
    life = hashlib.sha256(f"{name}@{made}".encode()).hexdigest()[:LIFE]
    return f"{name[: LONGEST_NAME - LIFE - 1]}-{life}"


def project_of(experiment: str) -> str:
    """An MLflow experiment may have slashes in its name, a project may not."""
    return re.sub(r"[/\\#?%:]+", "-", experiment)[:LONGEST_NAME]


def config_of(run: RunConfig) -> dict[str, Any]:
    """Flat keys, but for what others have published; no password that stands in an address, nor what looks like one."""
    kept = {name: value for name, value in flat(run).items() if not name.startswith("expected.")}
    return {name: redacted(value) if isinstance(value, str) else value for name, value in kept.items()}


def _settings(mode: str) -> "Settings":
    """Rows, configuration and scores, and nothing that wandb would find out by itself about machine, code or console.

    provenance.json and system.jsonl have that.
    """
    from wandb import Settings

    return Settings(
        mode=mode,  # type: ignore[arg-type]
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
    )
