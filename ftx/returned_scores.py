"""What DABStep's leaderboard says of a submission, put beside the run's own scores.

Two forms are read: JSON Lines with a verdict on each task (``task_id`` and ``score``, as the benchmark's public
``task_scores`` have them), or the leaderboard's row as a JSON object with the two accuracies in per cent.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftx.errors import UserError
from ftx.run_folder import RunFolder
from ftx.statistics import wilson

TASK, METRIC = "data_agent", "official"
ROW_KEYS = {"easy": "Easy Level Accuracy (%)", "hard": "Hard Level Accuracy (%)"}
# The leaderboard shows two decimals.
_SHOWN_TO = 0.005 + 1e-9

Score = dict[str, Any]


def import_returned(folder: RunFolder, file: Path) -> dict[str, Score]:
    """Put what the leaderboard returned into scores.json, and verdicts into the predictions; returns the new scores.

    Raises UserError for a run without a submission, and for a file that is not about this run's tasks.
    """
    predictions = _predictions(folder)
    levels = {one["task"]: one["level"] for one in predictions}
    text = _read(file)
    verdicts = _verdicts(text, file, levels)
    if verdicts is None:
        counts = _counts(json.loads(text), file, levels)
    else:
        counts = {level: _count(verdicts, levels, level) for level in sorted(set(levels.values()))}
        _write_verdicts(folder, predictions, verdicts)
    right, n = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
    scores = {METRIC: _score(right, n), **{f"{METRIC}.{level}": _score(*one) for level, one in counts.items()}}
    there = folder.read_scores()
    folder.write_json(folder.path / "scores.json", {**there, TASK: {**scores, **_but(there.get(TASK, {}), scores)}})
    return scores


def _predictions(folder: RunFolder) -> list[dict[str, Any]]:
    path = folder.predictions(TASK)
    if not path.exists():
        raise UserError(f"{folder.name}: has answered no questions; run it with evaluation.tasks=[data_agent] first")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); give the file that the leaderboard returned") from error


def _verdicts(text: str, file: Path, levels: Mapping[str, str]) -> dict[str, bool] | None:
    """Task → whether its answer was right; None where the file is a leaderboard's row."""
    verdicts: dict[str, bool] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            if number == 1 and text.startswith("{"):
                return None
            raise UserError(f"{file}:{number}: is no JSON; give one object a line with task_id and score") from None
        if number == 1 and isinstance(row, dict) and set(ROW_KEYS.values()) <= set(row):
            return None
        if not isinstance(row, dict) or not {"task_id", "score"} <= set(row) or row["score"] not in (True, False):
            raise UserError(f"{file}:{number}: has no task_id with a score that is true or false")
        task = str(row["task_id"])
        if task not in levels:
            raise UserError(f"{file}:{number}: task {task} is none of this run's {len(levels)}; is it another run's?")
        if verdicts.setdefault(task, bool(row["score"])) != bool(row["score"]):
            raise UserError(f"{file}:{number}: a second verdict on task {task}; give the rows of one submission")
    if missing := sorted(set(levels) - set(verdicts)):
        raise UserError(f"{file}: has no score for {len(missing)} of this run's tasks, such as {missing[0]}")
    return verdicts


def _counts(row: Any, file: Path, levels: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Of a leaderboard's row: level → right ones, and how many there are in this run."""
    counts = {}
    for level, key in ROW_KEYS.items():
        n = sum(one == level for one in levels.values())
        percent = row.get(key)
        if not isinstance(percent, int | float) or not n:
            raise UserError(f'{file}: needs a number under "{key}", and a run with {level} tasks ({n} in this one)')
        right = round(percent / 100 * n)
        if abs(100 * right / n - percent) > _SHOWN_TO:
            raise UserError(f"{file}: {percent} % is no share of this run's {n} {level} tasks; is it another run's?")
        counts[level] = (right, n)
    return counts


def _count(verdicts: Mapping[str, bool], levels: Mapping[str, str], level: str) -> tuple[int, int]:
    among = [right for task, right in verdicts.items() if levels[task] == level]
    return sum(among), len(among)


def _write_verdicts(folder: RunFolder, predictions: list[dict[str, Any]], verdicts: Mapping[str, bool]) -> None:
    """The submission has the first sample of each task."""
    lines = []
    for one in predictions:
        is_submitted = one["id"] == f"{one['task']}#0"
        verdict = {METRIC: verdicts[one["task"]], "correct": verdicts[one["task"]]} if is_submitted else {}
        lines.append(json.dumps({**one, **verdict}, ensure_ascii=False) + "\n")
    folder.write_text(folder.predictions(TASK), "".join(lines))


def _but(scores: Mapping[str, Score], others: Mapping[str, Score]) -> dict[str, Score]:
    return {name: score for name, score in scores.items() if name not in others}


def _score(right: int, n: int) -> Score:
    return {"value": right / n, "n": n, "ci95": list(wilson(right, n))}
