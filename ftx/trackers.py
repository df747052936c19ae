"""Where a run's rows go while it is at work: MLflow always, others where ``tracking.also`` names them.

metrics.jsonl is the truth. Each tracker is fed from it by a thread of its own, so that one that is away, or whose disk
is full, holds up neither the run nor the other trackers.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ftx.config.schema import RunConfig
from ftx.errors import Fenced
from ftx.run_folder import RunFolder
from ftx.to_tensorboard import TensorBoardSender
from ftx.to_wandb import WandbSender
from ftx.tracking import Sender as MlflowSender
from ftx.tracking import brief

log = logging.getLogger(__name__)

SEND_SECONDS = 5.0
# The last word is said again where a tracker that answered until then does not.
LAST_TRIES = 3
# How long a batch may be on its way that was sent before its sender lost the run: longer than a client waits.
SETTLE_SECONDS = 20.0


class Sender(Protocol):
    """Brings one tracker up to date with a run's folder."""

    def send(self, state: str, reason: str) -> None: ...


@dataclass(frozen=True)
class Destination:
    """A tracker as a message calls it, and who sends to it.

    ``asks_what_arrived``: whatever failed is tried again, and the first rows need not be waited for. The others write a
    run anew, once: the first rows come after a resume has cut metrics.jsonl.
    """

    name: str
    sender: Callable[[RunFolder, RunConfig], Sender]
    asks_what_arrived: bool = False

    @property
    def failure(self) -> str:
        """What to say where sending went wrong."""
        return f"{self.name} {'does not answer' if self.asks_what_arrived else 'gets no more of this run'}"


ALSO = {"tensorboard": Destination("TensorBoard", TensorBoardSender), "wandb": Destination("W&B", WandbSender)}


def destinations(run: RunConfig) -> list[Destination]:
    """All that the run is tracked by, MLflow first."""
    mlflow = Destination(f"MLflow at {run.tracking.uri}", MlflowSender, asks_what_arrived=True)
    return [mlflow, *(ALSO[name] for name in run.tracking.also)]


class Trackers:
    """All of a run's trackers; ``hear`` wakes them, leaving the context sends the rest."""

    def __init__(self, folder: RunFolder, run: RunConfig) -> None:
        mlflow, *others = destinations(run)
        at_work = others if run.tracking.offline else [mlflow, *others]
        self._feeds = [_Feed(folder, run, destination) for destination in at_work]

    def __enter__(self) -> "Trackers":
        for feed in self._feeds:
            feed.start()
        return self

    def __exit__(self, *_: object) -> None:
        for feed in self._feeds:
            feed.send_the_rest()
        for feed in self._feeds:
            feed.join()

    def hear(self) -> None:
        """There are new rows."""
        for feed in self._feeds:
            feed.hear()

    def end(self, state: str, reason: str) -> None:
        """The run has come to its end; said to every tracker with the last rows."""
        for feed in self._feeds:
            feed.end(state, reason)


class _Feed:
    """One tracker's thread."""

    def __init__(self, folder: RunFolder, run: RunConfig, to: Destination) -> None:
        self._folder, self._run, self._to = folder, run, to
        self._news, self._ending = threading.Event(), threading.Event()
        self._state, self._reason, self._warned = "running", "", False
        self._thread = threading.Thread(target=self._work, name=to.name, daemon=True)

    def start(self) -> None:
        if self._to.asks_what_arrived:
            self._news.set()
        self._thread.start()

    def hear(self) -> None:
        self._news.set()

    def end(self, state: str, reason: str) -> None:
        self._state, self._reason = state, reason

    def send_the_rest(self) -> None:
        self._ending.set()
        self._news.set()

    def join(self) -> None:
        self._thread.join()

    def _work(self) -> None:
        sender = self._to.sender(self._folder, self._run)
        ended, tries = False, LAST_TRIES
        if self._folder.held is not None and self._folder.held.taken_from is not None:
            self._ending.wait(SETTLE_SECONDS)
        while not ended:
            self._news.wait()
            self._news.clear()
            last = self._ending.is_set()
            try:
                sender.send(self._state, self._reason)
                ended, tries = last, LAST_TRIES
            except Fenced:  # whoever has the run now sends the rest
                return
            except Exception as error:
                self._warn(error)
                if not self._to.asks_what_arrived:
                    return
                # What of it arrived is for the tracker to say: the answer may have got lost, not the rows.
                sender = self._to.sender(self._folder, self._run)
                tries -= 1
                ended = last and tries <= 0
            if last and not ended:
                self._news.set()
                time.sleep(SEND_SECONDS)
            self._ending.wait(SEND_SECONDS)

    def _warn(self, error: Exception) -> None:
        """Once: whatever ails a tracker, training goes on and metrics.jsonl has every row."""
        if not self._warned:
            log.warning(
                "%s (%s); metrics.jsonl has everything, and `python -m ftx.report --sync %s` sends it later",
                self._to.failure,
                brief(error),
                self._folder.name,
            )
        self._warned = True
