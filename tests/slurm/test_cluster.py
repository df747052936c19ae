"""The cluster is what it says it is, and what befalls it looks as it does on a real one."""

import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Cluster
from machine import FREEZER, Place, has_freezer, missing_programs
from processes import PROC, Process, lives
from slurm_conf import Shape

LASTS = 'echo "${SLURM_RESTART_COUNT:-0} $(hostname)" >> started; exec sleep 600'

MEET = """
import os, socket, time
if os.environ["SLURM_PROCID"] == "0":
    print(socket.create_server(("", 29000)).accept()[1][0])
while os.environ["SLURM_PROCID"] == "1":
    try:
        socket.create_connection(("node1", 29000))
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
"""

# A task, an orphan, and a child that says when it ends: what it has not heard by then it never hears.
LISTEN = """
(setsid sleep 603 &> /dev/null &)
trap 'echo task >> heard' USR2
bash -c 'trap "echo child >> heard" USR2; trap "echo end >> heard; exit" TERM
         touch child_listens; while :; do sleep 0.05; done' &
touch task_listens; while :; do sleep 0.05; done
"""


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def runs_again(cluster: Cluster, job: str) -> bool:
    said = cluster.job(job)
    return (said["Restarts"], said["JobState"]) == ("1", "RUNNING")


def traces(root: Path, place: Place) -> list[str]:
    """What there is of a cluster on this machine."""
    mounts = [line for line in lines(PROC / "self" / "mounts") if str(root) in line]
    links = [str(link) for link in Path("/sys/class/net").glob(f"{place.bridge}*")]
    folders = [str(folder) for folder in (root, *FREEZER.glob(f"*{root.name}*")) if folder.exists()]
    return [*mounts, *links, *folders, *(entry.name for entry in PROC.glob("[0-9]*") if is_of(entry, root))]


def is_of(process: Path, root: Path) -> bool:
    try:
        return any(str(root) in (process / name).read_text(errors="replace") for name in ("cmdline", "environ"))
    except OSError:
        return False


@dataclass(frozen=True)
class Placed:
    job: str
    node: str
    process: Process
    started: Path


def job_on_a_node_of_its_own(cluster: Cluster, folder: Path) -> Placed:
    folder.mkdir()
    job = cluster.submit(LASTS, "--exclusive", f"--chdir={folder}")
    cluster.wait_for(lambda: lines(folder / "started"), 60, "started")
    node = cluster.job(job)["NodeList"]
    (process,) = cluster.wait_for(lambda: cluster.processes_on(node, "sleep 600"), 60, "at work")
    return Placed(job, node, process, folder / "started")


def test_nodes_are_machines_of_their_own(cluster):
    assert sorted(cluster.run("srun", "--ntasks=4", "--nodes=4", "hostname").split()) == list(cluster.nodes)
    four = cluster.run("srun", "--ntasks=4", "--nodes=2", "--nodelist=node1,node3", "hostname").split()
    assert len(four) == 4
    assert set(four) == {"node1", "node3"}


def test_nodes_reach_each_other_by_name_and_this_machine_by_address(cluster):
    met = ("srun", "--ntasks=2", "--nodes=2", "--nodelist=node1,node2", sys.executable, "-c", MEET)
    node2 = cluster.run("srun", "--nodelist=node3", "getent", "hosts", "node2").split()[0]
    assert cluster.run(*met).strip() == node2
    with socket.create_server((cluster.controller_ip, 0)) as server:
        port = server.getsockname()[1]
        cluster.run("srun", "--nodelist=node2", "bash", "-c", f"echo > /dev/tcp/{cluster.controller_ip}/{port}")
        assert server.accept()[1][0] == node2


def test_devices_are_handed_out_by_number(cluster):
    assert cluster.run("srun", "--gpus-per-node=2", "printenv", "CUDA_VISIBLE_DEVICES") == "0,1\n"
    with pytest.raises(RuntimeError, match="configuration is not available"):
        cluster.run("srun", "--gpus-per-node=9", "true")


