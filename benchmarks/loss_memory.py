"""Peak memory of loss and backward over a large vocabulary: ftx beside TRL's loss and plain cross-entropy.

Hidden states of 8,192 tokens, 30 % of them supervised, and the head of a model with 151,936 tokens: each way computes
the loss and the gradients of both, in a process of its own. The figure is how far the resident memory (on a GPU: the
allocated memory) rises above what weights and hidden states take. Losses and gradients have to agree.

    python -m benchmarks.loss_memory [--tokens 8192] [--precision bf16|fp32]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear
from transformers.loss.loss_utils import ForCausalLMLoss

from benchmarks.peak import peak_since, reset_peak

VOCABULARY, HIDDEN, SUPERVISED = 151_936, 1024, 0.3
AT_MOST = 0.25
# Relative, of the loss and of the norm of what gradients differ by.
TOLERANCES = {"fp32": (1e-5, 1e-4), "bf16": (1e-3, 2e-2)}


@dataclass(frozen=True)
class Task:
    """Hidden states ``[tokens, hidden size]``, the head's weight, and the next tokens, -100 where none is learned."""

    hidden: torch.Tensor
    weight: torch.Tensor
    labels: torch.Tensor

    @property
    def targets(self) -> int:
        return int((self.labels != -100).sum())

    def supervised(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What ftx's head sees: the hidden states at supervised positions, and their targets."""
        keep = (self.labels != -100).nonzero()[:, 0]
        return self.hidden[keep], self.labels[keep]


def all_logits(task: Task) -> torch.Tensor:
    """What transformers does with labels: all logits, in 32-bit floats."""
    logits = linear(task.hidden, task.weight)[None]
    loss: torch.Tensor = ForCausalLMLoss(
        logits, None, len(task.weight), num_items_in_batch=task.targets, shift_labels=task.labels[None]
    )
    return loss


def trl(task: Task) -> torch.Tensor:
    """What TRL's SFTTrainer does, as its patched forward calls it; without Triton it scores every position."""
    from trl.kernels.chunked_logprob import _use_triton
    from trl.trainer import utils

    mask = task.labels != -100
    compact = _use_triton(task.hidden.device)
    hidden, labels = (task.hidden[mask], task.labels[mask]) if compact else (task.hidden, task.labels.clamp(min=0))
    chunk = utils._CHUNKED_LOGPROB_CHUNK_SIZE
    log_probs: torch.Tensor = utils._ChunkedLogProbFunction.apply(
        hidden, task.weight, None, labels, 1.0, chunk, None, 1.0, ("log_probs",)
    )[0]
    return -(log_probs if compact else log_probs.masked_fill(~mask, 0)).sum() / task.targets


def ftx_plain(task: Task) -> torch.Tensor:
    from torch.nn.functional import cross_entropy

    hidden, targets = task.supervised()
    return cross_entropy(linear(hidden, task.weight).float(), targets, reduction="sum") / len(targets)


def ftx_chunked(task: Task) -> torch.Tensor:
    from ftx.chunked_loss import AfterHead, summed_loss

    hidden, targets = task.supervised()
    return summed_loss(hidden, task.weight, None, targets, AfterHead()) / len(targets)


def ftx_liger(task: Task) -> torch.Tensor:
    from ftx.chunked_loss import AfterHead, liger_loss

    hidden, targets = task.supervised()
    return liger_loss(hidden, task.weight, None, targets, AfterHead()) / len(targets)


WAYS: dict[str, tuple[str, Callable[[Task], torch.Tensor]]] = {
    "all": ("plain cross-entropy over all logits", all_logits),
    "trl": ("TRL 1.16", trl),
    "plain": ("ftx, model.loss=plain", ftx_plain),
    "chunked": ("ftx, model.loss=chunked", ftx_chunked),
    "liger": ("ftx, model.loss=liger", ftx_liger),
}


def task_of(tokens: int, vocabulary: int, precision: str, device: str) -> Task:
    """32-bit weights; with bf16 the hidden states are what autocast makes of them."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, HIDDEN, generator=draw)
    weight = torch.randn(vocabulary, HIDDEN, generator=draw).mul_(HIDDEN**-0.5)
    labels = torch.randint(vocabulary, (tokens,), generator=draw)
    labels[torch.randperm(tokens, generator=draw)[round(SUPERVISED * tokens) :]] = -100
    hidden = hidden.to(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    return Task(hidden.requires_grad_(), weight.to(device).requires_grad_(), labels.to(device))


def measure(way: str, task: Task, precision: str) -> dict[str, Any]:
    """MiB that loss and backward took at their peak, seconds, the loss and the gradients of a few rows."""
    kind = task.hidden.device.type
    reset_peak(kind)
    began = time.perf_counter()
    with torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
        loss = WAYS[way][1](task)
    loss.backward()
    value = loss.item()
    seconds, peak = time.perf_counter() - began, peak_since(kind)
    gradients = [part.grad for part in (task.hidden, task.weight)]
    assert all(gradient is not None for gradient in gradients)
    some = [
        gradient[:: max(len(gradient) // 256, 1)].double().tolist() for gradient in gradients if gradient is not None
    ]
    return {"mib": peak / 2**20, "seconds": seconds, "loss": value, "gradients": some}


def in_own_process(way: str, given: argparse.Namespace) -> dict[str, Any]:
    """The measurement of one way, or ``{"failed": why}``."""
    if way == "liger" and given.device == "cpu":
        return {"failed": "Liger's kernels need a GPU"}
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks.loss_memory", "--way", way, "--into", str(found)]
        for name in ("tokens", "vocabulary", "precision", "device"):
            command += [f"--{name}", str(getattr(given, name))]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            return {"failed": (ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"])[-1]}
        measured: dict[str, Any] = json.loads(found.read_text())
        return measured


def apart(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    """How far two losses, and the worst of two gradients, are from each other, relative."""
    norms = []
    for mine, theirs in zip(one["gradients"], other["gradients"], strict=True):
        expected = torch.tensor(theirs)
        norms.append(float((torch.tensor(mine) - expected).norm() / expected.norm()))
    return abs(one["loss"] / other["loss"] - 1), max(norms)


def report(found: dict[str, dict[str, Any]], given: argparse.Namespace) -> list[str]:
    """The table; raises SystemExit where results differ, or where the chunked loss takes too much."""
    plain = found["all"]
    sys.stdout.write(f"{given.tokens:,} tokens, vocabulary {given.vocabulary:,}, {given.precision}, {given.device}\n")
    wrong = []
    for way, (title, _) in WAYS.items():
        one = found[way]
        if "failed" in one:
            sys.stdout.write(f"{title:38} cannot run here: {one['failed']}\n")
            continue
        line = f"{title:38}{one['mib']:>9,.0f} MiB{one['seconds']:>7.1f} s  loss {one['loss']:.6f}"
        if "failed" not in plain:
            share, (by_loss, by_gradient) = one["mib"] / plain["mib"], apart(one, plain)
            line += f"{100 * share:>7.1f} %  apart by {by_loss:.0e}, gradients by {by_gradient:.0e}"
            most_loss, most_gradient = TOLERANCES[given.precision]
            if by_loss > most_loss or by_gradient > most_gradient:
                wrong.append(f"{title}: not the same result")
            if way == "chunked" and share > AT_MOST:
                wrong.append(f"{title}: more than {100 * AT_MOST:.0f} % of the plain way's memory")
        sys.stdout.write(f"{line}\n")
    return wrong


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--precision", choices=tuple(TOLERANCES), default="bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--way", choices=tuple(WAYS), help="only this one, in this process")
    parser.add_argument("--into", type=Path, help="with --way: the file for what was measured")
    given = parser.parse_args(arguments)
    if given.way:
        task = task_of(given.tokens, given.vocabulary, given.precision, given.device)
        given.into.write_text(json.dumps(measure(given.way, task, given.precision)))
        sys.stdout.flush()
        os._exit(0)  # without tidying up gigabytes
    wrong = report({way: in_own_process(way, given) for way in WAYS}, given)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main(sys.argv[1:])
