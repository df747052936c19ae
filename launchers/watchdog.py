"""Whether the ranks of a run still get anywhere, and how a run that does not is ended: stacks first, then the reason.

A rank is judged by whether its beats change, by this process's clock alone: those of other machines may differ.
"""

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ftx.heartbeat import STACKS_SIGNAL, Beat, beat_file, read_beat
from ftx.rank_failure import in_words
from ftx.run_folder import RunFolder

# Before its first phase a rank starts Python and imports its libraries, on a busy shared disk for minutes.
START_SECONDS = 600.0
# More than this between two looks means that this process was stopped itself, and perhaps the ranks with it.
PAUSE_SECONDS = 60.0
# For the stacks to be written, and once more behind the end of those that write: that is when a file server hears the
# rest of a file.
STACKS_SECONDS, REST_SECONDS = 5.0, 3.0
POLL_SECONDS = 0.1
# A rank that computes may pause in the middle of its stack.
QUIET_LOOKS = 5
FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
# faulthandler writes a block for each thread, the main one's last.
THREAD = "(most recent call first):"
# What MLflow keeps of a reason has an end.
GROUPS_TOLD = 3

Send = Callable[[signal.Signals], None]


class Watchdog:
    """Looks at the beats of one attempt's ``count`` ranks; made before they start."""

    def __init__(
        self, folder: RunFolder, count: int, limit_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._limit, self._clock = folder, limit_seconds, clock
        shutil.rmtree(folder.heartbeats, ignore_errors=True)
        folder.heartbeats.mkdir(parents=True, exist_ok=True)
        self._ranks = [_Watched(beat_file(folder.heartbeats, index)) for index in range(count)]
        self._every = min(limit_seconds / 20, 10.0)
        self._asked, self._time, self._looked = clock(), 0.0, 0.0

    def silent(self) -> list[int]:
        """The ranks that got nowhere for as long as the limit; to be asked every few seconds or more often."""
        asked = self._clock()
        self._time += min(asked - self._asked, PAUSE_SECONDS)
        self._asked = asked
        if self._time - self._looked >= self._every:
            self._looked = self._time
            for rank in self._ranks:
                rank.look(self._time)
        return [index for index, rank in enumerate(self._ranks) if rank.silence(self._looked) > self._limit_of(rank)]

    def end(self, send: Send) -> str:
        """Have every rank write its stacks, then kill them all; returns the reason. ``send`` reaches every rank."""
        silent = self.silent()
        working = [index for index, rank in enumerate(self._ranks) if not rank.beat.ended]
        stacks = {index: _NewStack(self._folder.log_of(index)) for index in working}
        send(STACKS_SIGNAL)
        _wait_for(stacks.values(), STACKS_SECONDS)
        send(signal.SIGKILL)
        _wait_for(stacks.values(), REST_SECONDS)
        return self._reason(silent, {index: stack.place() for index, stack in stacks.items()})

    def forget(self) -> None:
        """All ranks have ended."""
        shutil.rmtree(self._folder.heartbeats, ignore_errors=True)

    def _limit_of(self, rank: "_Watched") -> float:
        return max(self._limit, START_SECONDS) if rank.is_starting else self._limit

    def _reason(self, silent: Sequence[int], places: Mapping[int, str]) -> str:
        """Which ranks, for how long, and where each is: the one that is elsewhere is the one to look at."""
        groups: dict[tuple[str, str], list[int]] = {}
        for index, place in places.items():
            groups.setdefault((place, self._ranks[index].beat.phase), []).append(index)
        told = sorted(groups.items(), key=lambda group: len(group[1]))[:GROUPS_TOLD]
        where = [f"{in_words(ranks)} {place} ({self._furthest(ranks)})" for (place, _), ranks in told]
        facts = "; ".join([*where, *(["…"] if len(groups) > len(told) else []), *self._first_silent(list(places))])
        logs = "log.txt" if len(self._ranks) == 1 else "log.txt and log-rank<n>.txt"
        return f"no progress of {in_words(silent)} for {_minutes(self._limit)}: {facts}; stacks are in {logs}"

    def _furthest(self, ranks: Sequence[int]) -> Beat:
        """Steps are noted once a second only, so that ranks side by side differ a little."""
        return max((self._ranks[index].beat for index in ranks), key=lambda beat: beat.done or 0)

    def _first_silent(self, working: Sequence[int]) -> list[str]:
        in_order = sorted(working, key=lambda index: self._ranks[index].changed)
        if len(in_order) < 2:
            return []
        earlier = self._ranks[in_order[1]].changed - self._ranks[in_order[0]].changed
        if earlier <= 2 * (self._every + 1):
            return []
        return [f"rank {in_order[0]} was silent first, {earlier:.0f} s before the next"]


@dataclass
class _Watched:
    """One rank as the looks at its file saw it."""

    file: Path
    seen: tuple[bytes, int] | None = None
    beat: Beat = field(default_factory=Beat)
    changed: float = 0.0

    def look(self, now: float) -> None:
        found = read_beat(self.file)
        if found is not None and found.seen != self.seen:
            self.seen, self.changed = found.seen, now
            self.beat = found.beat or self.beat

    @property
    def is_starting(self) -> bool:
        return self.beat == Beat()

    def silence(self, now: float) -> float:
        return 0.0 if self.beat.ended else now - self.changed


class _NewStack:
    """What is written to a log from now on: the stacks that were asked for."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._begin = log.stat().st_size if log.exists() else 0
        self._text, self._quiet = "", 0
        self.is_whole = False

    def look(self) -> None:
        """It is whole when no more has come for a while: its main thread is written last."""
        before, self._text = self._text, self._read()
        self._quiet = self._quiet + 1 if self._text == before else 0
        self.is_whole = THREAD in self._text and self._quiet >= QUIET_LOOKS

    def place(self) -> str:
        """Where the main thread is."""
        _, thread, main = self._text.rpartition(THREAD)
        frame = FRAME.search(main)
        if not thread:
            return "wrote no stack, stopped or waiting for a disk or device"
        return f"in {frame[3]} of {Path(frame[1]).name}:{frame[2]}" if frame else "in no Python code"

    def _read(self) -> str:
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode("utf-8", "replace")


def _wait_for(stacks: Iterable[_NewStack], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while (missing := [one for one in stacks if not one.is_whole]) and time.monotonic() < limit:
        time.sleep(POLL_SECONDS)
        for one in missing:
            one.look()


def _minutes(seconds: float) -> str:
    minutes = seconds / 60
    return "1 minute" if minutes == 1 else f"{minutes:.3g} minutes"
