"""The tasks by name, and how their results are kept."""

import json
from typing import Any

from ftx.config.schema import RunConfig
from ftx.data.prepare import Prepared
from ftx.figures import save
from ftx.run_folder import RunFolder, scoring_settings
from ftx.tasks import classification, loss
from ftx.tasks.task import TaskInput, TaskResult

SCORES = {"classification": classification.score, "loss": loss.score}
CHECKS = {"classification": classification.check}


def check_task(name: str, prepared: Prepared) -> None:
    """Raise UserError for data that the task cannot be scored on."""
    if name in CHECKS:
        CHECKS[name](prepared)


def score_task(name: str, given: TaskInput) -> TaskResult:
    """Score a model on one task; base and tuned models take the same way."""
    return SCORES[name](given)


def keep_result(folder: RunFolder, run: RunConfig, task: str, result: TaskResult) -> dict[str, Any]:
    """Write predictions and figures, then the scores, then what they were scored with; returns all scores so far."""
    folder.predictions(task).parent.mkdir(exist_ok=True)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in result.predictions)
    folder.write_text(folder.predictions(task), lines)
    folder.figures.mkdir(exist_ok=True)
    for name, figure in result.figures.items():
        folder.check_ours()
        save(figure, folder.figures / name)
    scores = {**folder.read_scores(), task: result.scores}
    folder.write_json(folder.path / "scores.json", scores)
    folder.write_json(folder.path / "scored_with.json", {**folder.read_scored_with(), task: scoring_settings(run)})
    return scores