def test_each_job_of_an_array_has_its_record(cluster):
    array = cluster.submit("sleep 600", "--array=0-1")
    cluster.wait_for_state(array, "RUNNING")
    assert {job["ArrayTaskId"] for job in cluster.jobs(array)} == {"0", "1"}
    assert cluster.job(f"{array}_1")["ArrayTaskId"] == "1"


def test_a_requeued_job_keeps_its_number(cluster, tmp_path):
    job = cluster.submit(LASTS, f"--chdir={tmp_path}", "--nodelist=node2")
    cluster.wait_for(lambda: lines(tmp_path / "started"), 60, "started")
    cluster.scontrol("requeue", job)
    cluster.wait_for(lambda: runs_again(cluster, job), 60, f"{job} runs again")
    cluster.wait_for(lambda: lines(tmp_path / "started") == ["0 node2", "1 node2"], 60, "both starts")


def test_jobs_of_a_dark_node_and_of_a_cut_off_one_start_elsewhere(cluster, tmp_path):
    dark, cut = (job_on_a_node_of_its_own(cluster, tmp_path / name) for name in ("dark", "cut"))
    assert dark.node != cut.node
    cluster.power_off(dark.node)
    cluster.kill_slurmd(cut.node)
    assert not lives(dark.process.pid)
    for placed in (dark, cut):
        cluster.wait_for(lambda job=placed.job: runs_again(cluster, job), 180, f"{placed.job} runs again")
        cluster.wait_for(lambda file=placed.started: len(lines(file)) == 2, 60, "its second start")
        assert lines(placed.started)[0] == f"0 {placed.node}"
        assert lines(placed.started)[1].split()[0] == "1"
        assert lines(placed.started)[1].split()[1] not in {dark.node, cut.node}
    assert lives(cut.process.pid)  # both attempts run
    cluster.start_slurmd(cut.node)
    cluster.wait_for(lambda: not lives(cut.process.pid), 60, "the old attempt ended by slurmd")
    cluster.power_on(dark.node)
    cluster.wait_for(lambda: cluster.node_states()[dark.node] == "IDLE", 60, f"{dark.node} idle")


@pytest.mark.parametrize("proctrack", ["cgroup", "linuxproc"])
def test_what_belongs_to_a_step(new_cluster, proctrack, tmp_path):
    if proctrack == "cgroup" and not has_freezer():
        pytest.skip("no cgroup v1 freezer that can be written")
    (tmp_path / "listen.sh").write_text(LISTEN)
    with new_cluster(Shape(nodes=1, proctrack=proctrack)) as cluster:
        job = cluster.submit("srun bash listen.sh", f"--chdir={tmp_path}")
        heard, listen = tmp_path / "heard", {tmp_path / "task_listens", tmp_path / "child_listens"}
        cluster.wait_for(lambda: all(file.exists() for file in listen), 60, "task and child listen")
        cluster.run("scancel", "--signal=USR2", job)
        cluster.wait_for(lambda: "task" in lines(heard), 60, "the task heard")
        (child,) = cluster.processes_on("node1", "child_listens")
        child.send(signal.SIGTERM)
        cluster.wait_for(lambda: "end" in lines(heard), 60, "the child's end")
        assert ("child" in lines(heard)) == (proctrack == "linuxproc")
        cluster.run("scancel", job)
        cluster.wait_for(
            lambda: cluster.job(job)["JobState"] == "CANCELLED" and not cluster.run("squeue", "-h"), 60, "end"
        )
        assert bool(cluster.processes_on("node1", "sleep 603")) == (proctrack == "linuxproc")
        cluster.settle()
        assert cluster.processes_on("node1") == []


