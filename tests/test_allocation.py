"""What the ranks find out about an allocation before they work: the node that is not as it should be, by its name."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product
from pathlib import Path

import pytest
import torch
from tiny_training import start, tiny, write_chats
from verb_process import DEADLINE_SECONDS, SERVER

from ftx.allocation import BYTES, Limits, bus_bandwidth, check_allocation, check_disk, sure_copies, sure_saves
from ftx.callbacks import Length
from ftx.config.compose import compose
from ftx.disk import DiskFull
from ftx.environment import CHECKOUT, slurm_hosts
from ftx.errors import ExitCode, UserError
from ftx.heartbeat import Heartbeat
from ftx.models import without_weights
from ftx.node_facts import NodeFacts, fault_among
from ftx.rank_failure import RankFailure, first_failure, forget_failure
from ftx.run_folder import RunFolder
from ftx.runs_on_disk import open_run_folder
from ftx.saving import expected_sizes

HOSTS = ("alpha", "beta", "gamma")
GENEROUS = Limits()
JOB = "17"


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def described(folder, count, *words):
    """A run of so many ranks in ``folder``."""
    run = tiny(
        write_chats(folder.path.parent),
        *("launcher=slurm", "hardware=cpu", f"hardware.nodes={count}", "schedule.global_batch_size=12"),
        *("tracking.offline=true", *words),
    )
    open_run_folder(folder, run, (), {})
    return run


def checked(folder, count, *, tasks_per_node=1, limits=GENEROUS, planted=None, without=()):
    """What each rank raised, by its number; ``planted`` are the faults of some."""
    port = free_port()
    given = {
        rank: given_to(folder, rank, count, tasks_per_node, port, limits, (planted or {}).get(rank))
        for rank in set(range(count)) - set(without)
    }
    processes = {rank: SERVER.Process(target=be_a_rank, args=one, daemon=True) for rank, one in given.items()}
    for process in processes.values():
        process.start()
    return {rank: ended(process, given[rank][1]) for rank, process in processes.items()}


def noted(folder):
    """The failure that the ranks noted first; each start of each job has notes of its own."""
    with pytest.MonkeyPatch.context() as here:
        here.setenv("SLURM_JOB_ID", JOB)
        found = first_failure(folder)
        forget_failure(folder)
    return found


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def given_to(folder, rank, count, tasks_per_node, port, limits, plant):
    """The arguments of ``be_a_rank``."""
    here = {
        **{"RANK": rank, "LOCAL_RANK": rank % tasks_per_node, "WORLD_SIZE": count},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        **{"SLURMD_NODENAME": HOSTS[rank // tasks_per_node], "SLURM_JOB_ID": JOB},
    }
    environment = {name: str(value) for name, value in here.items()}
    into = folder.path.parent / f"rank-{rank}"
    into.unlink(missing_ok=True)
    return folder.path, into, environment, tasks_per_node, limits, plant


def ended(process, into):
    process.join(DEADLINE_SECONDS)
    assert process.exitcode == 0, f"{into.name}: {process.exitcode}"
    return into.read_text()


def be_a_rank(path, into, environment, tasks_per_node, limits=GENEROUS, plant=None):
    os.environ |= environment
    from ftx.distributed import added_up, join, leave
    from ftx.progress import also_into, start_console

    start_console()
    torch.set_num_threads(1)
    folder = RunFolder(path)
    run, raised = folder.read_run(), ""
    if plant is not None:
        run, folder = plant(run, folder)
    with also_into(path / "log.txt"):
        try:
            check_allocation(folder, run, HOSTS, tasks_per_node, limits)
            join(run)
            assert added_up([2**run.hardware.nodes]) == [run.hardware.nodes * 2**run.hardware.nodes]
            leave()
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
    into.write_text(raised)
    os._exit(0)


@pytest.mark.long
def test_a_whole_allocation(folder):
    """It is said in one line, leaves nothing behind, and the ranks meet again to train."""
    described(folder, 4)
    assert checked(folder, 4, tasks_per_node=2) == dict.fromkeys(range(4), "")
    (line,) = [line for line in folder.log.read_text().splitlines() if "preflight" in line]
    said = r"preflight: 4 ranks on alpha, beta, all-reduce 16\.0 MiB [\d.]+ GB/s, [\d.,]+ GiB free"
    assert re.search(f"{said}$", line), line
    assert list(folder.path.glob(".*")) == []
    assert noted(folder) is None


def test_the_bandwidth_of_a_ring():
    """Each of n ranks sends n-1 of n parts twice: to add up, and to share the sums."""
    sent = sum(BYTES / 4 for _ in ("add up", "share") for _ in range(4 - 1))
    assert bus_bandwidth(0.25, 4) == pytest.approx(sent / 0.25)


@pytest.mark.parametrize(
    ("without", "text"),
    [([2, 3], "beta: ranks 2-3 did not come within 10 s"), ([1], "alpha: rank 1 did not come within 10 s")],
)
def test_ranks_that_do_not_come(folder, without, text):
    described(folder, 4)
    raised = checked(folder, 4, tasks_per_node=2, limits=Limits(come=10), without=without)
    assert set(raised.values()) == {f"RuntimeError: {text}"}
    assert noted(folder) == RankFailure(without[0], text)


def test_the_first_rank_does_not_come(folder):
    described(folder, 2)
    raised = checked(folder, 2, limits=Limits(come=10), without=[0])
    assert re.match(r"RuntimeError: alpha: rank 0 cannot be reached at 127.0.0.1:\d+ \(Connection refused\)", raised[1])
    assert noted(folder).rank == 0


@pytest.mark.parametrize("late", [0, 1])
def test_a_rank_that_still_imports_is_waited_for(folder, late):
    """Where its heart beats, but not where it has said more than that and does not come all the same."""
    described(folder, 2)
    Heartbeat(folder.path / ".heartbeat-17-0", late)
    assert checked(folder, 2, limits=Limits(come=0.5), planted={late: import_slowly}) == {0: "", 1: ""}
    Heartbeat(folder.path / ".heartbeat-17-0", 1).beat("somewhere else")
    raised = checked(folder, 2, limits=Limits(come=0.5), without=[1])
    assert raised[0] == "RuntimeError: beta: rank 1 did not come within 0.5 s"


def import_slowly(run, folder):
    Heartbeat(folder.heartbeats, int(os.environ["RANK"]))
    time.sleep(3)
    return run, folder


@pytest.mark.parametrize("odd", [0, 2])
def test_a_node_with_another_package(folder, odd):
    """It is the one that differs from most, also where rank 0 is on it."""
    described(folder, 3)
    raised = checked(folder, 3, planted={odd: have_another_package})
    usual = HOSTS[1 if odd == 0 else 0]
    text = f"{HOSTS[odd]}: has other software: datasets 9.9.9 ({usual}: {installed('datasets')})"
    assert raised == dict.fromkeys(range(3), f"RuntimeError: {text}")
    assert noted(folder) == RankFailure(odd, text)


def have_another_package(run, folder):
    metadata = folder.path.parent / "elsewhere" / "datasets-9.9.9.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: datasets\nVersion: 9.9.9\n")
    sys.path.insert(0, str(metadata.parent.parent))
    return run, folder


def installed(package):
    from importlib.metadata import version

    return version(package)


def test_a_node_with_other_code(folder, tmp_path):
    described(folder, 2)
    for package in ("ftx", "launchers"):
        shutil.copytree(CHECKOUT / package, tmp_path / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "code" / "ftx" / "loss.py").open("a") as file:
        file.write("# another version\n")
    (tmp_path / "code" / "ftx" / "data" / "inspection.py").unlink()
    port, patient = free_port(), Limits(come=DEADLINE_SECONDS)
    one = SERVER.Process(target=be_a_rank, args=given_to(folder, 0, 2, 1, port, patient, None), daemon=True)
    one.start()
    path, into, environment, *_ = given_to(folder, 1, 2, 1, port, patient, None)
    code = f"import test_allocation as t; t.be_a_rank(t.Path({str(path)!r}), t.Path({str(into)!r}), {environment}, 1)"
    here = {**os.environ, "PYTHONPATH": f"{tmp_path / 'code'}:{Path(__file__).parent}"}
    subprocess.run([sys.executable, "-c", code], env=here, cwd=tmp_path, check=True, timeout=DEADLINE_SECONDS)
    text = "beta: has other software: another ftx/data/inspection.py than alpha, another ftx/loss.py than alpha"
    assert into.read_text() == ended(one, path.parent / "rank-0") == f"RuntimeError: {text}"
    assert noted(folder) == RankFailure(1, text)


def test_a_node_that_does_not_see_the_run(folder):
    described(folder, 2)
    raised = checked(folder, 2, limits=Limits(see=0.5), planted={1: be_elsewhere})
    text = f"beta: does not see what alpha writes to run_root={folder.path.parent}"
    assert raised == dict.fromkeys(range(2), f"RuntimeError: {text}")
    assert noted(folder) == RankFailure(1, text)
    assert list(folder.path.glob(".allocation*")) == []


def be_elsewhere(run, folder):
    """What is mounted there is another disk."""
    elsewhere = RunFolder(folder.path.parent / "other")
    shutil.copytree(folder.path, elsewhere.path, ignore=shutil.ignore_patterns(".*"))
    return run, elsewhere


@pytest.mark.parametrize("nodes", [[1], [0, 1]])
def test_data_that_a_node_does_not_have(folder, nodes):
    """That no node has it, is for the user to mend."""
    run = described(folder, 2)
    raised = checked(folder, 2, planted=dict.fromkeys(nodes, look_for_other_data))
    word = f"data.path={run.data.path}.gone"
    if nodes == [1]:
        assert raised == dict.fromkeys(range(2), f"RuntimeError: beta: {word} is not there, other nodes have it")
    else:
        text = f"UserError: alpha, beta: {word} is not there; put it where the nodes of the cluster see it"
        assert raised == dict.fromkeys(range(2), text)
    assert noted(folder).mistake == (nodes != [1])


def look_for_other_data(run, folder):
    return replace(run, data=replace(run.data, path=f"{run.data.path}.gone")), folder


def test_sums_that_are_wrong(folder):
    described(folder, 2)
    raised = checked(folder, 2, planted={1: add_other_numbers})
    assert raised[0] == raised[1]
    assert re.fullmatch(r"RuntimeError: (alpha, )?beta: an all-reduce gave wrong sums", raised[0])


def add_other_numbers(run, folder):
    import ftx.allocation

    ftx.allocation.DIFFERENT -= 1
    return run, folder


def test_a_rank_that_cannot_look(folder):
    """What it raises there, before it can add up, is told with its node's name and on every rank."""
    described(folder, 2)
    raised = checked(folder, 2, planted={1: have_no_code})
    text = "beta: FileNotFoundError: [Errno 2] No such file or directory: 'gone.py'"
    assert raised == dict.fromkeys(range(2), f"RuntimeError: {text}")


