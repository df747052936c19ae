"""The file behind a lock: how it is put in place, taken over, read and removed, with ``link`` and ``rename`` alone.

How a lock is taken over: whoever links his file to the name that belongs to *that lock's token* has the claim to it,
and there is only one such name. He looks again whether the lock is still in place, and renames his claim over it, which
takes the lock and gives the claim up in one step. A slower process that gets the claim afterwards finds another lock in
place and lets go, so a fresh lock is never removed. The claim of somebody killed half-way is a dead lock like any other
and is taken over in the same manner.

A holder who is still there may be taken over too. He then could remove what has just been put over his lock, so he
removes his own under the same claim: one of the two has it, and the other lets go.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ftx.processes import UNKNOWN, Holder, is_here, is_running

LITTER_SECONDS = 3600
"""Temporary files of killed processes are removed when they are older than this."""


class Held(Exception):
    """Somebody who is alive has the lock; ``heartbeat_age`` is in seconds, by the file system's clock."""

    def __init__(self, holder: Holder, heartbeat_age: float) -> None:
        super().__init__(holder, heartbeat_age)
        self.holder = holder
        self.heartbeat_age = heartbeat_age

    def __str__(self) -> str:
        return f"held by {self.holder} (heartbeat {self.heartbeat_age:.0f} s ago)"


@dataclass(frozen=True)
class Offer:
    """What we want to put in place: our content waits in ``file``, whose mtime is also our view of the clock."""

    holder: Holder
    path: Path
    stale_seconds: float

    @property
    def raw(self) -> bytes:
        return json.dumps(asdict(self.holder)).encode()

    @property
    def file(self) -> Path:
        return _beside(self.path, self.holder.token, "tmp")


@dataclass(frozen=True)
class Found:
    """A lock file as one look saw it."""

    raw: bytes
    inode: int
    mtime_ns: int

    @property
    def holder(self) -> Holder | None:
        """None where the content makes no sense."""
        try:
            holder = Holder(**json.loads(self.raw))
            return holder if 0 < holder.pid < 2**31 and holder.token.isalnum() else None
        except (ValueError, TypeError, AttributeError):
            return None

    @property
    def identity(self) -> str:
        """Never the same for two locks, and fit for a file name."""
        return self.holder.token if self.holder else f"{self.inode:x}-{self.mtime_ns:x}"

    def age(self, now: float) -> float:
        return max(0.0, now - self.mtime_ns / 1e9)


def look(path: Path) -> Found | None:
    """Read the file and its mtime through one descriptor; None where there is none.

    On NFS only opening a file asks the server for its mtime; a plain ``stat`` may answer from a minute-old cache.
    """
    with suppress(FileNotFoundError):
        try:
            fd = os.open(path, os.O_RDONLY)
        except PermissionError:  # another user's, and private
            state = path.stat()
            return Found(b"", state.st_ino, state.st_mtime_ns)
        try:
            raw = os.read(fd, 1 << 16)
            state = os.fstat(fd)
            return Found(raw, state.st_ino, state.st_mtime_ns)
        except OSError as error:
            if error.errno != errno.ESTALE:  # NFS: removed since we opened it
                raise
        finally:
            os.close(fd)
    return None


def nobody(holder: Holder) -> bool:
    """Whom a living holder is taken over by, where nothing else is said."""
    return False


def put(mine: Offer, supersedes: Callable[[Holder], bool]) -> Holder | None:
    """Get our file to its path, over a dead or superseded one if need be, or raise ``Held``.

    Returns whose lock was taken although his process may still be at work.
    """
    with _written(mine):
        taken_from = _put(mine, mine.path, supersedes)
        _remove_litter(mine)
    return taken_from


def release(mine: Offer) -> None:
    """Remove our lock. Where it cannot be removed it stays, and is dead as soon as this process is."""
    remover = replace(mine, holder=replace(mine.holder, token=os.urandom(8).hex()))
    claim = _beside(mine.path, mine.holder.token, "take")
    with suppress(OSError, Held):
        if not is_there(mine):
            return
        with _written(remover):
            _put(remover, claim)
            try:
                _remove(mine, mine.path)
            finally:
                _remove(remover, claim)


