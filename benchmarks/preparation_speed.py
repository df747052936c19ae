"""Preparation speed beside TRL's SFTTrainer: 20,000 chats from a file to packed rows, with the real Qwen3 tokenizer.

Both start with their libraries imported and end with rows that a trainer can take: read the file, load the tokenizer,
render the template, tokenize, mark the assistant's tokens, pack into 4,096. Every round is a process of its own, the
sides take turns, and the tokens of each conversation have to be the same. TRL comes with `pip install trl==1.16.0`.

    python -m benchmarks.preparation_speed [--conversations 20000] [--rounds 3] [--trl-python PYTHON]
"""

import argparse
import csv
import gzip
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ftx.environment import CHECKOUT

MAX_LENGTH = 4096
CATEGORIES = ("World", "Sports", "Business", "Sci/Tech")
SYSTEM = 'You are a news article classifier. Answer as {"category":"..."} with World, Sports, Business or Sci/Tech.'


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shared", type=Path, default=CHECKOUT.parent / "shared" / "data", help="AG News, tokenizers")
    parser.add_argument("--trl-python", default=sys.executable, help="a Python that has TRL")
    parser.add_argument("--side", choices=["ftx", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.side:
        of_ftx = given.side == "ftx"
        made = prepare_with_ftx(given.folder) if of_ftx else prepare_with_trl(given.folder, given.processes)
        sys.stdout.write(json.dumps(made) + "\n")
        return
    if not given.shared.is_dir():
        raise SystemExit(f"--shared={given.shared}: no such folder; give the one with ag_news and tokenizers")
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        write_chats(given.shared, folder, given.conversations)
        compare(folder, given.rounds, given.conversations, given.trl_python)


def compare(folder: Path, rounds: int, conversations: int, trl_python: str) -> None:
    """Alternating processes, their medians, and whether both made the same of every conversation."""
    sides = {"ftx": [sys.executable, "ftx", "1"], "TRL, 1 process": [trl_python, "trl", "1"]}
    sides["TRL, 2 processes"] = [trl_python, "trl", "2"]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (python, side, processes) in sides.items():
            runs[name].append(run_side(python, side, processes, folder))
    ours = [run["seconds"] for run in runs["ftx"]]
    for name, own in runs.items():
        seconds = statistics.median(run["seconds"] for run in own)
        ratio = statistics.median(run["seconds"] / mine for run, mine in zip(own, ours, strict=True))
        peak = max(run["peak_mib"] for run in own)
        sys.stdout.write(
            f"{name:18} {conversations / seconds:>8,.0f} conversations/s  {seconds:6.2f} s  {peak:>6,.0f} MiB  "
            f"{own[0]['rows']} rows  ftx is {ratio:.2f} times as fast\n"
        )
    again = statistics.median(run["again_seconds"] for run in runs["ftx"])
    sys.stdout.write(f"ftx again, from its cache: {again:.2f} s\n")
    if len({run["digest"] for own in runs.values() for run in own}) > 1:
        raise SystemExit("the sides made different tokens of the conversations: the ratio means nothing")
    sys.stdout.write(f"the same tokens and the same supervised tokens in all {conversations:,} conversations\n")


def run_side(python: str, side: str, processes: str, folder: Path) -> dict[str, Any]:
    command = [python, "-m", "benchmarks.preparation_speed", "--side", side, "--processes", processes]
    ended = subprocess.run(
        [*command, "--folder", str(folder)], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"{side} failed:\n{ended.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def write_chats(shared: Path, folder: Path, conversations: int) -> None:
    """AG News as chats, and the tokenizer with the configuration of a small model beside it."""
    with gzip.open(shared / "ag_news" / "train_part.csv.gz", "rt", encoding="utf-8") as file:
        rows = [row for row, _ in zip(csv.reader(file), range(conversations), strict=False)]
    with (folder / "chats.jsonl").open("w", encoding="utf-8") as chats:
        for number, title, text in rows:
            answer = json.dumps({"category": CATEGORIES[int(number) - 1]}, separators=(",", ":"))
            said = {"system": SYSTEM, "user": f"Classify this article: {title} {text}", "assistant": answer}
            messages = [{"role": role, "content": content} for role, content in said.items()]
            chats.write(json.dumps({"messages": messages}) + "\n")
    model = folder / "model"
    model.mkdir()
    for file in (shared / "tokenizers" / "qwen3").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "config.json").write_text(json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}))