def have_no_code(run, folder):
    import ftx.node_facts

    def gone():
        return Path("gone.py").read_bytes()

    ftx.node_facts.source_hashes = gone
    return run, folder


@pytest.fixture
def alone(folder, monkeypatch):
    """Checks an allocation of one rank, here."""
    monkeypatch.setenv("SLURMD_NODENAME", "alpha")
    return lambda run: check_allocation(folder, run, HOSTS[:1], 1)


def test_a_disk_that_is_too_small(folder, alone):
    huge = ("model.architecture.vocabulary_size=1000000000", "model.architecture.hidden_size=8192")
    run = described(folder, 1, *huge)
    with pytest.raises(
        UserError, match=r"^alpha: this training takes [\d,.]+ GiB \(at least 1 checkpoints at a time, "
    ):
        alone(replace(run, schedule=replace(run.schedule, save_every=5)))
    alone(replace(run, schedule=replace(run.schedule, epochs=0)))
    folder.model.mkdir()
    alone(run)


def test_what_is_sure_to_be_written(folder, monkeypatch):
    """Of the sizes that the model will have when it is loaded, and never more than a training writes in the end."""
    run = described(folder, 1, "schedule.save_weights=epoch", "schedule.save_every=epoch", "schedule.epochs=3")
    _, model = start(run)
    sizes = expected_sizes(run, model)
    needed = 2 * sizes.checkpoint + 4 * sizes.model
    free = needed
    monkeypatch.setattr("ftx.saving.free_bytes", lambda _: free)
    check_disk(folder, run)
    free = needed - 1
    with pytest.raises(DiskFull):
        check_disk(folder, run)
    (folder.weights / "epoch-1").mkdir(parents=True)
    check_disk(folder, run)
    (folder.checkpoints / "step-5").mkdir(parents=True)
    (folder.checkpoints / "step-5" / "state").write_bytes(b"as large as a checkpoint has turned out to be")
    free = 3 * sizes.model
    check_disk(folder, run)
    free -= 1
    with pytest.raises(DiskFull, match=r"the same command then resumes from step 5$"):
        check_disk(folder, run)
    for every, epochs, most, best, copies in product(
        ("never", "epoch", 4), (1, 2, 3), (None, 4, 11), (None, "eval_loss"), ("never", "epoch")
    ):
        words = {"save_every": every, "epochs": epochs, "max_steps": most, "best_metric": best, "save_weights": copies}
        schedule = replace(run.schedule, **words)
        for steps_per_epoch in (4, 5, 9):
            steps = min(epochs * steps_per_epoch, most or 1000)
            length = Length(steps_per_epoch, steps)
            assert sure_saves(schedule) <= sum(length.saves(schedule, step + 1) for step in range(steps)), words
            assert sure_copies(schedule) <= sum(length.keeps_weights(schedule, step + 1) for step in range(steps)), (
                words
            )


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("model.architecture.tied_embeddings=false",),
        ("hardware.precision=bf16", "method.master_weights=none"),
        ("method=lora", "hardware.precision=bf16"),
        ("method=lora", "method.lora.dora=true", "method.lora.targets=[q_proj]"),
    ],
)
def test_a_model_without_weights_takes_what_it_takes_with_them(folder, words):
    run = described(folder, 1, *words)
    _, model = start(run)
    assert expected_sizes(run, without_weights(run)) == expected_sizes(run, model)


