"""What runs, scores and tags are called in MLflow, so that its list, charts and Compare view read well.

Its UI sorts parameters and metrics by name and draws a section of charts for each part before a slash. Compare has no
order of its own: ``Show diff only`` leaves the parameters that differ, which are in a run's name and description too.
"""

from collections.abc import Mapping
from typing import Any

from ftx.config.keys import flat
from ftx.config.schema import RunConfig

RUN_TAG, SWEEP_TAG, PARENT_TAG = "ftx.run", "ftx.sweep", "mlflow.parentRunId"
EXPERIMENT_TAG, STATE_TAG = "ftx.experiment", "ftx.state"
# Of one folder alone: by it a run is found again whose making was never answered.
KEY_TAG = "ftx.key"
# A run's description, as markdown.
NOTE_TAG = "mlflow.note.content"
# Without it the UI asks what an experiment is, or takes it for one of prompts and traces.
KIND_OF_EXPERIMENT = {"mlflow.experimentKind": "custom_model_development"}
# MLflow refuses longer ones.
LONGEST_PARAMETER, LONGEST_NOTE = 500, 5000


def run_name(swept: Mapping[str, str]) -> str:
    """``epochs=3, lr=0.001``: short, since the list cuts off what is longer than some fifteen letters.

    A key of several words is its initials, unless two keys have the same ones.
    """
    names = [key.rsplit(".", 1)[-1] for key in swept]
    short = ["".join(word[0] for word in name.split("_") if word) if "_" in name else name for name in names]
    chosen = short if len(set(short)) == len(short) else names
    return ", ".join(f"{name}={value}" for name, value in zip(chosen, swept.values(), strict=True))


def score_name(task: str, metric: str) -> str:
    """``classification/accuracy``: the scores of a task make one section of charts."""
    return f"{task}/{metric}"


def named_scores(scores: Mapping[str, Mapping[str, dict[str, Any]]]) -> dict[str, float]:
    """All values of a scores.json by that name."""
    return {
        score_name(task, name): entry["value"]
        for task, metrics in scores.items()
        for name, entry in metrics.items()
        if entry["value"] is not None
    }


def parameters_of(run: RunConfig) -> dict[str, str]:
    """Flat keys, but for what others have published; a value too long is cut here, and whole in run.yaml."""
    settings = {name: value for name, value in flat(run).items() if not name.startswith("expected.")}
    return {name: str(value)[:LONGEST_PARAMETER] for name, value in settings.items()}


def as_note(text: str) -> str:
    """As much of the text as a description holds, whole paragraphs, so that no table is cut in half."""
    kept, length = [], 0
    for paragraph in text.split("\n\n"):
        length += len(paragraph) + 2
        if length > LONGEST_NOTE:
            break
        kept.append(paragraph)
    return "\n\n".join(kept)
