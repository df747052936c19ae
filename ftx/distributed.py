"""The processes of one run: how they meet, agree, add up and part. Everything here also works for one alone."""

import os
import sys
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.environment import Rank, this_rank

# How long the others wait for one: as long as a large checkpoint may take to reach a slow disk. A rank that dies is
# noticed at once, by whoever started it and by the connections that break.
TIMEOUT = timedelta(minutes=30)
# The watchdog comes first: it says more than a connection that gave up.
BEHIND_THE_WATCHDOG = timedelta(minutes=10)


def rank_of(run: RunConfig) -> Rank:
    """Which of the run's processes this is."""
    return this_rank() if ranks(run) > 1 else Rank()


def join(run: RunConfig) -> None:
    """Meet the run's other processes; nothing to do for one alone.

    Tensors on the CPU always take gloo, so that flags and sums are exchanged without stopping a GPU.
    """
    if ranks(run) == 1:
        return
    if run.hardware.device == "cuda":
        torch.cuda.set_device(this_rank().local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if run.hardware.device == "cuda" else "gloo", timeout=_patience(run))


def _patience(run: RunConfig) -> timedelta:
    watchdog = run.launcher.watchdog_min
    return max(TIMEOUT, timedelta(minutes=watchdog) + BEHIND_THE_WATCHDOG) if watchdog else TIMEOUT


def leave() -> None:
    """Part when all have come to this line; what follows is for one process alone."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until all ranks have come to this line."""
    if dist.is_initialized():
        _added_up([0.0])


def is_main() -> bool:
    """Whether this is the rank that writes and speaks."""
    return not dist.is_initialized() or dist.get_rank() == 0


def added_up(numbers: Sequence[float]) -> list[float]:
    """Each number summed over all ranks, in double precision; every rank gets the same."""
    return _added_up(numbers) if dist.is_initialized() else list(numbers)


def any_of(here: bool) -> bool:
    """Whether it is so on any rank; the same answer everywhere."""
    return added_up([float(here)])[0] > 0


def _added_up(numbers: Sequence[float]) -> list[float]:
    sums = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(sums)
    total: list[float] = sums.tolist()
    return total


def end_process(code: int) -> None:
    """Leave without the libraries' own way out, which sometimes aborts after all work is done."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
