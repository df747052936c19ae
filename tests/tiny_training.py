"""Trainings of a second in this process: a few short conversations, a random model of two layers."""

import json
import random
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ftx import metrics_log
from ftx.config.compose import compose
from ftx.config.schema import RunConfig
from ftx.data.prepare import Prepared, prepare
from ftx.models import load_model, trainable
from ftx.run_folder import RunFolder
from ftx.stopping import StopRequest
from ftx.trainer import train

SIZES = {"vocabulary_size": 320, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "head_dim": 8}


def write_chats(folder: Path, count: int = 25) -> Path:
    """Conversations of uneven lengths, with answers of 1 to 30 words."""
    draw = random.Random(4)

    def words(most: int) -> str:
        return " ".join(f"w{draw.randrange(40)}" for _ in range(draw.randint(1, most)))

    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps({"prompt": words(12), "completion": words(30)}) + "\n" for _ in range(count)))
    return path


def tiny(data: Path, *words: str) -> RunConfig:
    """Steps of four conversations, each of which is logged."""
    return compose(
        *(f"model.architecture.{name}={size}" for name, size in SIZES.items()),
        *on(data),
        *words,
    )


def on(data: Path) -> tuple[str, ...]:
    """The words of ``tiny`` that leave the model open."""
    return (
        *("data=jsonl", f"data.path={data}", f"run_root={data.parent}", "data.holdout=0.2", "data.packing=false"),
        *("hardware.micro_batch=1", "schedule.global_batch_size=4", "schedule.log_every=1", "schedule.epochs=2"),
        *("schedule.save_every=never", "schedule.eval_every=never"),
    )


def start(run: RunConfig) -> tuple[Prepared, PreTrainedModel]:
    """The data and the model as training takes them."""
    prepared = prepare(run)
    return prepared, trainable(load_model(run, prepared.tokenizer), run)


def train_in(folder: Path, run: RunConfig) -> tuple[PreTrainedModel, list[dict]]:
    """The trained model and its training rows; goes on where ``folder`` has a checkpoint."""
    prepared, model = start(run)
    folder.mkdir(exist_ok=True)
    train(run, prepared, model, RunFolder(folder), StopRequest(), lambda: None)
    return model, rows_in(folder)


def train_until(step: int, folder: Path, run: RunConfig) -> None:
    """Somebody stops it after ``step``."""
    from ftx.errors import Interrupted

    stop = StopRequest()

    def look() -> None:
        if any(row["step"] == step for row in rows_in(folder)):
            stop.reason = "SIGTERM"

    prepared, model = start(run)
    folder.mkdir()
    try:
        train(run, prepared, model, RunFolder(folder), stop, look)
    except Interrupted:
        return
    raise AssertionError("nothing stopped it")


def rows_in(folder: Path) -> list[dict]:
    return [row for row in metrics_log.read(folder / "metrics.jsonl") if "train_loss" in row]


def column(rows: list[dict], name: str) -> list[float]:
    return [row[name] for row in rows]


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module, **tolerances: float) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], **(tolerances or {"atol": 2e-5, "rtol": 1e-4}))
