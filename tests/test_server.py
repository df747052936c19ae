"""One tracking server for many jobs: all of every run, once, whatever happens to the server or on the way to it."""

import signal
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
from lossy_proxy import lossy
from mlflow import MlflowClient
from mlflow_records import has_everything, runs_in, write_results, write_row
from tracking_server import TrackingServer, free_port
from verb_process import DEADLINE_SECONDS, SERVER

from ftx import server as server_verb
from ftx import trackers
from ftx.config.compose import compose_all
from ftx.errors import UserError
from ftx.run_folder import RunFolder
from ftx.runs_on_disk import find_run_folder, open_run_folder
from ftx.sweep_folder import open_sweep
from ftx.tracking import Sender, failures

JOBS, ROWS = 8, 240
# The rest is written when the server is back.
ROWS_BEFORE = 160


@pytest.fixture(scope="module")
def server(new_place):
    """Not started yet, over a database with tables."""
    server = TrackingServer(new_place().path)
    yield server
    server.stop(signal.SIGTERM)


@pytest.fixture
def running(server):
    server.start()
    return server


def sweep_of(place, uri, rates):
    """A sweep over learning rates in an experiment of its own, described on disk, its parent made."""
    words = place.words(
        f"schedule.learning_rate={rates}", f"tracking.uri={uri}", f"tracking.experiment={place.path.name}"
    )
    composition = compose_all([str(word) for word in words], multirun=True)
    folders = []
    for composed in composition.runs:
        folder = find_run_folder(composed.run, "", "")
        folders.append(open_run_folder(folder, composed.run, composed.words, {"host": "here"}))
    sweep = open_sweep(composition, folders)
    return sweep.with_parent(composition.runs[0].run.tracking, sweep.members)


def runs_of(mlflow, sweep):
    """The sweep's parent and children, also those that never got to say that they are its."""
    names = {folder.name for folder in sweep.folders()}
    tagged = [(run, run.data.tags) for run in runs_in(mlflow)]
    return [run for run, tags in tagged if tags.get("ftx.sweep") == sweep.name or tags.get("ftx.run") in names]


def log_run(path, back):
    """What a job says to MLflow, at once as much as there is."""
    trackers.SEND_SECONDS = 0.1
    folder = RunFolder(path)
    with trackers.Trackers(folder, folder.read_run()) as told:
        for step in range(1, ROWS + 1):
            if step == ROWS_BEFORE:
                assert back.wait(DEADLINE_SECONDS)
            write_row(folder, step)
            told.hear()
        write_results(folder)
        told.end("finished", "")


def points_in(file):
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as database:
        return database.execute("select count(*) from metrics").fetchone()[0]


@pytest.mark.long
def test_a_server_that_is_away(place, server):
    """Training goes on with one warning; the server is started, and --sync sends everything."""
    server.stop(signal.SIGTERM)
    uri = server.local_uri
    ended = place.train("schedule.epochs=1", "schedule.log_every=2", f"tracking.uri={uri}")
    assert ended.code == 0, ended
    warnings = [line for line in ended.out.splitlines() if "warning" in line.lower()]
    folder = place.folder()
    assert len(warnings) == 1
    assert f"python -m ftx.report --sync {folder.name}" in warnings[0]
    assert ended.err == ""
    assert folder.read_status().state == "finished"

    away = place.report("--sync", folder.name)
    assert away.code == 1
    assert away.err.startswith(f"error: {folder.name}: MLflow at {uri} does not answer")
    assert len(away.err.splitlines()) == 1

    server.start()
    for _ in range(2):
        synced = place.report("--sync", folder.name)
        assert (synced.code, synced.out) == (0, f"{folder.name}: MLflow at {uri} is up to date\n")
        has_everything(MlflowClient(uri), folder)
    assert len(runs_in(MlflowClient(uri))) == 1


@pytest.mark.long
def test_eight_jobs_while_the_server_is_killed_and_comes_back(place, running):
    """By the address that it names; every child hangs under the parent that was made before."""
    already = points_in(running.folder / "mlflow.db")
    sweep = sweep_of(place, running.uri, f"range(11,{11 + JOBS})")
    back = SERVER.Event()
    jobs = [SERVER.Process(target=log_run, args=(folder.path, back)) for folder in sweep.folders()]
    for job in jobs:
        job.start()
    limit = time.monotonic() + DEADLINE_SECONDS
    while points_in(running.folder / "mlflow.db") - already < JOBS * ROWS_BEFORE:
        assert time.monotonic() < limit and all(job.is_alive() for job in jobs)
        time.sleep(0.02)
    running.stop(signal.SIGKILL)
    running.start()
    back.set()
    for job in jobs:
        job.join(DEADLINE_SECONDS)
    assert [job.exitcode for job in jobs] == [0] * JOBS

    mlflow = MlflowClient(running.uri)
    ours = runs_of(mlflow, sweep)
    children = {run.data.tags["ftx.run"]: run for run in ours if "ftx.run" in run.data.tags}
    assert len(ours) == JOBS + 1
    assert {run.data.tags.get("mlflow.parentRunId") for run in children.values()} == {sweep.mlflow_parent_id}
    for folder in sweep.folders():
        assert has_everything(mlflow, folder).info.run_id == children[folder.name].info.run_id