def prepare_with_ftx(folder: Path) -> dict[str, Any]:
    # Imported before the clock starts.
    import fastokens  # noqa: F401

    import ftx.data.build
    import ftx.data.hub  # noqa: F401
    from ftx.config.compose import compose
    from ftx.data.prepare import prepare

    with tempfile.TemporaryDirectory(dir=folder) as root:
        run = compose(
            *("model=hub", f"model.name={folder / 'model'}", "model.template=qwen3", f"run_root={root}"),
            *("data=jsonl", f"data.path={folder / 'chats.jsonl'}", f"data.max_length={MAX_LENGTH}"),
            *("data.holdout=0", "evaluation.tasks=[]"),
        )
        begin = time.perf_counter()
        prepared = prepare(run)
        seconds = time.perf_counter() - begin
        peak = peak_mib()
        begin = time.perf_counter()
        prepare(run)
        again = time.perf_counter() - begin
        segments = []
        for row in prepared.train:
            borders = np.cumsum(row.lengths)[:-1]
            segments += zip(np.split(row.input_ids, borders), np.split(row.supervised, borders), strict=True)
        rows = len(prepared.train)
    return {**described(seconds, peak, rows, segments), "again_seconds": again}


def prepare_with_trl(folder: Path, processes: int) -> dict[str, Any]:
    import trl
    from datasets import load_dataset
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
    from trl import SFTConfig, SFTTrainer

    class Timed(SFTTrainer):
        seconds = 0.0

        def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = super()._prepare_dataset(*args, **kwargs)
            Timed.seconds = time.perf_counter() - began
            return result

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=512, num_attention_heads=2, num_key_value_heads=1, **sizes))
    with tempfile.TemporaryDirectory(dir=folder) as root:
        begin = time.perf_counter()
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        templates = Path(trl.__file__).parent / "chat_templates"
        tokenizer.chat_template = (templates / "qwen3_training.jinja").read_text(encoding="utf-8")
        chats = load_dataset("json", data_files=str(folder / "chats.jsonl"), split="train", cache_dir=root)
        loading = time.perf_counter() - begin
        settings = SFTConfig(
            output_dir=root,
            packing=True,
            assistant_only_loss=True,
            max_length=MAX_LENGTH,
            dataset_num_proc=processes,
            report_to="none",
            use_cpu=True,
            bf16=False,
        )
        trainer = Timed(model=model, args=settings, train_dataset=chats, processing_class=tokenizer)
        peak = peak_mib()
        segments = []
        for row in trainer.train_dataset:
            borders = np.cumsum(row["seq_lengths"])[:-1]
            marks = np.array(row["labels"]) != -100
            segments += zip(np.split(np.array(row["input_ids"]), borders), np.split(marks, borders), strict=True)
        return described(loading + Timed.seconds, peak, len(trainer.train_dataset), segments)


def described(
    seconds: float, peak: float, rows: int, segments: Iterable[tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any]:
    """What a side reports; the digest is the same for the same conversations in any order."""
    digest = 0
    for tokens, supervised in segments:
        content = tokens.astype(np.int32).tobytes() + np.flatnonzero(supervised).astype(np.int32).tobytes()
        digest = (digest + int.from_bytes(hashlib.sha256(content).digest()[:8])) % 2**64
    return {"seconds": seconds, "peak_mib": peak, "rows": rows, "digest": digest}


def peak_mib() -> float:
    """The most memory that this process has held, and the largest of its own processes beside it."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(one).ru_maxrss for one in who) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
