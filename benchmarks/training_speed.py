"""Training speed of ftx beside the plain Trainer and TRL: one model, the same chats in every step, the same losses.

A random Qwen3 of 6.8 million parameters learns AG News chats, 32 conversations of similar length a step, in bf16
autocast over 32-bit weights. ftx trains as `python -m ftx.train` does; the peers get the same conversations in the same
steps, padded to the longest. Every round is a process of its own and the sides take turns. A figure is non-padding
tokens a second after the warm-up, in which ftx compiles. TRL comes with `pip install trl==1.16.0`.

    python -m benchmarks.training_speed [--steps 40] [--rounds 3] [--sides ftx ftx-plain trainer trl]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftx.config.compose import compose
from ftx.config.schema import RunConfig
from ftx.data.collate import IGNORED
from ftx.data.order import order_of
from ftx.data.prepare import Prepared, prepare
from ftx.data.store import Row
from ftx.environment import CHECKOUT, announce_cpu, set_library_defaults

CONVERSATIONS_IN_STEP = 32
WARM_UP_STEPS = 10
THREADS = 2
TOLERANCE = 1e-3
LEARNING_RATE = 1e-4


def words(root: Path, shared: Path, steps: int) -> tuple[str, ...]:
    return (
        *("model=small", "data=jsonl", f"data.path={shared / 'ag_news' / 'train_part.csv.gz'}", "data.format=ag_news"),
        *("data.columns=[class,title,description]", "data.packing=false", "data.max_length=512", "data.too_long=drop"),
        *("hardware.precision=bf16", f"hardware.micro_batch={CONVERSATIONS_IN_STEP}", f"hardware.threads={THREADS}"),
        *(f"schedule.global_batch_size={CONVERSATIONS_IN_STEP}", f"schedule.max_steps={steps}", "schedule=constant"),
        *(f"schedule.learning_rate={LEARNING_RATE}", "schedule.warmup=5", "schedule.log_every=1"),
        *("schedule.save_every=never", "schedule.eval_every=never", f"run_root={root}"),
    )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="after the warm-up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--shared", type=Path, default=CHECKOUT.parent / "shared" / "data", help="AG News")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if not given.shared.is_dir():
        raise SystemExit(f"--shared={given.shared}: no such folder; give the one with ag_news")
    if given.side:
        sys.stdout.write(json.dumps(one_side(given.side, given.root, given.shared, given.steps)) + "\n")
        return
    with tempfile.TemporaryDirectory() as root:
        prepare(compose(*words(Path(root), given.shared, given.steps + WARM_UP_STEPS)))
        command = [sys.executable, "-m", "benchmarks.training_speed", "--root", root, "--shared", str(given.shared)]
        rounds = [
            {side: run_side([*command, "--steps", str(given.steps), "--side", side]) for side in given.sides}
            for _ in range(given.rounds)
        ]
    report(rounds)


def run_side(command: list[str]) -> dict[str, Any]:
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{command[-1]} failed:\n{ended.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def report(rounds: list[dict[str, dict[str, Any]]]) -> None:
    """Medians over the rounds; ratios are of the sides of one round. Ends with 1 where the curves differ."""
    apart = 0.0
    for side in rounds[0]:
        speed = statistics.median(one[side]["tokens_per_second"] for one in rounds)
        ratio = statistics.median(one["ftx"]["tokens_per_second"] / one[side]["tokens_per_second"] for one in rounds)
        peak = max(one[side]["peak_mib"] for one in rounds)
        difference = max(
            abs(a / b - 1) for one in rounds for a, b in zip(one["ftx"]["losses"], one[side]["losses"], strict=True)
        )
        apart = max(apart, difference)
        sys.stdout.write(
            f"{side:10} {speed:>8,.0f} tokens/s  {peak:>6,.0f} MiB  ftx is {ratio:.2f} times as fast, "
            f"losses at most {difference:.1e} apart\n"
        )
    if apart > TOLERANCE:
        raise SystemExit(f"the loss curves differ by more than {TOLERANCE}: the ratios mean nothing")


def one_side(side: str, root: Path, shared: Path, steps: int) -> dict[str, Any]:
    set_library_defaults()
    announce_cpu()
    torch.set_num_threads(THREADS)
    run = compose(*words(root, shared, WARM_UP_STEPS + steps), *SIDE_WORDS.get(side, ()))
    prepared = prepare(run)
    order = order_of(run, prepared)
    batches = [order.items[int(item)] for step in order.steps(0)[: WARM_UP_STEPS + steps] for item in step]
    counted = batches[WARM_UP_STEPS * CONVERSATIONS_IN_STEP :]
    losses, seconds = SIDES[side](run, prepared, batches)
    return {
        "losses": losses,
        "tokens_per_second": sum(len(row.input_ids) for row in counted) / seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def with_ftx(run: RunConfig, prepared: Prepared, batches: list[Row]) -> tuple[list[float], float]:
    from ftx import metrics_log
    from ftx.job import keep_freed_memory
    from ftx.models import load_model
    from ftx.run_folder import RunFolder
    from ftx.stopping import StopRequest
    from ftx.trainer import train

    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        train(run, prepared, load_model(run, prepared.tokenizer), RunFolder(Path(folder)), StopRequest(), lambda: None)
        rows = metrics_log.read(Path(folder) / "metrics.jsonl")
    return [row["train_loss"] for row in rows], sum(row["step_seconds"] for row in rows[WARM_UP_STEPS:])


def with_trainer(run: RunConfig, prepared: Prepared, batches: list[Row]) -> tuple[list[float], float]:
    from transformers import Trainer, TrainingArguments

    def make(model: Any, arguments: dict[str, Any], collator: Callable[..., Any]) -> Any:
        return Trainer(model=model, args=TrainingArguments(**arguments), train_dataset=batches, data_collator=collator)

    return with_peer(run, prepared, make)


def with_trl(run: RunConfig, prepared: Prepared, batches: list[Row]) -> tuple[list[float], float]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    def make(model: Any, arguments: dict[str, Any], collator: Callable[..., Any]) -> Any:
        ready = {"dataset_kwargs": {"skip_prepare_dataset": True}, "gradient_checkpointing": False}
        numbers = Dataset.from_dict({"input_ids": [[at] for at in range(len(batches))]})
        return SFTTrainer(
            model=model,
            args=SFTConfig(**arguments, **ready),
            train_dataset=numbers,
            processing_class=prepared.tokenizer,
            data_collator=lambda chosen: collator([batches[one["input_ids"][0]] for one in chosen]),
        )

    return with_peer(run, prepared, make)


def with_peer(run: RunConfig, prepared: Prepared, make: Callable[..., Any]) -> tuple[list[float], float]:
    from transformers import PrinterCallback

    from ftx.models import load_model

    model = load_model(run, prepared.tokenizer)
    model.set_attn_implementation("sdpa")
    pad_id = int(prepared.tokenizer.pad_token_id or 0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "output_dir": folder,
            "per_device_train_batch_size": CONVERSATIONS_IN_STEP,
            "num_train_epochs": 1,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant_with_warmup",
            "warmup_steps": 5,
            "bf16": True,
            "use_cpu": True,
            "train_sampling_strategy": "sequential",
            "remove_unused_columns": False,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
        }
        trainer = make(model, arguments, lambda rows: padded(rows, pad_id))
        stopwatch = _stopwatch()
        trainer.add_callback(stopwatch)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], stopwatch.seconds


def _stopwatch() -> Any:
    """The seconds of the steps after the warm-up."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        begin, seconds = 0.0, 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == WARM_UP_STEPS:
                self.begin = time.perf_counter()
            self.seconds = time.perf_counter() - self.begin

    return Stopwatch()


def padded(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    """What the peers get: ``[conversations, longest]`` with a mask, labels -100 where nothing is learned."""
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


SIDES = {"ftx": with_ftx, "ftx-plain": with_ftx, "trainer": with_trainer, "trl": with_trl}
# A benchmark is too short to compile for; an epoch of the same data is not.
SIDE_WORDS = {"ftx": ("model.compile=always",), "ftx-plain": ("model.compile=never", "data.share_prefix=never")}

if __name__ == "__main__":
    main(sys.argv[1:])