def asked(uri, headers):
    """The status that a request with these headers gets."""
    address = f"{uri}/api/2.0/mlflow/experiments/search"
    request = urllib.request.Request(address, b'{"max_results": 1}', {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_who_may_ask(running):
    """Whoever calls this machine by a name of it, from pages of its own; not what a browser is talked into."""
    port, uri = running.port, running.local_uri
    for name in (socket.gethostname(), "localhost", "::1", running.uri.removeprefix("http://").rpartition(":")[0]):
        called = f"[{name}]" if ":" in name else name
        assert asked(uri, {"Host": f"{called}:{port}"}) == 200, name
        assert asked(uri, {"Host": f"{called}:81"}) == 200, name
        assert asked(uri, {"Origin": f"http://{called}:{port}"}) == 200, name
    assert asked(uri, {"Host": f"elsewhere.example:{port}"}) == 403
    assert asked(uri, {"Origin": "http://elsewhere.example"}) == 403
    assert running.said.startswith(f"MLflow server: tracking.uri={running.uri} (")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "{taken}"], ["PORT={taken}", "another process listens", "make server PORT="]),
        (["--host", "203.0.113.9"], ["HOST=203.0.113.9", "an address of this machine", "0.0.0.0"]),
        (["--port", "99999"], ["PORT=99999", "between 1 and 65535"]),
        (["--folder", "/proc/none"], ["DIR=/proc/none", "another one"]),
    ],
)
def test_a_server_that_cannot_be(words, says, capsys, monkeypatch):
    monkeypatch.setattr(server_verb.os, "execve", lambda *_: pytest.fail("it became a server"))
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        taken = other.getsockname()[1]
        free = [] if "--port" in words else ["--port", str(free_port())]
        code = server_verb.main([word.format(taken=taken) for word in [*words, *free]])
    said = capsys.readouterr()
    assert (code, said.out, len(said.err.splitlines())) == (2, "", 1)
    assert [text for text in says if text.format(taken=taken) not in said.err] == []


def test_a_disk_of_another_machine(tmp_path, monkeypatch):
    """SQLite needs locks that hold: the mount nearest above the folder says what it is."""
    mounts = [("/", "ext4"), (str(tmp_path), "nfs4"), (str(tmp_path / "mine"), "xfs")]
    listed = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in mounts]
    monkeypatch.setattr(server_verb.psutil, "disk_partitions", lambda all: listed)
    with pytest.raises(
        UserError, match=r"DIR=.*/shared/mlflow: is on a network file system \(nfs4\).*make server DIR="
    ):
        server_verb.make_folder(tmp_path / "shared" / "mlflow")
    server_verb.make_folder(tmp_path / "mine" / "mlflow")
    assert server_verb.file_system_of(tmp_path.parent) == "ext4"


@pytest.mark.parametrize("lost", [1, 2])
def test_answers_that_get_lost(place, running, lost):
    """Once, and MLflow's client asks again by itself; twice, and it gives up, and the next sender goes on."""
    with lossy(running.port, lost=lost) as way:
        sweep = sweep_of(place, way.uri, lost)
        (folder,) = sweep.folders()
        while sweep.mlflow_parent_id is None:
            sweep = sweep.with_parent(folder.read_run().tracking, sweep.members)
        assert {"experiments/create", "runs/create"} <= way.lost
    for step in range(1, 131):
        write_row(folder, step)
    write_results(folder)
    with lossy(running.port, lost=lost) as way:
        send_with_new_senders(folder, way.uri)
        assert {"runs/create", "runs/log-batch", "runs/set-tag", "runs/update", "artifacts/run.yaml"} <= way.lost
    mlflow = MlflowClient(running.local_uri)
    ours = runs_of(mlflow, sweep)
    assert {run.info.run_id for run in ours} == {sweep.mlflow_parent_id, folder.read_status().mlflow_run_id}
    has_everything(mlflow, folder)


@pytest.mark.parametrize(("late", "rate"), [("rows", 3), ("scores", 4)])
def test_requests_that_arrive_late(place, running, late, rate):
    """A client waits 15 seconds and asks again, SQLite's lock may take 20: what was given up still comes."""
    sweep = sweep_of(place, running.local_uri, rate)
    (folder,) = sweep.folders()
    if late == "rows":
        send(folder, "running")
    for step in range(1, 51):
        write_row(folder, step)
    if late == "scores":
        send(folder, "running")
    write_results(folder)
    with lossy(running.port, late="/log-batch") as way:
        send_with_new_senders(folder, way.uri)
        for arrive in way.held:
            arrive()
    assert len(way.held) == 2
    has_everything(MlflowClient(running.local_uri), folder)


def send(folder, state, uri=None):
    run = folder.read_run()
    Sender(folder, replace(run, tracking=replace(run.tracking, uri=uri or run.tracking.uri))).send(state, "")


def send_with_new_senders(folder, uri=None):
    """As the tracker does after a failure."""
    for _ in range(20):
        try:
            return send(folder, "finished", uri)
        except failures():
            continue
    raise AssertionError("none of them got through")
