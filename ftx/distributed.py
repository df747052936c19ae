"""The processes of one run: how they meet, agree, add up and part. Everything here also works for one alone."""

import os
import sys
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.environment import Rank, meeting_point, this_rank

# How long the others wait for one: as long as a large checkpoint may take to reach a slow disk. A rank that dies is
# noticed at once, by whoever started it and by the connections that break.
TIMEOUT = timedelta(minutes=30)
# The watchdog comes first: it says more than a connection that gave up.
BEHIND_THE_WATCHDOG = timedelta(minutes=10)

_store: dist.TCPStore | None = None
_meetings = 0


def rank_of(run: RunConfig) -> Rank:
    """Which of the run's processes this is."""
    return this_rank() if ranks(run) > 1 else Rank()


def meeting_place(rank: Rank, timeout: timedelta) -> dist.Store:
    """The store on rank 0 where the ranks find each other: the same one for as long as the process lives."""
    global _store  # noqa: PLW0603 - a process is one rank
    if _store is None:
        at = meeting_point()
        _store = dist.TCPStore(at.host, at.port, is_master=rank.is_main, wait_for_workers=False, timeout=timeout)
    _store.set_timeout(timeout)
    return _store


def join(run: RunConfig, timeout: timedelta | None = None) -> None:
    """Meet the run's other processes; nothing to do for one alone.

    Tensors on the CPU always take gloo, so that flags and sums are exchanged without stopping a GPU. All ranks join,
    and leave, equally often.
    """
    global _meetings  # noqa: PLW0603
    if ranks(run) == 1:
        return
    rank, timeout = this_rank(), timeout or _patience(run)
    if run.hardware.device == "cuda":
        torch.cuda.set_device(rank.local)
    backend = "cpu:gloo,cuda:nccl" if run.hardware.device == "cuda" else "gloo"
    _meetings += 1
    store = dist.PrefixStore(f"meeting {_meetings}", meeting_place(rank, timeout))
    dist.init_process_group(backend, store=store, rank=rank.index, world_size=rank.count, timeout=timeout)


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
