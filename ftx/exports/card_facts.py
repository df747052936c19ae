"""What a model card is written from: all of it was recorded by the run."""

from dataclasses import dataclass
from typing import Any

from ftx import metrics_log
from ftx.config.export_schema import ExportConfig
from ftx.config.schema import RunConfig
from ftx.exports.origins import Origin, base_of, data_of
from ftx.run_folder import RunFolder
from ftx.sweep_arms import Arm
from ftx.sweep_cost import TrainingCost, training_cost


@dataclass(frozen=True)
class Facts:
    """Of one run."""

    folder: RunFolder
    run: RunConfig
    export: ExportConfig
    base: Origin | None
    data: list[Origin]
    rows: list[dict[str, Any]]
    provenance: dict[str, Any]
    scores: dict[str, Any]

    @property
    def cost(self) -> TrainingCost | None:
        return training_cost(self.rows, self.run.hardware)

    @property
    def arm(self) -> Arm:
        """As a report has a run."""
        return Arm(self.folder.name, {}, "finished", "", self.scores, {})


def gather_facts(folder: RunFolder, run: RunConfig, export: ExportConfig) -> Facts:
    """What the run's folder says."""
    return Facts(
        folder=folder,
        run=run,
        export=export,
        base=base_of(run),
        data=data_of(run),
        rows=metrics_log.read(folder.metrics),
        provenance=folder.read_provenance(),
        scores=folder.read_scores(),
    )