def is_there(mine: Offer) -> bool:
    """Whether the lock is ours at this moment."""
    found = look(mine.path)
    return found is not None and found.raw == mine.raw


def refresh(path: Path, raw: bytes) -> bool:
    """Touch the file if it is ours; False where it is gone or another's."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        ours = os.read(fd, len(raw) + 1) == raw
        if ours:
            os.utime(fd)
        return ours
    finally:
        os.close(fd)


def alive(found: Found, now: Callable[[], float], stale_seconds: float) -> bool:
    """Whether the holder is still there, as far as can be told from here."""
    if found.holder is not None and is_here(found.holder):
        return is_running(found.holder)
    return found.age(now()) <= stale_seconds


def _alive_at(now: float, found: Found, stale_seconds: float) -> bool:
    return alive(found, lambda: now, stale_seconds)


def folder_clock(path: Path) -> float:
    """What time it is for the file system of ``path``; where we cannot write to it, for this host."""
    probe = _beside(path, os.urandom(8).hex(), "tmp")
    try:
        probe.touch(exist_ok=False)
        return _touch(probe)
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def _beside(path: Path, word: str, kind: str) -> Path:
    return path.with_name(f".{path.name}.{word}.{kind}")


def _put(mine: Offer, target: Path, supersedes: Callable[[Holder], bool] = nobody) -> Holder | None:
    """Get our file to ``target``, the lock itself or a claim to one; claims of the living are always respected."""
    while True:
        now = _touch(mine.file)
        with suppress(FileExistsError):
            os.link(mine.file, target)
            return None
        found = look(target)
        if found is None:
            continue
        if found.raw == mine.raw:  # NFS: the link was made, but the answer got lost and the client asked again
            return None
        is_alive = _alive_at(now, found, mine.stale_seconds)
        if is_alive and not (found.holder and supersedes(found.holder)):
            raise Held(found.holder or UNKNOWN, found.age(now))
        if _replace(mine, target, found, beats=is_alive):
            is_gone = found.holder is not None and is_here(found.holder) and not is_alive
            return None if is_gone else found.holder or UNKNOWN


def _replace(mine: Offer, target: Path, found: Found, *, beats: bool) -> bool:
    """Claim the lock and put ours in its place; False where others have been faster. ``Held``: one is at it.

    ``beats``: its holder is alive, and touches it now and then.
    """
    claim = _beside(mine.path, found.identity, "take")
    try:
        _put(mine, claim)
        there = look(target)
        if there is not None and beats:
            there = replace(there, mtime_ns=found.mtime_ns)
        if there != found:
            return False
        with suppress(FileNotFoundError):
            claim.rename(target)
        now_there = look(target)
        return now_there is not None and now_there.raw == mine.raw
    finally:
        _remove(mine, claim)


@contextmanager
def _written(mine: Offer) -> Iterator[None]:
    """Our content is complete in its temporary file inside the block."""
    try:
        with mine.file.open("xb") as file:
            file.write(mine.raw)
        yield
    finally:
        with suppress(OSError):
            mine.file.unlink()


def _remove(mine: Offer, path: Path) -> None:
    with suppress(OSError):
        if refresh(path, mine.raw):  # fresh: so nobody takes it for dead between this line and the next
            path.unlink()


def _remove_litter(mine: Offer) -> None:
    """What killed processes left: whoever holds the lock needs none of it, and neither does anybody else."""
    now = _touch(mine.file)
    for file in mine.path.parent.iterdir():
        if file.name.startswith(f".{mine.path.name}.") and file.suffix in (".tmp", ".take"):
            with suppress(OSError):
                if now - file.stat().st_mtime > LITTER_SECONDS:
                    file.unlink()


def _touch(file: Path) -> float:
    """What time it is by the clock of the file system, which need not be this host's."""
    os.utime(file)
    return file.stat().st_mtime