def test_a_stored_model_without_weights(folder):
    run = described(folder, 1)
    _, model = start(run)
    model.save_pretrained(folder.path / "stored")
    stored = replace(run, model=replace(run.model, weights="pretrained", name=str(folder.path / "stored")))
    assert expected_sizes(stored, without_weights(stored)) == expected_sizes(run, model)
    gone = replace(stored, model=replace(stored.model, name=str(folder.path / "gone")))
    with pytest.raises(UserError, match=r"^model.name=.*gone: cannot be loaded: "):
        without_weights(gone)


class Server(BaseHTTPRequestHandler):
    """Answers, though not with what it was asked for."""

    def do_GET(self):
        self.send_error(403)

    def log_message(self, *_):
        pass


def test_a_tracking_server_that_is_away(folder, alone, ftx_log):
    """A warning, and the run goes on; one that answers, whatever it says, is not away."""
    run = described(folder, 1)

    def tracked_at(port, *, offline=False):
        return replace(run, tracking=replace(run.tracking, uri=f"http://127.0.0.1:{port}", offline=offline))

    away = free_port()
    alone(tracked_at(away, offline=True))
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        alone(tracked_at(server.server_port))
        server.shutdown()
    assert "MLflow" not in ftx_log.text
    alone(tracked_at(away))
    (line,) = [line for line in ftx_log.lines if "MLflow" in line]
    assert line.startswith(f"MLflow at http://127.0.0.1:{away} does not answer ([Errno 111] Connection refused)")