def test_a_small_disk_fills_up_and_grows(cluster):
    megabytes = str(cluster.shape.small_disk + 8)
    write = ("srun", "--nodelist=node2", "dd", "if=/dev/zero", f"of={cluster.small_disk}/file", "bs=1M")
    with pytest.raises(RuntimeError, match="No space left on device"):
        cluster.run(*write, f"count={megabytes}")
    cluster.grow_small_disk(cluster.shape.small_disk + 16)
    cluster.run(*write, f"count={megabytes}")
    cluster.settle()
    assert list(cluster.small_disk.iterdir()) == []
    assert shutil.disk_usage(cluster.small_disk).total == cluster.shape.small_disk * 2**20


def test_settling_leaves_no_job_and_no_process_and_wakes_all_nodes(cluster, tmp_path):
    stubborn = "trap '' TERM; setsid bash -c 'trap \"\" TERM; sleep 601' & touch begun; while :; do sleep 602; done"
    job = cluster.submit(f"srun --ntasks=4 --nodes=4 bash -c {shlex.quote(stubborn)}", "-N4", f"--chdir={tmp_path}")
    cluster.wait_for((tmp_path / "begun").exists, 60, "begun")
    cluster.submit("sleep 600", "--hold")
    cluster.power_off("node1")
    cluster.kill_slurmd("node2")
    cluster.scontrol("update", "NodeName=node3", "State=drain", "Reason=test")
    cluster.settle()
    assert cluster.is_idle()
    assert [process for node in cluster.nodes for process in cluster.processes_on(node)] == []
    assert {ended["JobState"] for ended in cluster.jobs()} <= {"CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL"}
    assert cluster.job(job)["JobState"] != "COMPLETED"


def test_waiting_in_vain_says_what_the_cluster_looks_like(cluster):
    job = cluster.submit("true", "--hold")
    with pytest.raises(TimeoutError, match="a miracle") as raised:
        cluster.wait_for(lambda: False, 0.01, "a miracle")
    assert f"JobId={job} JobState=PENDING Reason=JobHeldUser" in str(raised.value)
    assert "_slurm_rpc_submit_batch_job" in str(raised.value)  # a line of the controller's log


def test_two_clusters_live_side_by_side_and_one_that_ends_leaves_nothing(cluster, new_cluster):
    with new_cluster(Shape(nodes=1, small_disk=1)) as second:
        assert second.run("srun", "hostname") == cluster.run("srun", "--nodelist=node1", "hostname") == "node1\n"
        second.wait_for_state(second.submit("sleep 600"), "RUNNING")
        place, while_up = second.place, traces(second.root, second.place)
        assert place != cluster.place
    assert len(while_up) > 10
    assert traces(second.root, place) == []
    assert cluster.is_idle()


@pytest.fixture
def by_hand(new_cluster) -> Iterator[Path]:
    """A folder for a cluster; one that is there in the end is ended."""
    root = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    yield root
    if left := Cluster.at(root):
        left.down()


def test_by_hand(by_hand):
    def command(*words: object) -> tuple[int, str]:
        line = [sys.executable, Path(__file__).parent, "--root", by_hand, "--nodes", "1", *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert command("run", "srun", "hostname") == (0, "node1\n")
    assert command("run", "false") == (1, "")
    assert command("env") == (2, f"no cluster in {by_hand}\n")
    said = (0, f"export SLURM_CONF={by_hand}/etc/slurm.conf\n")
    assert command("up") == said
    Cluster.at(by_hand).power_off("node1")
    assert command("up") == command("env") == said
    assert Cluster.at(by_hand).run("srun", "hostname") == "node1\n"
    assert command("run", "true") == (2, f"--root {by_hand} has a cluster already; end it with down\n")
    assert command("down") == command("down") == (0, "")
    assert not by_hand.exists()


def test_missing_programs_are_named_with_the_packages_to_install():
    assert missing_programs() is None or "apt-get install" in missing_programs()
    assert "slurmctld, slurmd, munged" in missing_programs("/nowhere")
