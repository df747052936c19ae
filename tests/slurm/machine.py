"""What a cluster needs of this machine, and its place on it: addresses, a port and names that no other cluster has."""

import contextlib
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

PACKAGES = "slurmctld slurmd slurm-client munge iproute2"
PROGRAMS = ("slurmctld", "slurmd", "munged", "srun", "sbatch", "scontrol", "ip", "unshare", "nsenter")
FREEZER = Path("/sys/fs/cgroup/freezer")
# Daemons are outside of what an ordinary account's PATH has.
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
Answer = TypeVar("Answer")
NAMESPACES = ("--net", "--uts", "--ipc", "--mount", "--pid")
# All that a node asks of the kernel, in namespaces that end with it.
TRIAL = (
    "ip link add bridge0 type bridge && ip link add end0 type veth peer name end1 && "
    "mount -t tmpfs tmpfs /dev/shm && mount -t proc proc /proc && mknod /dev/shm/device c 1 3"
)


def said(*command: object, environment: Mapping[str, str] | None = None, seconds: float = 60) -> str:
    """What a command prints; a failure is raised with all that it said."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        env=plain_environment() | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(words)}\n{done.stdout}{done.stderr}".strip())
    return done.stdout


def until(condition: Callable[[], Answer], what: Callable[[], str], seconds: float = 60) -> Answer:
    """Look again and again until there is an answer; ``what`` says what did not come."""
    limit, pause = time.monotonic() + seconds, 0.01
    while not (answer := condition()):
        if time.monotonic() > limit:
            raise TimeoutError(f"not within {seconds:g} s: {what()}")
        time.sleep(pause)
        pause = min(pause * 1.2, 0.2)  # asking SLURM takes from what is waited for
    return answer


def plain_environment() -> dict[str, str]:
    """Without what a SLURM job that the tests themselves run in has set."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM")} | {"PATH": PATH}


def reason_it_cannot_run() -> str | None:
    """One line that says why there can be no cluster here; None where there can."""
    if sys.platform != "linux":
        return "a SLURM cluster on one machine needs Linux"
    if os.geteuid() != 0:
        return "a SLURM cluster on one machine needs root"
    return missing_programs() or forbidden_namespaces()


def missing_programs(path: str = PATH) -> str | None:
    """One line that names them and the packages to install; None where all are there."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return f"{', '.join(missing)} not found: apt-get install --no-install-recommends {PACKAGES}" if missing else None


def forbidden_namespaces() -> str | None:
    """One line with what the kernel said when it refused a machine within this one; None where it does not."""
    try:
        said("unshare", *NAMESPACES, "--fork", "sh", "-c", TRIAL)
    except RuntimeError as refused:
        return f"no machines within this one: {str(refused).splitlines()[-1]}"
    return None


def has_freezer() -> bool:
    """Whether SLURM can keep a job's processes together by cgroups, as real sites do."""
    trial = FREEZER / f"ftx-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Place:
    """What distinguishes a cluster from others on this machine follows from one number."""

    number: int

    @property
    def bridge(self) -> str:
        return f"ftx{self.number}"

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"10.77.{self.number}.0/24")

    @property
    def controller(self) -> str:
        return str(self.network[1])

    @property
    def port(self) -> int:
        return 17000 + self.number

    def address(self, node: int) -> str:
        """Of the node with this index."""
        return str(self.network[10 + node])

    def cable(self, node: int) -> str:
        """The name of the end of its network cable that is plugged into the bridge."""
        return f"{self.bridge}-{node + 1}"


def take_place(owner: Path) -> Place:
    """The first that is free. Its bridge is made, so that nobody else takes it: the kernel makes one of a name once."""
    routes = json.loads(said("ip", "-json", "-4", "route", "show", "table", "all"))
    used = [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
    for place in map(Place, range(256)):
        if any(network.subnet_of(place.network) for network in used) or not _is_free(place.port):
            continue
        with contextlib.suppress(RuntimeError):
            said("ip", "link", "add", place.bridge, "type", "bridge")
            said("ip", "link", "set", place.bridge, "alias", owner)
            return place
    raise RuntimeError("no network 10.77.n.0/24 is free on this machine")


def delete_link(name: str, owner: Path) -> None:
    """Nothing happens where another cluster has one of the name; the kernel itself deletes what led to a namespace."""

    def is_gone() -> bool:
        alias = Path("/sys/class/net", name, "ifalias")
        if not alias.exists() or alias.read_text().strip() != str(owner):
            return True
        with contextlib.suppress(RuntimeError):
            said("ip", "link", "delete", name)
        return False

    until(is_gone, lambda: f"interface {name} deleted")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError:
            return False
    return True
