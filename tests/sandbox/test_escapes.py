"""Code that wants out of the sandbox does not get out, and the evaluator goes on."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from sandbox.escape_attempts import ATTEMPTS, PRELUDE, Attempt

from ftx.config.evaluation_schema import SandboxConfig
from ftx.sandbox import Outcome, Sandbox, why_no_sandbox
from ftx.sandbox.bubblewrap import python_folders

LIMITS = SandboxConfig(cpu_seconds=5, wall_seconds=20, memory_gib=0.25, processes=24, file_mib=8, disk_mib=16)
SECRET = "hf_never-to-be-seen-inside"
TABLE = "a,b\n1,2\n"

pytestmark = pytest.mark.skipif(bool(why := why_no_sandbox()), reason=f"no sandbox works here: {why}")


@dataclass
class World:
    """What there is on the host to be reached; ``facts`` is what an attempt is told of it."""

    folder: Path
    listeners: list[socket.socket]
    victim: "subprocess.Popen[bytes]"
    facts: dict[str, object]

    @property
    def table(self) -> Path:
        return self.folder / "table.csv"

    def was_reached(self) -> bool:
        """Whether anybody has connected, or sent something."""
        for listener in self.listeners:
            try:
                if listener.type == socket.SOCK_DGRAM:
                    listener.recv(10)
                else:
                    listener.accept()[0].close()
                return True
            except BlockingIOError:
                pass
        return False


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    home = folder / "home"
    for name in (".netrc", ".ssh/id_ed25519", ".cache/huggingface/token"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(SECRET)
    (folder / "table.csv").write_text(TABLE)
    tcp, udp, unix, abstract = listeners = [
        socket.socket(socket.AF_INET),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX),
    ]
    name = f"ftx-{os.getpid()}"
    tcp.bind(("", 0))
    udp.bind(("", 0))
    unix.bind(f"/tmp/{name}")
    abstract.bind(f"\0{name}")
    for listener in (tcp, unix, abstract):
        listener.listen()
    for listener in listeners:
        listener.setblocking(False)
    victim = subprocess.Popen(["sleep", argument := f"{10**6}.{os.getpid()}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", SECRET)
        facts = {
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "address": own_address(),
            "unix": f"/tmp/{name}",
            "abstract": name,
            "home": str(home),
            "folder": str(folder),
            "secret": SECRET,
            "victim": victim.pid,
            "victim_argument": argument,
            "evaluator": os.getpid(),
            "daemon_argument": f"{10**6 + 1}.{os.getpid()}",
            "python": [str(folder) for folder in python_folders()],
            "processes": LIMITS.processes,
            "file": LIMITS.file_mib * 2**20,
            "disk": LIMITS.disk_mib * 2**20,
        }
        yield World(folder, listeners, victim, facts)
    victim.kill()
    victim.wait()
    for listener in listeners:
        listener.close()
    Path(f"/tmp/{name}").unlink()


def own_address() -> str:
    """Of this machine, as others would call it; its loopback where it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def attempted(sandbox: Sandbox, attempt: Attempt, world: World) -> Outcome:
    return sandbox.run(
        [sys.executable, "-I", "-S", "-c", PRELUDE + attempt.code],
        {"table.csv": world.table},
        stdin=json.dumps(world.facts).encode(),
        seconds=attempt.seconds,
    )


def test_there_are_forty_attempts_and_more():
    assert len({attempt.name for attempt in ATTEMPTS}) == len(ATTEMPTS) >= 40


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_an_attempt_to_escape_fails(attempt, world):
    outcome = attempted(Sandbox(LIMITS), attempt, world)

    assert outcome.stdout.startswith("TRIED"), outcome
    assert "ESCAPED" not in outcome.stdout + outcome.stderr
    assert attempt.ends in outcome.ended_by and bool(attempt.ends) == bool(outcome.ended_by)
    assert not world.was_reached()
    assert world.victim.poll() is None
    assert world.table.read_text() == TABLE
    assert not [process for process in psutil.process_iter() if is_left_over(process, world)]


def is_left_over(process: psutil.Process, world: World) -> bool:
    try:
        return world.facts["daemon_argument"] in process.cmdline()
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    "attempt", [attempt for attempt in ATTEMPTS if attempt.control], ids=lambda attempt: attempt.name
)
def test_without_a_sandbox_the_same_attempt_succeeds(attempt, world):
    """So it is the sandbox that makes it fail."""
    if "password" in attempt.name and os.geteuid():
        pytest.skip("only root can read the password file")
    command = [sys.executable, "-I", "-S", "-c", PRELUDE + attempt.code]
    world_there = json.dumps(world.facts).encode()
    ended = subprocess.run(command, input=world_there, capture_output=True, timeout=60, check=False)

    assert b"ESCAPED" in ended.stdout
    world.was_reached()
