"""Whether what SLURM gave a run is whole: all ranks look before data is prepared and weights are loaded.

What is wrong is said once, with the node's name, where a training would hang or end in as many ways as it has ranks.
"""

import logging
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist

from ftx import checkpoints, progress
from ftx.agreement import Fault, Ranks, Said
from ftx.config.schema import RunConfig, ScheduleConfig, TrackingConfig
from ftx.disk import free_bytes, in_words, size_of
from ftx.distributed import join, leave, rank_of
from ftx.models import without_weights
from ftx.node_facts import NodeFacts, fault_among, look_around
from ftx.run_folder import RunFolder
from ftx.saving import Sizes, check_room, expected_sizes
from ftx.writing import of_this_attempt

log = logging.getLogger(__name__)

POLL_SECONDS = 0.001
TRACKING_SECONDS = 3.0
# What is added up over all ranks, in 32-bit floats, and how often to measure it.
BYTES, TIMES = 16 * 2**20, 5
# Behind its own limit adding up has an end, which is still to be told.
SPARE_SECONDS = 5.0
# Whole numbers that small have exact sums over any number of ranks there is.
DIFFERENT = 256


@dataclass(frozen=True)
class Limits:
    """Seconds for all ranks to come, to see what rank 0 wrote, to look at everything, and to add up."""

    come: float = 45.0
    see: float = 20.0
    look: float = 40.0
    add_up: float = 30.0


def check_allocation(
    folder: RunFolder, run: RunConfig, hosts: Sequence[str], tasks_per_node: int, limits: Limits | None = None
) -> None:
    """For every rank to call; they fill the nodes ``hosts`` one after another.

    Raises UserError for what only the user can mend, else RuntimeError. Its text begins with the node at fault, whose
    rank is noted as the one that failed first.
    """
    limits, me = limits or Limits(), rank_of(run)
    ranks = Ranks(folder, me, hosts, tasks_per_node)
    written = folder.path / of_this_attempt(".allocation")
    tracking = _Tracking(run.tracking) if me.is_main else None

    def look() -> dict[str, Any]:
        """The first rank of each node looks for all of them."""
        if me.is_main:
            check_disk(folder, run)
        return asdict(look_around(run, written, limits.see)) if me.local == 0 else {}

    def judge(said: Said) -> Fault | None:
        nodes = {rank: NodeFacts(**facts) for rank, facts in said.items() if facts}
        return fault_among(nodes, {rank: ranks.nodes[rank] for rank in nodes}, run)

    def add_up() -> dict[str, Any]:
        return {"seconds": seconds_to_add_up(run, limits.add_up)}

    try:
        if me.is_main:
            written.touch()
        ranks.come(limits.come)
        ranks.agree("look around", look, judge, limits.look)
    finally:
        if me.is_main:
            written.unlink(missing_ok=True)
    took = ranks.agree("add up", add_up, lambda _: None, limits.add_up + SPARE_SECONDS)
    if tracking is not None:
        progress.say(f"preflight: {_facts(ranks, max(words['seconds'] for words in took.values()), folder)}")
        tracking.warn_if_away()


def check_disk(folder: RunFolder, run: RunConfig) -> None:
    """Raise DiskFull where not even the checkpoints that are sure to come would fit.

    The training itself looks again, once it knows its steps.
    """
    if run.schedule.epochs == 0 or folder.model.exists():
        return
    newest = checkpoints.latest(folder)
    sizes = expected_sizes(run, without_weights(run))
    if newest:
        sizes = Sizes(size_of(newest[1]), sizes.model)
    copies = len(list(folder.weights.glob("epoch-*")))
    check_room(
        run,
        folder,
        sizes,
        saves=1 if newest else sure_saves(run.schedule),
        copies=max(0, sure_copies(run.schedule) - copies),
    )


def sure_saves(schedule: ScheduleConfig) -> int:
    """How many checkpoints a training writes at least, however much data it turns out to have."""
    if schedule.save_every == "never":
        return int(schedule.best_metric is not None)
    if schedule.save_every == "epoch" and schedule.max_steps is None:
        return schedule.epochs or 1
    return 1


def sure_copies(schedule: ScheduleConfig) -> int:
    """The same of the weights alone."""
    return (schedule.epochs or 0) if schedule.save_weights == "epoch" and schedule.max_steps is None else 0


def seconds_to_add_up(run: RunConfig, limit: float) -> float:
    """Of ``BYTES`` over all ranks, through a group of their own; raises RuntimeError where the sums are wrong."""
    me = rank_of(run)
    if me.count == 1:
        return 0.0
    join(run, timeout=timedelta(seconds=limit))
    device = torch.device("cuda", me.local) if run.hardware.device == "cuda" else torch.device("cpu")
    numbers = torch.arange(BYTES // 4, dtype=torch.float32, device=device) % DIFFERENT
    sums = numbers + me.index
    _add_up([sums], limit)
    if not torch.equal(sums, me.count * numbers + me.count * (me.count - 1) / 2):
        raise RuntimeError("an all-reduce gave wrong sums")
    zeros = [torch.zeros_like(sums) for _ in range(TIMES)]
    began = time.perf_counter()
    _add_up(zeros, limit)
    took = (time.perf_counter() - began) / TIMES
    leave()
    return took


def bus_bandwidth(seconds: float, count: int) -> float:
    """Bytes a second through each rank's connection: what a ring sends for one all-reduce, over its time."""
    return 2 * (count - 1) / count * BYTES / seconds


def _add_up(tensors: Sequence[torch.Tensor], limit: float) -> None:
    """Looked at and not waited for: a wait for a GPU that hangs does not end."""
    works: list[Any] = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
    began = time.monotonic()
    while not all(work.is_completed() for work in works):
        if time.monotonic() - began > limit:
            raise RuntimeError(f"an all-reduce did not end within {limit:g} s")
        time.sleep(POLL_SECONDS)
    for work in works:
        work.wait()
    if tensors[0].is_cuda:
        torch.cuda.synchronize()


def _facts(ranks: Ranks, seconds: float, folder: RunFolder) -> str:
    count = ranks.me.count
    who = f"{count} rank{'s' if count > 1 else ''} on {ranks.named(range(count))}"
    speed = f", all-reduce {in_words(BYTES)} {bus_bandwidth(seconds, count) / 1e9:.1f} GB/s" if count > 1 else ""
    return f"{who}{speed}, {in_words(free_bytes(folder.path))} free"


class _Tracking:
    """Whether the tracking server answers, asked while the ranks look around."""

    def __init__(self, settings: TrackingConfig) -> None:
        self._uri, self._why = settings.uri, "no answer"
        # A daemon: looking a name up may take longer than anybody wants to wait.
        self._thread = Thread(target=self._ask, name="tracking", daemon=True)
        self._is_asked = settings.uri.startswith("http") and not settings.offline
        if self._is_asked:
            self._thread.start()

    def warn_if_away(self) -> None:
        if not self._is_asked:
            return
        self._thread.join(TRACKING_SECONDS)
        if self._why:
            log.warning(
                "MLflow at %s does not answer (%s); the run goes on, and sends its metrics when it does",
                self._uri,
                self._why,
            )

    def _ask(self) -> None:
        try:
            urllib.request.urlopen(f"{self._uri.rstrip('/')}/health", timeout=TRACKING_SECONDS).close()
        except urllib.error.HTTPError:  # an answer, for example of a proxy that wants a password
            pass
        except OSError as error:
            self._why = str(getattr(error, "reason", error))
            return
        self._why = ""
