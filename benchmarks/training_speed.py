"""Training speed of ftx's way through the Hugging Face Trainer beside the plain one, on the same conversations.

Both train the same random model on the same 32 conversations a step, grouped by length, in the same order. The plain
Trainer pads them and computes all logits; ftx flattens them and computes the logits of supervised tokens only. The loss
curves have to agree, and the figure is the ratio of non-padding tokens a second, from alternating rounds in one run.

    python -m benchmarks.training_speed [--steps 20] [--rounds 3]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ftx.config.compose import compose
from ftx.data.collate import IGNORED, collate
from ftx.data.prepare import Prepared, prepare
from ftx.data.store import Row
from ftx.environment import announce_cpu
from ftx.job import keep_freed_memory
from ftx.loss import TokenLoss
from ftx.models import load_model

CONVERSATIONS_IN_STEP = 32
WARM_UP_STEPS = 3
TOLERANCE = 1e-3


class _Stopwatch(TrainerCallback):
    """Losses of every step, and the seconds of those after the warm-up."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == WARM_UP_STEPS:
            self._begin = time.perf_counter()
        self.seconds = time.perf_counter() - getattr(self, "_begin", time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def padded(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """What the plain Trainer gets: ``[conversations, longest]`` with a mask, labels -100 where nothing is learned."""
    longest = max(len(row.input_ids) for row in rows)
    batch = {
        "input_ids": torch.full((len(rows), longest), pad_id),
        "attention_mask": torch.zeros(len(rows), longest, dtype=torch.long),
        "labels": torch.full((len(rows), longest), IGNORED),
    }
    for at, row in enumerate(rows):
        ids = torch.from_numpy(row.input_ids.astype(np.int64))
        batch["input_ids"][at, : len(ids)] = ids
        batch["attention_mask"][at, : len(ids)] = 1
        batch["labels"][at, : len(ids)] = torch.where(torch.from_numpy(row.supervised), ids, IGNORED)
    return batch


def train(model: PreTrainedModel, rows: list[Row], collator: Callable[..., Any], loss: TokenLoss | None) -> _Stopwatch:
    watch = _Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=CONVERSATIONS_IN_STEP,
            num_train_epochs=1,
            learning_rate=1e-3,
            use_cpu=True,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=collator,
            compute_loss_func=loss,
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return watch


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    announce_cpu()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as root:
        run = compose("data.packing=false", f"run_root={root}")
        prepared = prepare(run)
        rows = _grouped_by_length(prepared, given.steps + WARM_UP_STEPS)
        tokens = sum(len(row.input_ids) for row in rows[WARM_UP_STEPS * CONVERSATIONS_IN_STEP :])

        def ours() -> _Stopwatch:
            return train(load_model(run, prepared.tokenizer), rows, collate, TokenLoss())

        def plain() -> _Stopwatch:
            model = load_model(run, prepared.tokenizer)
            model.set_attn_implementation("sdpa")
            pad_id = prepared.tokenizer.pad_token_id
            return train(model, rows, lambda batch: padded(batch, int(pad_id)), None)

        rounds = [(ours(), plain()) for _ in range(given.rounds)]
    apart = max(abs(a / b - 1) for one, other in rounds for a, b in zip(one.losses, other.losses, strict=True))
    mine, theirs = ([tokens / watch.seconds for watch in way] for way in zip(*rounds, strict=True))
    ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
    sys.stdout.write(
        f"ftx            {statistics.median(mine):>8,.0f} tokens/s\n"
        f"plain Trainer  {statistics.median(theirs):>8,.0f} tokens/s\n"
        f"ratio          {ratio:>8.2f}  (median of {given.rounds} pairs, {given.steps} steps each, "
        f"{torch.get_num_threads()} threads)\n"
        f"loss curves apart by at most {apart:.1e}\n"
    )
    if apart > TOLERANCE:
        raise SystemExit(f"the loss curves differ by more than {TOLERANCE}: the ratio means nothing")


def _grouped_by_length(prepared: Prepared, steps: int) -> list[Row]:
    """The first conversations, sorted by length within the whole, the batches then in a seeded order."""
    rows = sorted(
        (prepared.train[at] for at in range(steps * CONVERSATIONS_IN_STEP)), key=lambda row: len(row.input_ids)
    )
    batches = [rows[at : at + CONVERSATIONS_IN_STEP] for at in range(0, len(rows), CONVERSATIONS_IN_STEP)]
    order = np.random.default_rng(0).permutation(len(batches))
    return [row for at in order for row in batches[at]]


if __name__ == "__main__":
    main(sys.argv[1:])
