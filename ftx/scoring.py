"""A model is scored on a task: items, their records, what they are worth, and how that is kept."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ftx.config.schema import RunConfig
from ftx.config.scored_with import answering_settings, scoring_settings
from ftx.environment import Rank
from ftx.figures import save
from ftx.run_folder import RunFolder
from ftx.tasks.records import Records
from ftx.tasks.registry import task_called
from ftx.tasks.speed import speed_scores
from ftx.tasks.task import Item, Record, TaskResult

if TYPE_CHECKING:
    from ftx.tasks.task import TaskInput


def answer_share(
    folder: RunFolder, run: RunConfig, name: str, given: "TaskInput", items: Sequence[Item], rank: Rank
) -> None:
    """This rank's part of what is not answered yet; the records are on disk when it returns.

    Raises RuntimeError for a task that leaves an item without a record: all would wait for it.
    """
    records = _records(folder, run, name, rank)
    left = {item.id: item for item in records.share(items)}
    if not left:
        return
    kept: set[str] = set()

    def keep(record: Record) -> None:
        records.keep(left[record["id"]], record)
        kept.add(record["id"])

    task_called(name).answer(given, list(left.values()), keep)
    if forgotten := left.keys() - kept:
        raise RuntimeError(f"task {name} kept no record of {', '.join(sorted(forgotten)[:3])}: it must of every item")


def score_task(
    folder: RunFolder,
    run: RunConfig,
    name: str,
    given: "TaskInput",
    items: Sequence[Item],
    look: Callable[[int], None],
) -> TaskResult:
    """What all ranks' records are worth; waits for the other ranks', calling ``look`` meanwhile."""
    records = _records(folder, run, name, Rank()).all_of(items, look)
    result = task_called(name).score(items, records, given.evaluation)
    return replace(result, scores={**result.scores, **speed_scores(records)})


def keep_result(folder: RunFolder, run: RunConfig, task: str, result: TaskResult) -> dict[str, Any]:
    """Write predictions and figures, then the scores, then what they were scored with; returns all scores so far."""
    folder.predictions(task).parent.mkdir(exist_ok=True)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in result.predictions)
    folder.write_text(folder.predictions(task), lines)
    for name, text in result.files.items():
        folder.predictions_folder(task).mkdir(exist_ok=True)
        folder.write_text(folder.predictions_folder(task) / name, text)
    folder.figures.mkdir(exist_ok=True)
    for name, figure in result.figures.items():
        folder.check_ours()
        save(figure, folder.figures / name)
    scores = {**folder.read_scores(), task: result.scores}
    folder.write_json(folder.path / "scores.json", scores)
    scored_with = {**folder.read_scored_with(), task: scoring_settings(run, task)}
    folder.write_json(folder.path / "scored_with.json", scored_with)
    return scores


def _records(folder: RunFolder, run: RunConfig, name: str, rank: Rank) -> Records:
    return Records(folder.predictions_folder(name), answering_settings(run, name), rank)
