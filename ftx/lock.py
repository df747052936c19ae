"""One process at a time: a lock file that says who holds it and whether they are still there.

It works on local disks, NFS and Lustre, since it needs only ``link`` and ``rename`` to be atomic (no ``flock``). Who is
dead: on this machine, a process that is gone or whose pid now belongs to another one; elsewhere, one whose heartbeat
(the file's mtime) is too old by the file system's own clock. A holder who is alive may be superseded, where whoever
asks knows that his time is over: he has to look before each write whether the lock is still his.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ftx.lock_file import Held, Offer, alive, folder_clock, is_there, look, nobody, put, refresh, release
from ftx.processes import UNKNOWN, Holder, this_process

__all__ = ["Held", "Lock", "acquire_or_wait", "holder", "lock", "nobody"]


@dataclass
class Lock:
    """A lock while it is held."""

    offer: Offer
    taken_from: Holder | None = None
    """Whose it was, where that process may still be at work: superseded, or on another machine and silent."""
    lost: bool = False
    """The last heartbeat found the file gone or somebody else's: stop writing to what it protects."""

    @property
    def path(self) -> Path:
        return self.offer.path

    @property
    def holder(self) -> Holder:
        return self.offer.holder

    def is_ours(self) -> bool:
        """Whether it still is, by the file as it is now: opened anew each time, which is what asks an NFS server."""
        return not self.lost and is_there(self.offer)


@contextmanager
def lock(
    path: Path,
    *,
    job_id: str | None = None,
    attempt: int = 0,
    supersedes: Callable[[Holder], bool] = nobody,
    heartbeat_seconds: float = 10,
    stale_seconds: float = 60,
    on_lost: Callable[[], None] | None = None,
) -> Iterator[Lock]:
    """Hold ``path``, or raise ``Held``; ``OSError`` where the folder is missing or cannot be written.

    A living holder that ``supersedes`` says yes to is taken over like a dead one. ``stale_seconds`` judges holders on
    other machines and must be well above their ``heartbeat_seconds``. ``on_lost`` is called once, in the heartbeat's
    thread. A process forked inside the block does not hold the lock.
    """
    mine = Offer(this_process(job_id, attempt), path, stale_seconds)
    held = Lock(mine)
    try:
        held.taken_from = put(mine, supersedes)
        with _heartbeat(held, heartbeat_seconds, on_lost):
            yield held
    finally:
        if os.getpid() == mine.holder.pid:
            release(mine)


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
    found = look(path)
    if found is None or not alive(found, lambda: folder_clock(path), stale_seconds):
        return None
    return found.holder or UNKNOWN


@contextmanager
def _heartbeat(held: Lock, seconds: float, on_lost: Callable[[], None] | None) -> Iterator[None]:
    stop = threading.Event()
    raw = held.offer.raw

    def beat() -> None:
        while not stop.wait(seconds):
            try:
                ours = refresh(held.path, raw)
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