def node(**facts) -> NodeFacts:
    whole = {"sees_the_run": True, "absent": [], "gpus": ["NVIDIA H100 80GB HBM3"] * 8, "versions": {}, "sources": {}}
    return NodeFacts(**{**whole, **facts})


def test_gpus_that_are_not_those_asked_for(folder):
    words = ("launcher=slurm", "hardware=8xH100", "hardware.nodes=2", "schedule.global_batch_size=16")
    run = tiny(write_chats(folder.path.parent), *words)
    names = {0: "alpha", 8: "beta"}
    assert fault_among({0: node(), 8: node()}, names, run) is None
    fault = fault_among({0: node(), 8: node(gpus=["NVIDIA H100 80GB HBM3"] * 7)}, names, run)
    assert (fault.ranks, fault.text, fault.is_mistake) == ((8,), "has 7 GPU, hardware.gpus_per_node=8", False)
    fault = fault_among({0: node(gpus=["Tesla T4"] * 8), 8: node()}, names, run)
    assert (fault.ranks, fault.is_mistake) == ((0,), True)
    assert fault.text.startswith("has Tesla T4, hardware.gpu=NVIDIA H100: choose nodes that have them with launcher.")


def test_the_nodes_of_a_job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2,09],gpu7")
    assert slurm_hosts() == ["node1", "node2", "node09", "gpu7"]


