"""One process at a time: a lock file that says who holds it and whether they are still there.

It works on local disks, NFS and Lustre, since it needs only ``link`` and ``rename`` to be atomic (no ``flock``). Who is
dead: on this machine, a process that is gone or whose pid now belongs to another one; elsewhere, one whose heartbeat
(the file's mtime) is too old by the file system's own clock.

How a dead lock is taken over: whoever links his file to the name that belongs to the *dead lock's token* has the claim
to it, and there is only one such name. He looks again whether the dead lock is still in place, and renames his claim
over it, which takes the lock and gives the claim up in one step. A slower process that gets the claim afterwards finds
another lock in place and lets go, so a fresh lock is never removed. The claim of somebody killed half-way is a dead
lock like any other and is taken over in the same manner.
"""

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ftx.processes import UNKNOWN, Holder, is_here, is_running, this_process

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


@dataclass
class Lock:
    """A lock while it is held."""

    path: Path
    holder: Holder
    lost: bool = False
    """The last heartbeat found the file gone or somebody else's: stop writing to what it protects."""


@contextmanager
def lock(
    path: Path,
    *,
    job_id: str | None = None,
    heartbeat_seconds: float = 10,
    stale_seconds: float = 60,
    on_lost: Callable[[], None] | None = None,
) -> Iterator[Lock]:
    """Hold ``path``, or raise ``Held``; ``OSError`` where the folder is missing or cannot be written.

    ``stale_seconds`` judges holders on other machines and must be well above their ``heartbeat_seconds``. ``on_lost``
    is called once, in the heartbeat's thread. A process forked inside the block does not hold the lock.
    """
    mine = _Offer(this_process(job_id), path, stale_seconds)
    held = Lock(path, mine.holder)
    try:
        with _written(mine):
            _put(mine, path)
            _remove_litter(mine)
        with _heartbeat(held, mine.raw, heartbeat_seconds, on_lost):
            yield held
    finally:
        if os.getpid() == mine.holder.pid:
            _remove_ours(mine, path)


