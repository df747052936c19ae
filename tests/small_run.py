"""Trainings of a tenth of a second in this process: five steps an epoch over twenty conversations."""

import json
import random
from pathlib import Path

from ftx.config.compose import compose
from ftx.config.schema import RunConfig
from ftx.data.prepare import prepare
from ftx.models import load_model, trainable
from ftx.run_folder import RunFolder
from ftx.stopping import StopRequest
from ftx.trainer import train

STEPS_PER_EPOCH = 5


def write_chats(path: Path) -> Path:
    """25 conversations of uneven lengths, five of which are held out."""
    draw = random.Random(4)

    def words(most: int) -> str:
        return " ".join(f"w{draw.randrange(40)}" for _ in range(draw.randint(1, most)))

    path.write_text("".join(json.dumps({"prompt": words(12), "completion": words(30)}) + "\n" for _ in range(25)))
    return path


def composed(chats: Path, *words: str) -> RunConfig:
    sizes = {"vocabulary_size": 320, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "head_dim": 8}
    return compose(
        *(f"model.architecture.{name}={size}" for name, size in sizes.items()),
        *("data=jsonl", f"data.path={chats}", f"run_root={chats.parent}", "data.holdout=0.2", "data.packing=false"),
        *("hardware.micro_batch=1", "schedule.global_batch_size=4", "schedule.log_every=1"),
        *words,
    )


def trained(run: RunConfig, path: Path, *, stop: StopRequest | None = None, on_row=lambda: None):
    """Train in the folder ``path``, from its newest checkpoint if it has one; the folder and the model in memory."""
    path.mkdir(exist_ok=True)
    prepared = prepare(run)
    model = trainable(load_model(run, prepared.tokenizer), run)
    folder = RunFolder(path)
    train(run, prepared, model, folder, stop or StopRequest(), on_row)
    return folder, model


class StopAt(StopRequest):
    """A stop that is requested once so many rows were written."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._left = rows

    def hear(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.reason = "SIGTERM"