def test_a_job_on_slurm(place):
    """Its ranks look before they work: the node at fault is the reason in status.json; else the job goes on."""
    words = ("launcher=slurm", "hardware=cpu", "hardware.nodes=2", "hardware.micro_batch=1", "hardware.strategy=ddp")
    short = ("schedule.max_steps=2", "evaluation.tasks=[loss]", "tracking.offline=true")
    run = compose(*map(str, place.words(*words, *short)))
    folder = RunFolder(place.runs / "run")
    open_run_folder(folder, run, (), {})
    assert job_of(folder, planted={1: have_another_package}) == [ExitCode.FAILED] * 2
    status = folder.read_status()
    assert (status.state, status.job_id) == ("failed", "17")
    assert status.reason.startswith("rank 1: beta: has other software: datasets 9.9.9 (alpha: ")
    assert status.reason == str(noted(folder))
    assert job_of(folder) == [ExitCode.FINISHED] * 2
    assert folder.read_status().state == "finished"
    assert "preflight: 2 ranks on alpha, beta, " in folder.log.read_text()
    ends = [json.loads(file.read_text())["ended"] for file in (folder.path / ".heartbeat-17-0").iterdir()]
    assert ends == [True, True]


def job_of(folder, planted=None):
    """The exit codes of its two ranks."""
    port = free_port()
    processes = []
    for rank in range(2):
        _, _, environment, *_ = given_to(folder, rank, 2, 1, port, GENEROUS, None)
        arguments = (folder, environment | {"SLURM_JOB_NODELIST": "alpha,beta"}, (planted or {}).get(rank))
        processes.append(SERVER.Process(target=be_a_task, args=arguments, daemon=True))
        processes[-1].start()
    for process in processes:
        process.join(DEADLINE_SECONDS)
    return [process.exitcode for process in processes]


def be_a_task(folder, environment, plant):
    os.environ |= environment
    from ftx.distributed import end_process
    from ftx.job import run_job
    from ftx.progress import also_into, start_console

    start_console()
    if plant is not None:
        plant(folder.read_run(), folder)
    with also_into(folder.log_of(int(environment["RANK"]))):
        end_process(run_job(folder))
