"""A node: processes of this machine that have a network, a host name and process numbers of their own."""

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from machine import NAMESPACES, Place, delete_link, plain_environment, said, until
from processes import Process, described, lives, number_inside, pid_in, pids_beside, send, session

INIT = Path(__file__).with_name("node_init.sh")


@dataclass(frozen=True)
class Node:
    name: str
    index: int
    root: Path
    """The cluster's folder."""
    place: Place
    environment: dict[str, str]

    def power_on(self) -> None:
        """Nothing changes where it is on."""
        if self._init() is not None:
            return
        console = self.root / "log" / f"{self.name}.console"
        with console.open("a") as opened:
            subprocess.run(
                ["setsid", "--fork", "unshare", *NAMESPACES, "--fork", "bash", INIT, self.name, self.root],
                env=plain_environment(),
                stdin=subprocess.DEVNULL,
                stdout=opened,
                stderr=opened,
                check=True,
            )
        until(self._init, lambda: f"{self.name} booted: {console.read_text()}")
        self._plug_in()

    def power_off(self) -> None:
        """Nothing runs on it when this returns; nothing changes where it is off."""
        init = self._init()
        if init is not None:
            there = list(pids_beside(init))
            send(init, signal.SIGKILL)
            until(lambda: not any(map(lives, there)), lambda: f"{self.name} without processes {there}")
            delete_link(self.place.cable(self.index), self.root)

    def start_slurmd(self) -> None:
        """Nothing changes where it is at work."""
        if self._slurmd() is None:
            self._slurmd_file.unlink(missing_ok=True)
            inside = ("nsenter", "--target", self._init(), *NAMESPACES, "--")
            said(*inside, "slurmd", "-N", self.name, environment=self.environment)
            until(self._slurmd, lambda: f"{self.name} with slurmd")

    def kill_slurmd(self) -> None:
        """With SIGKILL; what it has started lives on."""
        daemon = self._slurmd()
        assert daemon is not None, f"no slurmd on {self.name}"
        send(daemon, signal.SIGKILL)
        until(lambda: not lives(daemon), lambda: f"{self.name} without slurmd")

    def processes(self) -> list[Process]:
        """What runs there besides what a node begins with."""
        init = self._init()
        if init is None:
            return []
        first = {self._slurmd(), *(pid for pid in pids_beside(init) if session(pid) == session(init))}
        found = [described(pid) for pid in pids_beside(init) if pid not in first]
        return [process for process in found if process is not None]

    @property
    def _slurmd_file(self) -> Path:
        return self.root / "run" / f"slurmd-{self.name}.pid"

    def _init(self) -> int | None:
        """Its first process."""
        return pid_in(self.root / "run" / f"{self.name}.pid", self.root)

    def _slurmd(self) -> int | None:
        """The file has its number on the node."""
        init = self._init()
        if init is None or not self._slurmd_file.exists():
            return None
        written = self._slurmd_file.read_text().strip()
        return next((pid for pid in pids_beside(init) if str(number_inside(pid)) == written), None)

    def _plug_in(self) -> None:
        cable, init = self.place.cable(self.index), self._init()
        delete_link(cable, self.root)  # a node that died of itself may have left it
        said("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", init)
        said("ip", "link", "set", cable, "alias", self.root, "master", self.place.bridge, "up")
        inside = ("nsenter", "--target", init, "--net", "--")
        said(*inside, "ip", "address", "add", f"{self.place.address(self.index)}/24", "dev", "eth0")
        said(*inside, "ip", "link", "set", "eth0", "up")
