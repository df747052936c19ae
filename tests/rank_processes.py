"""Trainings by several ranks, many of them in one start of the rank processes: importing and meeting is paid once.

A rank computes a training as ``ftx.job`` does, but for what happens before the ranks meet and after they part.
"""

import gc
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verb_process import DEADLINE_SECONDS, SERVER

from ftx.config.schema import RunConfig
from ftx.data.prepare import prepare
from ftx.errors import Interrupted
from ftx.run_folder import RunFolder
from ftx.runs_on_disk import open_run_folder
from ftx.stopping import StopRequest

COMPILED = "compiled"


@dataclass(frozen=True)
class Part:
    """One start of one run, and after how many rows of metrics it is told to stop (0: never).

    ``note_held``: where rank 0 writes how many bytes of tensors it holds when a step begins, at most, and behind the
    last one.
    """

    folder: Path
    run: RunConfig
    stop_after: int = 0
    note_held: Path | None = None


def compute(parts: Sequence[Part], ranks: int, into: Path) -> None:
    """One after another, by ranks that stay; what they say is in ``into``. Raises where one of them fails."""
    if ranks == 1:
        for part in parts:
            _compute(part, is_main=True)
        return
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    logs = [into / f"rank-{rank}.txt" for rank in range(ranks)]
    processes = [SERVER.Process(target=_be, args=(rank, ranks, port, parts, logs[rank])) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_SECONDS * len(parts))
        process.kill()
    codes = [process.exitcode for process in processes]
    assert codes == [0] * ranks, "\n".join(log.read_text()[-6000:] for log in logs)
    assert not (into / COMPILED).exists(), "a library compiled something, behind a lock that a killed process leaves"


def _be(rank: int, ranks: int, port: int, parts: Sequence[Part], log: Path) -> None:
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(opened, 1)
    os.dup2(opened, 2)
    sys.stdout = sys.stderr = os.fdopen(opened, "w", buffering=1)
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    here |= {"OMP_NUM_THREADS": 1, "TORCH_EXTENSIONS_DIR": log.parent / COMPILED}
    os.environ |= {name: str(value) for name, value in here.items()}
    import torch

    from ftx.distributed import end_process, join
    from ftx.environment import announce_cpu

    announce_cpu()
    torch.set_num_threads(1)
    gc.freeze()  # collecting garbage among all that is imported takes longer than a training
    join(parts[0].run)
    for part in parts:
        _compute(part, is_main=rank == 0)
        _forget_the_last_one()
    end_process(0)


def _compute(part: Part, *, is_main: bool) -> None:
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    from ftx.distributed import barrier
    from ftx.job import model_to_train
    from ftx.resume import make_readable
    from ftx.trainer import train

    run, folder, stop = part.run, RunFolder(part.folder), StopRequest()
    rows = []

    held = _Held()

    def on_row() -> None:
        rows.append(1)
        if part.note_held is not None:
            held.ended()
        if len(rows) == part.stop_after:
            stop.reason = "told"

    if is_main:
        open_run_folder(folder, run, (), {})
        make_readable(folder, run)
    barrier()
    prepared = prepare(run)
    try:
        if part.note_held is not None:
            held.before = _held()
            register_optimizer_step_pre_hook(held.begins)
        train(run, prepared, model_to_train(run, prepared), folder, stop, on_row)
        if part.note_held is not None and is_main:
            part.note_held.write_text(f"{held.at_a_step} {held.behind}")
        assert not part.stop_after, "was not told to stop"
    except Interrupted:
        assert part.stop_after


@dataclass
class _Held:
    """Bytes of tensors beyond those that were there before."""

    before: int = 0
    at_a_step: int = 0
    behind: int = 0

    def begins(self, *_: object) -> None:
        self.at_a_step = max(self.at_a_step, _held() - self.before)

    def ended(self) -> None:
        self.behind = _held() - self.before


def _held() -> int:
    """Bytes of all tensors of numbers that Python knows of, but for buckets that are allocated whole and stay empty."""
    import torch

    from ftx.reduce_bucket import REDUCE_BUCKET

    gc.collect()
    found = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor):
            tensor = getattr(thing, "_local_tensor", thing)
            if tensor.is_floating_point() or tensor.dtype == torch.uint8:
                storage = tensor.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return sum(size for size in found.values() if size < REDUCE_BUCKET)


def _forget_the_last_one() -> None:
    """Accelerate and transformers keep the strategy of a process for as long as it lives."""
    from accelerate.state import AcceleratorState, GradientState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    unset_hf_deepspeed_config()
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_MIXED_PRECISION"):
        os.environ.pop(name, None)
