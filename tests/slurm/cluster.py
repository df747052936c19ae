"""A real SLURM cluster on one machine, and what can befall one.

Each node is a machine as far as its processes can tell: a network, a host name, processes and shared memory of its
own. The file system is the machine's, as clusters share theirs. What processors and devices nodes have is only said.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self, TypeVar

from machine import FREEZER, Place, delete_link, said, take_place, until
from node import Node
from processes import Process, lives, pid_in, send
from slurm_conf import Shape, write_files

FOLDERS = ("etc", "run", "state", "spool", "log", "dev", "cgroup", "small")
Answer = TypeVar("Answer")


class Cluster:
    """All of it is below ``root``, a folder with a short name, for paths of sockets are short."""

    def __init__(self, root: Path, shape: Shape | None = None) -> None:
        self.root = root.absolute()
        self.shape = shape or Shape()
        self.nodes = self.shape.names
        self._place: Place | None = None

    @classmethod
    def at(cls, root: Path) -> "Cluster | None":
        """The one that another process has brought up there."""
        if not (root / "cluster.json").exists():
            return None
        known = json.loads((root / "cluster.json").read_text())
        cluster = cls(root, Shape(**known["shape"]))
        cluster._place = Place(known["number"])
        return cluster

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def environment(self) -> dict[str, str]:
        """What srun and sbatch need besides an environment to speak to this cluster."""
        return {"SLURM_CONF": str(self.root / "etc" / "slurm.conf")}

    @property
    def place(self) -> Place:
        """Its addresses and names on this machine."""
        assert self._place is not None, "the cluster is not up"
        return self._place

    @property
    def controller_ip(self) -> str:
        """Where nodes reach a server that listens on this machine."""
        return self.place.controller

    @property
    def small_disk(self) -> Path:
        """A file system that is full after ``Shape.small_disk`` mebibytes, the same one on every node."""
        assert self.shape.small_disk, "Shape.small_disk is 0"
        return self.root / "small"

    # From nothing, and back to it.

    def is_up(self) -> bool:
        """Whether its controller lives."""
        return pid_in(self.root / "run" / "slurmctld.pid", self.root) is not None

    def up(self) -> None:
        """Every node is idle when this returns; where that fails, what was begun is ended."""
        if self.root.exists() and any(self.root.iterdir()):
            raise FileExistsError(f"{self.root} is not empty")
        self.root.mkdir(parents=True, exist_ok=True)
        self._place = take_place(self.root)
        try:
            self._write()
            self._mount()
            self._start_controller()
            for node in self.nodes:
                self.power_on(node)
            self.wait_for(self.is_idle, 60, "every node idle")
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End what ``up`` started, and nothing else. A cluster that is not up stays as it is."""
        if self._place is None:
            return
        with ExitStack() as last_first:  # what fails keeps nothing else from being ended
            last_first.callback(shutil.rmtree, self.root)
            last_first.callback(self._unmount)
            last_first.callback(delete_link, self.place.bridge, self.root)
            last_first.callback(self._kill, "munged")
            last_first.callback(self._kill, "slurmctld")
            for node in self.nodes:
                last_first.callback(self.power_off, node)
        self._place = None

    def settle(self, seconds: float = 90) -> None:
        """As after ``up``: nodes idle, no job, no process of one, the small disk empty. Ended jobs stay known."""
        for node in self.nodes:
            self.power_on(node)
        self.wait_for(self._end_jobs, seconds, "no job left")
        self.wait_for(self._wake_nodes, seconds, "every node idle")
        if self.shape.small_disk:
            for entry in self.small_disk.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            self.grow_small_disk(self.shape.small_disk)

    # What befalls nodes.

    def power_off(self, node: str) -> None:
        """As if its plug were pulled: all that runs there is gone at once, and the controller has to find out."""
        self._node(node).power_off()

    def power_on(self, node: str) -> None:
        """With its daemon; nothing changes where it is on. The controller hears of it soon after."""
        self._node(node).power_on()
        self.start_slurmd(node)

    def kill_slurmd(self, node: str) -> None:
        """The daemon alone; what it has started lives on, out of the controller's reach."""
        self._node(node).kill_slurmd()

    def start_slurmd(self, node: str) -> None:
        """Nothing changes where it is at work."""
        self._node(node).start_slurmd()

    def processes_on(self, node: str, having: str = "") -> list[Process]:
        """What runs there besides what a node begins with; only those with ``having`` in their command lines."""
        return [process for process in self._node(node).processes() if having in process.command]

    def grow_small_disk(self, size: int) -> None:
        """To so many mebibytes; what is on it stays."""
        said("mount", "-o", f"remount,size={size}m", self.small_disk)

    # What SLURM says.

    def run(self, *command: object, seconds: float = 60) -> str:
        """What a command on this machine, such as sbatch, prints. RuntimeError with what it said where it fails."""
        return said(*command, environment=self.environment, seconds=seconds)

    def scontrol(self, *arguments: object) -> str:
        return self.run("scontrol", *arguments)

    def submit(self, script: str, *options: object) -> str:
        """The number of a job with these lines of shell; what they print goes nowhere unless an option says so."""
        return self.run("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}").strip()

    def jobs(self, job: str = "") -> list[dict[str, str]]:
        """What ``scontrol show job`` says: of one, of each in an array, or of all."""
        return _read_records(self.scontrol("--oneliner", "show", "job", *([job] if job else [])), "JobId")

    def job(self, job: str) -> dict[str, str]:
        (record,) = self.jobs(job)
        return record

    def wait_for_state(self, job: str, state: str, seconds: float = 60) -> dict[str, str]:
        """What ``job`` says once all of it is in that state."""
        self.wait_for(lambda: {record["JobState"] for record in self.jobs(job)} == {state}, seconds, f"{job} {state}")
        return self.jobs(job)[0]

    def node_states(self) -> dict[str, str]:
        """Such as IDLE, MIXED, DOWN+NOT_RESPONDING."""
        records = _read_records(self.scontrol("--oneliner", "show", "node"), "NodeName")
        return {record["NodeName"]: record["State"] for record in records}

    def is_idle(self) -> bool:
        return set(self.node_states().values()) == {"IDLE"}

    def wait_for(self, condition: Callable[[], Answer], seconds: float, what: str) -> Answer:
        """Look again and again until there is an answer; what the cluster looks like is in the TimeoutError."""
        return until(condition, lambda: f"{what}\n{self.describe()}", seconds)

    def describe(self) -> str:
        """Nodes, queue, the last jobs and the controller's last lines."""
        fields = ("JobId", "JobState", "Reason", "Restarts", "ExitCode", "NodeList", "EndTime")
        jobs = [" ".join(f"{field}={job.get(field)}" for field in fields) for job in self.jobs()[-8:]]
        return "\n".join([str(self.node_states()), self.run("squeue", "--all"), *jobs, *self._last_lines()])

    # The parts.

    @property
    def _freezer(self) -> Path:
        return FREEZER / f"ftx-{self.root.name}"

    def _node(self, name: str) -> Node:
        return Node(name, self.nodes.index(name), self.root, self.place, self.environment)

    def _write(self) -> None:
        known = {"number": self.place.number, "shape": asdict(self.shape)}
        (self.root / "cluster.json").write_text(json.dumps(known))
        self.root.chmod(0o755)
        for name in FOLDERS:
            (self.root / name).mkdir()
        (self.root / "run" / "munge.key").write_bytes(os.urandom(1024))
        (self.root / "run" / "munge.key").chmod(0o400)
        write_files(self.root / "etc", self.root, self.shape, self.place)

    def _mount(self) -> None:
        for index in range(self.shape.gpus):
            os.mknod(self.root / "dev" / f"nvidia{index}", 0o20666, os.makedev(1, 3))
        if self.shape.tracks_by_cgroup:
            self._freezer.mkdir(exist_ok=True)
            (self.root / "cgroup" / "freezer").symlink_to(self._freezer)
        if self.shape.small_disk:
            said("mount", "-t", "tmpfs", "-o", f"size={self.shape.small_disk}m", "tmpfs", self.small_disk)

    def _start_controller(self) -> None:
        place, run = self.place, self.root / "run"
        said("ip", "address", "add", f"{place.controller}/24", "dev", place.bridge)
        said("ip", "link", "set", place.bridge, "up")
        files = {"key-file": run / "munge.key", "socket": run / "munge.sock", "pid-file": run / "munged.pid"}
        files |= {"log-file": self.root / "log" / "munged.log", "seed-file": run / "munge.seed"}
        said("munged", "--force", *(f"--{name}={file}" for name, file in files.items()))
        self.run("slurmctld", "-i", "-f", self.environment["SLURM_CONF"])
        until(self._answers, lambda: "\n".join(["slurmctld answers", *self._last_lines()]))

    def _answers(self) -> bool:
        try:
            return "UP" in self.scontrol("ping")
        except RuntimeError:
            return False

    def _last_lines(self) -> list[str]:
        """Of the controller's log."""
        log = self.root / "log" / "slurmctld.log"
        return log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []

    def _kill(self, daemon: str) -> None:
        pid = pid_in(self.root / "run" / f"{daemon}.pid", self.root)
        if pid is not None:
            send(pid, signal.SIGKILL)
            until(lambda: not lives(pid), lambda: f"{daemon} ended")

    def _end_jobs(self) -> bool:
        """Whether none is left; else tell those that are there to go."""
        left = [process for node in self.nodes for process in self.processes_on(node)]
        if not left and not self.run("squeue", "--noheader", "--all"):
            return True
        self.run("scancel", "--user=root")
        # A step whose tasks are gone ends of itself; one that is killed before SLURM takes for a node's failure.
        for process in left:
            if "slurmstepd" not in process.command:
                process.send(signal.SIGKILL)
        return False

    def _wake_nodes(self) -> bool:
        """Whether all are idle; else take back what was said against them."""
        for node, state in self.node_states().items():
            if "DOWN" in state or "DRAIN" in state:
                self.scontrol("update", f"NodeName={node}", "State=resume")
        return self.is_idle()

    def _unmount(self) -> None:
        if os.path.ismount(self.root / "small"):
            said("umount", "--lazy", self.root / "small")
        until(self._has_no_cgroup, lambda: f"{self._freezer} removed")

    def _has_no_cgroup(self) -> bool:
        """Whether none is left; else remove those that are empty: the kernel takes a moment to see that they are."""
        for folder, _, _ in os.walk(self._freezer, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        return not self._freezer.exists()


def _read_records(said_by_scontrol: str, first: str) -> list[dict[str, str]]:
    """Records of one line each; values may have spaces, names begin with a capital letter."""
    lines = [line for line in said_by_scontrol.splitlines() if line.startswith(f"{first}=")]
    return [dict(part.split("=", 1) for part in re.split(r" (?=[A-Z][\w:/]*=)", line)) for line in lines]
