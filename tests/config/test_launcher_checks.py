"""What jobs on other machines need of the words: keys that are read, forms that SLURM takes, a tracking server."""

import socket
from dataclasses import fields

import pytest

from ftx.config.compose import compose, compose_all
from ftx.config.launcher_checks import check_tracking_of_jobs
from ftx.config.launcher_schema import ContainerConfig, LauncherConfig
from ftx.errors import UserError

VALUES = {
    "dry_run": "true",
    "yes": "true",
    "max_gpu_hours": "5",
    "time_min": "30",
    "warning_s": "60",
    "partition": "gpu",
    "account": "a",
    "qos": "high",
    "memory": "64G",
    "cpus_per_task": "4",
    "constraint": "h100",
    "exclusive": "true",
    "setup": "[module load cuda]",
    "sbatch": "{nice: 100}",
    "srun": "{label: true}",
    "retries": "2",
    "restarts": "5",
    "watchdog_min": "5",
}
IMAGE = {"image": "a.sif", "mounts": "[/data]", "python": "python"}
TWO_PROCESSES = ("hardware.processes_per_node=2", "schedule.global_batch_size=4")


def test_every_key_is_tried_here():
    tried = {*VALUES, "name", "parallel", "container"}
    assert tried == {item.name for item in fields(LauncherConfig)}
    assert {*IMAGE, "kind"} == {item.name for item in fields(ContainerConfig)}


@pytest.mark.parametrize("name", VALUES)
def test_a_key_that_only_slurm_reads(name):
    word = f"launcher.{name}={VALUES[name]}"
    with pytest.raises(UserError, match=rf"launcher\.{name}=.*: nothing in this run reads it, only launcher=slurm"):
        compose(word)
    assert getattr(compose("launcher=slurm", word).launcher, name) != getattr(LauncherConfig(), name)


def test_what_this_machine_reads_too():
    assert compose("launcher.parallel=2").launcher.parallel == 2
    assert compose("launcher.watchdog_min=5", *TWO_PROCESSES).launcher.watchdog_min == 5


@pytest.mark.parametrize("name", IMAGE)
def test_a_container(name):
    word = f"launcher.container.{name}={IMAGE[name]}"
    kind = ("launcher.container.kind=apptainer", "launcher.container.image=b.sif")
    with pytest.raises(UserError, match=rf"container\.{name}=.*launcher\.container\.kind=none uses no container"):
        compose("launcher=slurm", word)
    with pytest.raises(UserError, match=r"only launcher=slurm does"):
        compose(kind[0])
    assert compose("launcher=slurm", *kind, word).launcher.container.kind == "apptainer"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["launcher.container.kind=pyxis"], r"launcher\.container\.kind=pyxis: .*launcher\.container\.image=IMAGE"),
        (["launcher.sbatch=5"], r"launcher\.sbatch=5: .*set launcher\.sbatch\.NAME=VALUE"),
        (["launcher.srun=[label]"], r"launcher\.srun=\[label\]: .*set launcher\.srun\.NAME=VALUE"),
        (["launcher.sbatch.nice.a=1"], r"launcher\.sbatch\.nice=.*: must be one text or number"),
        (["launcher.memory=64GB"], r"launcher\.memory=64GB: .*64G"),
        (["launcher.memory=much"], r"launcher\.memory=much"),
        (["launcher.memory=1.5G"], r"launcher\.memory=1\.5G"),
        (["launcher.time_min=3"], r"launcher\.time_min=3: .*warning_s=180 .*launcher\.time_min=4 or more"),
        (["launcher.time_min=60", "launcher.warning_s=3600"], r"warning_s=3600 .*launcher\.time_min=61 or more"),
    ],
)
def test_what_no_job_can_be_made_of(words, says):
    with pytest.raises(UserError, match=says) as mistake:
        compose("launcher=slurm", *words)
    assert len(str(mistake.value).splitlines()) == 1


@pytest.mark.parametrize(
    "word",
    ["memory=0", "memory=64000", "memory=64G", "memory=2T", "memory=512m", "time_min=4", "time_min=null"],
)
def test_what_slurm_takes(word):
    key, value = word.split("=")
    taken = getattr(compose("launcher=slurm", f"launcher.{word}").launcher, key)
    assert ("null" if taken is None else str(taken)) == value


def test_options_by_name():
    words = ["launcher.sbatch.nice=100", "launcher.srun={label: true, cpu-bind: none}"]
    launcher = compose("launcher=slurm", *words).launcher
    assert launcher.sbatch == {"nice": 100}
    assert launcher.srun == {"label": True, "cpu-bind": "none"}


def tracked(uri, *words, runs=1):
    seeds = ",".join(map(str, range(runs)))
    composed = compose_all(["launcher=slurm", f"tracking.uri={uri}", f"seed={seeds}", *words], multirun=runs > 1)
    check_tracking_of_jobs([one.run for one in composed.runs])


def test_one_file_for_several_jobs():
    """On several nodes, that is."""
    with pytest.raises(UserError) as mistake:
        tracked("sqlite:////shared/mlflow.db", runs=3)
    said = str(mistake.value)
    assert said.startswith("tracking.uri=sqlite:////shared/mlflow.db: 3 jobs cannot share one SQLite file")
    assert "`make server`" in said and "tracking.uri=http://HOST:PORT" in said and len(said.splitlines()) == 1
    assert said.endswith("tracking.offline=true and afterwards python -m ftx.report --sync")
    tracked("sqlite:////shared/mlflow.db", runs=1)
    tracked("sqlite:////shared/mlflow.db", "tracking.offline=true", runs=3)
    tracked("http://login1:5000", runs=3)


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize(
    "host", ["127.0.0.1:5000", "localhost:5000", "127.1.2.3:5000", "[::1]:5000", "LOCALHOST", "0.0.0.0:5000"]
)
def test_an_address_that_means_the_node_itself(host, runs):
    uri = f"'http://{host}'"
    with pytest.raises(UserError) as mistake:
        tracked(uri, runs=runs)
    port = ":5000" if "5000" in host else ""
    assert str(mistake.value).endswith(f"tracking.uri=http://{socket.gethostname()}{port}")
    assert len(str(mistake.value).splitlines()) == 1
    tracked(uri, "tracking.offline=true", runs=runs)


@pytest.mark.parametrize("host", ["login1:5000", "10.0.0.5:5000", "localhost.example.org", "1270.example.org"])
def test_an_address_that_others_reach(host):
    tracked(f"http://{host}", runs=2)
