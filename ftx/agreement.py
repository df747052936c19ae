"""The ranks of a run before they trust each other with collectives: who has come, what each says, one verdict for all.

They talk through the store on rank 0, where one that is dead or slow holds nobody up: rank 0 hears what the others say
and judges, and its verdict is everybody's.
"""

import json
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn

import torch.distributed as dist

from ftx.distributed import meeting_place
from ftx.environment import Rank, meeting_point, node_name
from ftx.errors import UserError
from ftx.heartbeat import Beat, beat, beat_file, read_beat
from ftx.rank_failure import RankFailure, in_words, note_failure
from ftx.run_folder import RunFolder

POLL_SECONDS = 0.1
# Whoever has begun, but still imports its libraries, is on a node whose disk is slow today: it gets so long to come.
IMPORT_SECONDS = 300.0
# An answer may be on its way when time is over, and the verdict takes a moment.
SPARE_SECONDS = 10.0
NODES_NAMED = 8

Said = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Fault:
    """What is wrong with some ranks; ``is_mistake`` where only the user can mend it."""

    ranks: tuple[int, ...]
    text: str
    is_mistake: bool = False


class Ranks:
    """All ranks of one attempt, as one of them sees them; they fill ``hosts`` by ``tasks_per_node`` each, in order."""

    def __init__(self, folder: RunFolder, me: Rank, hosts: Sequence[str], tasks_per_node: int) -> None:
        self.me, self._folder = me, folder
        self.nodes = [hosts[index // tasks_per_node] for index in range(me.count)]
        self._store: dist.Store | None = None

    def come(self, seconds: float) -> None:
        """Return when all ranks are there; raises RuntimeError with the nodes of those who are not."""
        if self.me.count > 1:
            self._store = self._meet(seconds)
        said = self.agree("come", lambda: {"node": node_name()}, lambda _: None, seconds)
        for rank, words in said.items():
            self.nodes[rank] = words["node"]

    def agree(
        self, what: str, say: Callable[[], dict[str, Any]], judge: Callable[[Said], Fault | None], seconds: float
    ) -> Said:
        """What every rank says, on rank 0; elsewhere nothing. Raises what is wrong with it, the same on every rank."""
        beat(f"checking the allocation: {what}")
        mine = _said_or_raised(say)
        if not self.me.is_main:
            _raise(self._verdict(what, mine, seconds))
            return {}
        said, missing = self._hear(what, mine, seconds)
        fault = Fault(missing, f"{in_words(missing)} did not {what} within {seconds:g} s") if missing else _raised(said)
        verdict = fault or judge(said)
        if verdict is not None:
            verdict = Fault(verdict.ranks, f"{self.named(verdict.ranks)}: {verdict.text}", verdict.is_mistake)
            self._note(verdict)  # before the others hear of it, and end
        self._tell(what, verdict, [rank for rank in said if rank])
        _raise(verdict)
        return said

    def named(self, ranks: Iterable[int]) -> str:
        """The nodes of these ranks."""
        nodes = list(dict.fromkeys(self.nodes[rank] for rank in ranks))
        more = f" and {len(nodes) - NODES_NAMED} more" if len(nodes) > NODES_NAMED else ""
        return ", ".join(nodes[:NODES_NAMED]) + more

    def _meet(self, seconds: float) -> dist.Store:
        """The port is tried first: the store's own way of trying again takes twice its time, and says so at length."""
        at, began = meeting_point(), time.monotonic()
        while not self.me.is_main:
            try:
                socket.create_connection((at.host, at.port), timeout=2.0).close()
                break
            except OSError as error:
                if _is_over(began, seconds, lambda: self._is_importing(0)):
                    self._give_up(f"rank 0 cannot be reached at {at.host}:{at.port} ({error.strerror or error})")
            time.sleep(POLL_SECONDS)
        try:
            return dist.PrefixStore("allocation", meeting_place(self.me, timedelta(seconds=seconds)))
        except dist.DistError as error:
            self._give_up(f"the ranks cannot meet at {at.host}:{at.port} ({str(error).splitlines()[0]})")

    def _hear(self, what: str, mine: dict[str, Any], seconds: float) -> tuple[Said, tuple[int, ...]]:
        """What has been said, and who has not, when all have or time is over."""
        said, missing, began = {0: mine}, list(range(1, self.me.count)), time.monotonic()
        while missing and self._store is not None:
            for rank in missing:
                if self._store.check([f"{what}: {rank}"]):
                    said[rank] = json.loads(self._store.get(f"{what}: {rank}"))
            missing = [rank for rank in missing if rank not in said]
            if _is_over(began, seconds, partial(self._are_importing, missing)):
                break
            time.sleep(POLL_SECONDS)
        return dict(sorted(said.items())), tuple(missing)

    def _tell(self, what: str, verdict: Fault | None, others: Sequence[int]) -> None:
        """The store ends with this process: what ends the run has to be heard first."""
        if self._store is None:
            return
        self._store.set(f"{what}: verdict", json.dumps(verdict and asdict(verdict)))
        began, heard = time.monotonic(), [f"{what}: {rank} heard" for rank in others]
        while verdict and heard and not self._store.check(heard) and time.monotonic() - began < SPARE_SECONDS:
            time.sleep(POLL_SECONDS)

    def _verdict(self, what: str, mine: dict[str, Any], seconds: float) -> Fault | None:
        """Of rank 0, on what this rank and the others say."""
        assert self._store is not None
        began, key, limit = time.monotonic(), f"{what}: verdict", seconds + SPARE_SECONDS
        try:
            self._store.set(f"{what}: {self.me.index}", json.dumps(mine))
            while not self._store.check([key]):
                if _is_over(began, limit, lambda: any(map(self._is_importing, range(self.me.count)))):
                    self._give_up(f"rank 0 said nothing for {limit:g} s")
                time.sleep(POLL_SECONDS)
            verdict = json.loads(self._store.get(key))
            self._store.set(f"{what}: {self.me.index} heard", "")
        except dist.DistError:
            self._give_up("rank 0 is gone")
        return verdict and Fault(tuple(verdict["ranks"]), verdict["text"], verdict["is_mistake"])

    def _are_importing(self, ranks: Sequence[int]) -> bool:
        return all(map(self._is_importing, ranks))

    def _is_importing(self, rank: int) -> bool:
        found = read_beat(beat_file(self._folder.heartbeats, rank))
        return found is not None and found.beat == Beat()

    def _give_up(self, text: str) -> NoReturn:
        """Without rank 0 there is nobody to judge."""
        fault = Fault((0,), f"{self.nodes[0]}: {text}")
        self._note(fault)
        raise RuntimeError(fault.text)

    def _note(self, fault: Fault) -> None:
        note_failure(self._folder, RankFailure(fault.ranks[0], fault.text, fault.is_mistake))


def _said_or_raised(say: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return say()
    except UserError as error:
        return {"mistake": str(error)}
    except Exception as error:
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        return {"fault": kind + (str(error).splitlines() or [""])[0]}


def _raised(said: Said) -> Fault | None:
    """What ranks could not do; where several could not for one reason, they are told together."""
    for kind in ("mistake", "fault"):
        for words in said.values():
            if kind in words:
                alike = [other for other, them in said.items() if them.get(kind) == words[kind]]
                return Fault(tuple(alike), words[kind], is_mistake=kind == "mistake")
    return None


def _raise(verdict: Fault | None) -> None:
    if verdict is not None:
        raise UserError(verdict.text) if verdict.is_mistake else RuntimeError(verdict.text)


def _is_over(began: float, seconds: float, importing: Callable[[], bool]) -> bool:
    """Whether waiting any longer is in vain; ``importing`` is asked late, it reads files."""
    waited = time.monotonic() - began
    return waited > seconds and (waited > seconds + IMPORT_SECONDS or not importing())
