"""A cluster's shape, and the files that SLURM's daemons read about it."""

import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from machine import Place, has_freezer


@dataclass(frozen=True)
class Shape:
    """What the nodes say they have, whatever the machine has, and how the cluster behaves. Seconds and mebibytes."""

    nodes: int = 4
    cpus: int = 16
    memory: int = 64_000
    gpus: int = 8
    """Named devices that compute nothing: SLURM hands them out and sets CUDA_VISIBLE_DEVICES."""
    proctrack: Literal["auto", "cgroup", "linuxproc"] = "auto"
    """What belongs to a step. ``cgroup``: a signal to it reaches its tasks alone, and what they leave behind is
    killed. ``linuxproc``: a signal reaches all that descends from them. ``auto``: ``cgroup`` where it can be."""
    kill_wait: int = 2
    """Between SIGTERM and SIGKILL."""
    requeue_delay: int = 5
    """Before a requeued job may start again; less than 5 SLURM does not take."""
    slurmd_timeout: int = 15
    """A node that has not answered for so long is down."""
    small_disk: int = 0
    """Size of a file system that all nodes share besides the machine's own; 0: none."""
    extra_conf: str = ""
    """Further lines of slurm.conf."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"node{number + 1}" for number in range(self.nodes))

    @property
    def tracks_by_cgroup(self) -> bool:
        return self.proctrack == "cgroup" or (self.proctrack == "auto" and has_freezer())


def write_files(folder: Path, root: Path, shape: Shape, place: Place) -> None:
    """Into ``folder``; ``root`` is where the daemons' own files go."""
    (folder / "slurm.conf").write_text(_slurm_conf(root, shape, place))
    (folder / "hosts").write_text(_hosts(shape, place))
    if shape.gpus:
        (folder / "gres.conf").write_text(_gres_conf(root, shape))
    if shape.tracks_by_cgroup:
        (folder / "cgroup.conf").write_text(_cgroup_conf(root))


def _slurm_conf(root: Path, shape: Shape, place: Place) -> str:
    proctrack = "cgroup" if shape.tracks_by_cgroup else "linuxproc"
    gpus = f"Gres=gpu:{shape.gpus}" if shape.gpus else ""
    nodes = "\n".join(
        f"NodeName={name} NodeAddr={place.address(index)} CPUs={shape.cpus} RealMemory={shape.memory} {gpus}"
        for index, name in enumerate(shape.names)
    )
    # cred_expire is how long a requeued job waits. Without DefMemPerCPU every job takes whole nodes. Numbers of jobs
    # start anywhere, so that a job of this cluster is not taken for one of the last. Finished jobs stay in the
    # controller's memory for MinJobAge: there is no accounting to ask.
    return f"""\
ClusterName=ftx
SlurmctldHost={socket.gethostname()}({place.controller})
SlurmctldPort={place.port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/run/munge.sock,cred_expire={shape.requeue_delay}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SlurmdParameters=config_overrides
{"GresTypes=gpu" if shape.gpus else ""}
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
JobRequeue=1
KillWait={shape.kill_wait}
SlurmdTimeout={shape.slurmd_timeout}
SlurmctldTimeout=30
MessageTimeout=10
TCPTimeout=2
BatchStartTimeout=10
InactiveLimit=0
MinJobAge=3600
FirstJobId={random.randrange(1000, 3_000_000, 100)}
MaxArraySize=10001
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
PriorityType=priority/basic
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
{shape.extra_conf}
"""


def _hosts(shape: Shape, place: Place) -> str:
    nodes = [f"{place.address(index)} {name}" for index, name in enumerate(shape.names)]
    return "\n".join(["127.0.0.1 localhost", f"{place.controller} {socket.gethostname()}", *nodes, ""])


def _gres_conf(root: Path, shape: Shape) -> str:
    """Devices need files: counted alone, slurmd says that it found none."""
    return f"AutoDetect=off\nNodeName=node[1-{shape.nodes}] Name=gpu File={root}/dev/nvidia[0-{shape.gpus - 1}]\n"


def _cgroup_conf(root: Path) -> str:
    """Below a folder of the cluster's own: nodes of two clusters have the same names."""
    constrained = "".join(f"Constrain{what}=no\n" for what in ("Cores", "RAMSpace", "Devices"))
    return f"CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint={root}/cgroup\n{constrained}"
