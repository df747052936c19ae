"""Processes of this machine by their numbers, and which of them run on which node."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One that runs on a node, by its number on this machine."""

    pid: int
    command: str
    environment: dict[str, str] = field(repr=False)

    def send(self, number: signal.Signals) -> None:
        send(self.pid, number)


def send(pid: int, number: signal.Signals) -> None:
    """Nothing happens where it has ended meanwhile."""
    if lives(pid):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def lives(pid: int) -> bool:
    """A zombie does not."""
    return bool(_strings(pid, "cmdline"))


def pid_in(file: Path, root: Path) -> int | None:
    """The process whose number the file has; None where it has ended and the number is another's.

    All that a cluster starts on this machine names its folder, ``root``, on the command line.
    """
    try:
        pid = int(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if str(root) in " ".join(_strings(pid, "cmdline")) else None


def pids_beside(pid: int) -> Iterator[int]:
    """Those that live in its namespace, itself among them."""
    namespace = _namespace(pid)
    if namespace is None:
        return
    for entry in PROC.iterdir():
        if entry.name.isdigit() and _namespace(int(entry.name)) == namespace and lives(int(entry.name)):
            yield int(entry.name)


def number_inside(pid: int) -> int | None:
    """Its number in its own namespace."""
    lines = [line for line in _text(pid, "status").splitlines() if line.startswith("NSpid:")]
    return int(lines[0].split()[-1]) if lines else None


def session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def described(pid: int) -> Process | None:
    """None where it has ended."""
    command = " ".join(_strings(pid, "cmdline"))
    environment = dict(entry.split("=", 1) for entry in _strings(pid, "environ") if "=" in entry)
    return Process(pid, command, environment) if command else None


def _strings(pid: int, name: str) -> list[str]:
    return [part for part in _text(pid, name).split("\0") if part]


def _text(pid: int, name: str) -> str:
    """Nothing where the process has ended, or nobody may look."""
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except OSError:
        return ""


def _namespace(pid: int) -> Path | None:
    try:
        return (PROC / str(pid) / "ns" / "pid").readlink()
    except OSError:
        return None
