"""What a tree of processes takes of the machine, as /proc tells."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of a process and its descendants; what pages are shared among them counts for each."""

    pids: tuple[int, ...]
    threads: int
    memory: int
    """Bytes that are resident."""
    cpu_seconds: float
    """Of those alive, and of those they have waited for."""


def usage_of(root: int) -> Usage:
    """Of ``root`` and its descendants; what has ended meanwhile is left out."""
    pids, threads, memory, ticks = [], 0, 0, 0
    for pid in _tree(root):
        with suppress(OSError):
            # The name, in brackets, may hold anything; fields are numbered as in proc(5), from 3 on.
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
            threads += int(fields[17])
            memory += int(fields[21]) * _PAGE
            pids.append(pid)
    return Usage(tuple(pids), threads, memory, ticks / _TICKS)


def memory_without_sharing(usage: Usage) -> int:
    """Bytes; a page that several processes share counts once. Slower, and ``usage.memory`` is never less."""
    total = 0
    for pid in usage.pids:
        with suppress(OSError):
            total += _proportional(pid)
    return total


def _proportional(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except PermissionError:
        pass
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _tree(root: int) -> Iterator[int]:
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        with suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    waiting += map(int, (thread / "children").read_text().split())