@contextmanager
def acquire_or_wait(
    path: Path,
    ready: Callable[[], bool],
    poll_seconds: float = 0.2,
    *,
    job_id: str | None = None,
    stale_seconds: float = 60,
    on_wait: Callable[[Holder], None] | None = None,
) -> Iterator[bool]:
    """Yield True where we hold the lock and have to build, False once ``ready()`` says that it is built.

    If the builder dies, one of those who wait gets True. The longer the wait, the rarer the look (a tenth of the
    time waited, at most 2 s), so that many ranks do not hammer a shared file system. ``on_wait`` hears once who it is
    that we wait for.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        while not ready():
            at_it = holder(path, stale_seconds)
            if at_it is None:
                with suppress(Held):
                    stack.enter_context(lock(path, job_id=job_id, stale_seconds=stale_seconds))
                    break
            elif on_wait is not None:
                on_wait(at_it)
                on_wait = None
            time.sleep(max(poll_seconds, min((time.monotonic() - began) / 10, 2.0)))
        built = ready()
        if built:
            stack.close()
        yield not built


def holder(path: Path, stale_seconds: float = 60) -> Holder | None:
    """Who really holds the lock now, without taking it: None for nobody or a dead one, else maybe ``UNKNOWN``.

    In a folder that we cannot write to, this host's clock stands in for the file system's.
    """
    found = _look(path)
    if found is None or not _alive(found, lambda: _folder_clock(path), stale_seconds):
        return None
    return found.holder or UNKNOWN


@dataclass(frozen=True)
class _Offer:
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
class _Found:
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


def _beside(path: Path, word: str, kind: str) -> Path:
    return path.with_name(f".{path.name}.{word}.{kind}")


def _look(path: Path) -> _Found | None:
    """Read the file and its mtime through one descriptor; None where there is none.

    On NFS only opening a file asks the server for its mtime; a plain ``stat`` may answer from a minute-old cache.
    """
    with suppress(FileNotFoundError):
        try:
            fd = os.open(path, os.O_RDONLY)
        except PermissionError:  # another user's, and private
            state = path.stat()
            return _Found(b"", state.st_ino, state.st_mtime_ns)
        try:
            raw = os.read(fd, 1 << 16)
            state = os.fstat(fd)
            return _Found(raw, state.st_ino, state.st_mtime_ns)
        except OSError as error:
            if error.errno != errno.ESTALE:  # NFS: removed since we opened it
                raise
        finally:
            os.close(fd)
    return None


def _put(mine: _Offer, target: Path) -> None:
    """Get our file to ``target``, over a dead one if need be, or raise ``Held``."""
    while not _try_to_put(mine, target):
        pass


def _try_to_put(mine: _Offer, target: Path) -> bool:
    """False where others changed what is there while we were looking."""
    now = _touch(mine.file)
    with suppress(FileExistsError):
        os.link(mine.file, target)
        return True
    found = _look(target)
    if found is None:
        return False
    if found.raw == mine.raw:  # NFS: the link was made, but the answer got lost and the client asked again
        return True
    if _alive(found, lambda: now, mine.stale_seconds):
        raise Held(found.holder or UNKNOWN, found.age(now))
    return _replace(mine, target, found)


def _replace(mine: _Offer, target: Path, dead: _Found) -> bool:
    """Claim the dead lock and put ours in its place; False where others have been faster. ``Held``: one is at it."""
    claim = _beside(mine.path, dead.identity, "take")
    try:
        _put(mine, claim)
        if _look(target) != dead:
            return False
        with suppress(FileNotFoundError):
            claim.rename(target)
        now_there = _look(target)
        return now_there is not None and now_there.raw == mine.raw
    finally:
        _remove_ours(mine, claim)


@contextmanager
def _written(mine: _Offer) -> Iterator[None]:
    """Our content is complete in its temporary file inside the block."""
    try:
        with mine.file.open("xb") as file:
            file.write(mine.raw)
        yield
    finally:
        with suppress(OSError):
            mine.file.unlink()


def _remove_ours(mine: _Offer, path: Path) -> None:
    """Where it cannot be removed it stays, and is dead as soon as this process is."""
    with suppress(OSError):
        if _refresh(path, mine.raw):  # fresh: so nobody takes it for dead between this line and the next
            path.unlink()


def _remove_litter(mine: _Offer) -> None:
    """What killed processes left: whoever holds the lock needs none of it, and neither does anybody else."""
    now = _touch(mine.file)
    for file in mine.path.parent.iterdir():
        if file.name.startswith(f".{mine.path.name}.") and file.suffix in (".tmp", ".take"):
            with suppress(OSError):
                if now - file.stat().st_mtime > LITTER_SECONDS:
                    file.unlink()


@contextmanager
def _heartbeat(held: Lock, raw: bytes, seconds: float, on_lost: Callable[[], None] | None) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(seconds):
            try:
                ours = _refresh(held.path, raw)
            except OSError:  # the file system is away, which does not say whose lock it is: ask again
                continue
            if not ours:
                held.lost = True
                if on_lost is not None:
                    on_lost()
                return

    thread = threading.Thread(target=beat, name=f"heartbeat of {held.path}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        if os.getpid() == held.holder.pid:
            thread.join()


def _refresh(path: Path, raw: bytes) -> bool:
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


def _touch(file: Path) -> float:
    """What time it is by the clock of the file system, which need not be this host's."""
    os.utime(file)
    return file.stat().st_mtime


def _folder_clock(path: Path) -> float:
    probe = _beside(path, os.urandom(8).hex(), "tmp")
    try:
        probe.touch(exist_ok=False)
        return _touch(probe)
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def _alive(found: _Found, now: Callable[[], float], stale_seconds: float) -> bool:
    if found.holder is not None and is_here(found.holder):
        return is_running(found.holder)
    return found.age(now()) <= stale_seconds
