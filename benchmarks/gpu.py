"""What a GPU is for: speed and memory of large models beside TRL on the same card, and each GPU path's results.

Each row runs in a process of its own, and what cannot run here is said with the reason. Models have random weights;
the text is the standard library's documentation, packed. TRL trains on the very same rows.

    python -m benchmarks.gpu [--steps 12] [--device cpu --tiny]
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftx import metrics_log
from ftx.attention import IMPLEMENTATIONS
from ftx.config.compose import compose
from ftx.config.schema import RunConfig

WARM_UP_STEPS = 4
SEGMENTS = (1, 300, 37, 512, 174)
# Gradients in bf16 against those in 32-bit floats: the norm of what they differ by, relative.
AT_MOST_APART = 0.03

# Names as model.architecture.* has them: Qwen3-4B, Qwen3-8B, and one for trying the code out.
SHAPES = {
    "qwen3_4b": (151_936, 2560, 9728, 36, 32, 8, 128, True),
    "qwen3_8b": (151_936, 4096, 12_288, 36, 32, 8, 128, False),
    "tiny": (1024, 64, 96, 2, 4, 2, 16, True),
}
SHAPE_KEYS = (
    *("vocabulary_size", "hidden_size", "intermediate_size", "layers", "heads", "key_value_heads", "head_dim"),
    "tied_embeddings",
)


@dataclass(frozen=True)
class Row:
    """One line of the table: what does it, and with which model and words."""

    title: str
    how: str
    shape: str = ""
    words: tuple[str, ...] = ()


ROWS = (
    Row("ftx full, Qwen3-4B", "ftx", "qwen3_4b", ("method.master_weights=none",)),
    Row("TRL full, Qwen3-4B", "trl", "qwen3_4b"),
    Row("ftx LoRA, Qwen3-8B", "ftx", "qwen3_8b", ("method=lora",)),
    Row("ftx QLoRA, Qwen3-8B", "ftx", "qwen3_8b", ("method=qlora",)),
    *(Row(f"model.attention={name}", "attention", "tiny", (f"model.attention={name}",)) for name in IMPLEMENTATIONS),
)


def words_of(row: Row, given: argparse.Namespace, root: str) -> list[str]:
    """A run of a few steps on one device, a packed row each, that keeps nothing but its metrics."""
    shape = SHAPES["tiny" if given.tiny else row.shape]
    hardware = ["hardware=cpu", "hardware.micro_batch=1"]
    if given.device == "cuda":
        hardware = ["hardware=8xH100", "hardware.gpus_per_node=1", "hardware.processes_per_node=1"]
    return [
        *("model=tiny", *(f"model.architecture.{key}={value}" for key, value in zip(SHAPE_KEYS, shape, strict=True))),
        *(
            "data.packing=true",
            f"data.max_length={256 if given.tiny else 8192}",
            "data.holdout=0",
            "data.too_long=drop",
        ),
        *hardware,
        *("hardware.precision=bf16", f"schedule.max_steps={given.steps}", "schedule.global_batch_size=1"),
        *(
            "schedule.log_every=1",
            "schedule.save_every=never",
            "schedule.eval_every=never",
            "schedule.learning_rate=1e-5",
        ),
        *("evaluation.tasks=[]", "tracking.offline=true", f"tracking.uri=sqlite:///{root}/mlflow.db"),
        *(f"run_root={root}/runs", f"data.cache={given.cache}", "name=gpu"),
        *row.words,
    ]


def ftx(row: Row, given: argparse.Namespace) -> dict[str, Any]:
    """The verb itself; what it wrote down after the warm-up."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "ftx.train", *words_of(row, given, root)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(_reason(ended.stderr))
        (metrics,) = Path(root, "runs").glob("*/metrics.jsonl")
        rows = [one for one in metrics_log.read(metrics) if "train_loss" in one]
    later = rows[WARM_UP_STEPS:]
    seconds = sum(one["step_seconds"] for one in later)
    tokens = later[-1]["total_tokens"] - rows[WARM_UP_STEPS - 1]["total_tokens"]
    mfu = [one["mfu"] for one in later if one["mfu"] is not None]
    return {
        "tokens/s": tokens / seconds,
        "peak GiB": max(one["memory_gib"] for one in rows),
        "mfu": float(np.median(mfu)) if mfu else None,
        "loss": rows[-1]["train_loss"],
    }


def trl(row: Row, given: argparse.Namespace) -> dict[str, Any]:
    """TRL's SFTTrainer on the rows that ftx would take, in their order, in pure bf16."""
    from datasets import Dataset
    from transformers import Qwen3ForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from ftx.data.order import order_of
    from ftx.data.prepare import prepare
    from ftx.models import load_model
    from ftx.throughput import peak_memory_gib

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if given.device == "cuda":
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as root:
        run = compose(*words_of(row, given, root))
        prepared = prepare(run)
        order = order_of(run, prepared)
        rows = [order.row(order.rows(0, step)[0]) for step in range(given.steps)]
        model: Any = load_model(run, prepared.tokenizer)
        assert isinstance(model, Qwen3ForCausalLM)
        model.set_attn_implementation("sdpa")
        model = model.to(torch.bfloat16)
        labels = [np.where(one.supervised, one.input_ids, -100) for one in rows]
        columns = {"input_ids": [one.input_ids for one in rows], "labels": labels}
        arguments = SFTConfig(
            output_dir=root,
            per_device_train_batch_size=1,
            max_steps=given.steps,
            learning_rate=1e-5,
            bf16=True,
            use_cpu=given.device == "cpu",
            gradient_checkpointing=False,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({**columns, "seq_lengths": [one.lengths for one in rows]}),
            processing_class=prepared.tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    tokens = sum(len(one.input_ids) for one in rows[WARM_UP_STEPS:])
    return {
        "tokens/s": tokens / (ends[-1] - ends[WARM_UP_STEPS - 1]),
        "peak GiB": peak_memory_gib(),
        "mfu": None,
        "loss": next(one["loss"] for one in reversed(trainer.state.log_history) if "loss" in one),
    }


def attention(row: Row, given: argparse.Namespace) -> dict[str, Any]:
    """Gradients of a packed row in bf16, against those of every segment alone in 32-bit floats."""
    from ftx.attention import register
    from ftx.data.collate import collate
    from ftx.data.store import Row as Packed

    with tempfile.TemporaryDirectory() as root:
        run = compose(*words_of(row, given, root))
    device = torch.device(given.device)
    register()
    model, exact = _random(run).to(device), _random(run).to(device)
    model.set_attn_implementation(IMPLEMENTATIONS[run.model.attention])
    exact.set_attn_implementation("eager")
    ids = np.arange(sum(SEGMENTS), dtype=np.int32) * 7919 % 1000
    packed = Packed(ids, np.ones(len(ids), dtype=bool), np.array(SEGMENTS, dtype=np.int32))
    batch = {name: part.to(device) if hasattr(part, "to") else part for name, part in collate([packed]).items()}
    targets = batch.pop("labels")[1:]
    with torch.autocast(given.device, torch.bfloat16):
        logits = model(**batch).logits[0]
    loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    loss.backward()
    expected = torch.zeros((), device=device)
    for start, end in pairwise(np.cumsum([0, *SEGMENTS])):
        alone = torch.tensor(ids[start:end], dtype=torch.long, device=device)
        logits = exact(input_ids=alone[None], use_cache=False).logits[0, :-1]
        expected = expected + torch.nn.functional.cross_entropy(logits, alone[1:], reduction="sum")
    expected.backward()
    apart = _apart(model, exact)
    if apart > AT_MOST_APART:
        raise RuntimeError(f"WRONG: gradients are {apart:.1e} from those of separate sequences")
    return {"loss apart": abs(float(loss.detach() / expected.detach()) - 1), "gradients apart": apart}


def _random(run: RunConfig) -> Any:
    """The run's random model, without a tokenizer."""
    from types import SimpleNamespace

    from ftx.models import load_model

    tokens: Any = SimpleNamespace(eos_token_id=1, pad_token_id=0)
    return load_model(run, tokens)


def _apart(model: torch.nn.Module, exact: torch.nn.Module) -> float:
    pairs = [(a.grad, b.grad) for a, b in zip(model.parameters(), exact.parameters(), strict=True)]
    ours, right = (
        torch.cat([one.flatten().float() for one in side if one is not None]) for side in zip(*pairs, strict=True)
    )
    return float((ours - right).norm() / right.norm())


HOW: dict[str, Callable[[Row, argparse.Namespace], dict[str, Any]]] = {"ftx": ftx, "trl": trl, "attention": attention}


def in_own_process(at: int, given: argparse.Namespace) -> dict[str, Any]:
    """What a row found, or ``{"failed": why}``."""
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--row", str(at), "--into", str(into)]
        command += ["--steps", str(given.steps), "--device", given.device, "--cache", str(given.cache)]
        command += ["--tiny"] if given.tiny else []
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if not into.exists():
            return {"failed": _reason(ended.stderr)}
        found: dict[str, Any] = json.loads(into.read_text())
        return found


def _reason(said: str) -> str:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return re.sub(r"^(error|[\w.]*(UserError|RuntimeError)): ", "", lines[-1]) if lines else "it ended without a word"


def describe(found: dict[str, Any], beside: dict[str, Any]) -> str:
    """A row's figures; TRL's MFU is ours times the ratio of speeds, since model and rows are the same."""
    if "failed" in found:
        return f"cannot run here: {found['failed']}"
    if "gradients apart" in found:
        return f"loss {found['loss apart']:.1e}, gradients {found['gradients apart']:.1e} from separate sequences"
    mfu = found["mfu"]
    if mfu is None and beside.get("mfu"):
        mfu = beside["mfu"] * found["tokens/s"] / beside["tokens/s"]
    share = "-" if mfu is None else f"{100 * mfu:.1f} %"
    speed, peak = f"{found['tokens/s']:>10,.0f} tokens/s", f"peak {found['peak GiB']:>6.1f} GiB"
    return f"{speed}  MFU {share:>7}  {peak}  loss {found['loss']:.4f}"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the code out")
    parser.add_argument("--cache", type=Path, help="the folder for prepared data")
    parser.add_argument("--row", type=int, help="only this one, in this process")
    parser.add_argument("--into", type=Path, help="with --row: the file for what was found")
    given = parser.parse_args(arguments)
    if given.row is not None:
        row = ROWS[given.row]
        given.into.write_text(json.dumps(HOW[row.how](row, given)))
        return
    missing = "" if given.device == "cpu" or torch.cuda.is_available() else "PyTorch sees no CUDA device"
    name = torch.cuda.get_device_name() if given.device == "cuda" and not missing else given.device
    sys.stdout.write(f"{name}, torch {torch.__version__}{f': {missing}' if missing else ''}\n")
    beside: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        given.cache = given.cache or Path(cache)
        for at, row in enumerate(ROWS):
            found = {"failed": missing} if missing else in_own_process(at, given)
            sys.stdout.write(f"{row.title:26}{describe(found, beside if row.how == 'trl' else {})}\n")
            sys.stdout.flush()
            beside = found
    if missing:
        sys.stdout.write(f"{'each model.loss':26}cannot run here: {missing}\n")
        return
    sizes = ["--tokens", "64", "--vocabulary", "2000"] if given.tiny else []
    subprocess.run(
        [sys.executable, "-m", "benchmarks.loss_memory", "--device", given.device, *sizes], check=not given.tiny
    )


if __name__ == "__main__":
    main(sys.argv[1:])
