"""Ctrl-C, SIGTERM and SIGUSR2: exit code 75, and the run goes on as if nothing had been."""

import os
import select
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from run_records import checkpoints_of, learned, same_weights, scored
from verb_process import DEADLINE_SECONDS, SERVER, descendants, poll, until

from ftx.errors import Interrupted
from ftx.lock import holder
from ftx.run_folder import RunFolder
from ftx.stopping import WAIT_SECONDS, block_warning_signal, listening

WORDS = ("schedule.epochs=2", "schedule.log_every=2", "schedule.eval_every=never", "schedule.save_every=never")


@pytest.fixture(scope="module")
def undisturbed(new_place):
    """A run that no signal reached."""
    place = new_place()
    assert place.train(*WORDS).code == 0
    return place.folder()


def is_training(place):
    return any(file.stat().st_size for file in place.runs.glob("*/metrics.jsonl"))


def status_of(place):
    files = list(place.runs.glob("*/status.json"))
    return RunFolder(files[0].parent).read_status() if files else None


def finishes_as_if_nothing_had_been(place, undisturbed):
    ended = place.train(*WORDS)
    assert ended.code == 0, ended
    assert place.folder().read_status().state == "finished"
    assert place.folder().read_status().reason == ""
    assert same_weights(place.folder(), undisturbed)
    assert learned(place.folder()) == learned(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_while_training(place, undisturbed, number):
    run = place.start(*WORDS)
    until(lambda: is_training(place), run, "a training row")
    run.send(number)
    ended = run.ended()
    assert ended.code == 75
    assert f"interrupted ({number.name}); the same command resumes it" in ended.out
    assert ended.err == ""
    folder = place.folder()
    status = folder.read_status()
    assert (status.state, status.reason) == ("interrupted", number.name)
    (checkpoint,) = checkpoints_of(folder) - {".writing"}
    assert not folder.model.exists()
    assert place.mlflow().get_run(status.mlflow_run_id).info.status == "KILLED"
    assert f"resuming from step {checkpoint.removeprefix('step-')} of 18" in (resumed := place.train(*WORDS)).out
    assert resumed.code == 0
    assert same_weights(folder, undisturbed)
    assert learned(folder) == learned(undisturbed)
    assert folder.read_status().reason == ""
    assert place.mlflow().get_run(status.mlflow_run_id).info.status == "FINISHED"


def test_while_preparing(place, new_place, undisturbed, tmp_path):
    """No data is in the cache yet: the lock on it is let go, and nothing half-prepared is taken for whole."""
    words = (*WORDS, f"data.cache={tmp_path}")
    run = place.start(*words)
    until(lambda: any(tmp_path.glob("prepared/*.lock")), run, "the lock on prepared data")
    run.send(signal.SIGTERM)
    ended = run.ended()
    assert ended.code == 75
    assert (status_of(place).state, status_of(place).reason) == ("interrupted", "SIGTERM")
    assert not any(path.is_dir() and not path.suffix for path in tmp_path.glob("prepared/*"))
    assert place.train(*words).code == 0
    assert same_weights(place.folder(), undisturbed)


def test_while_scoring(place, undisturbed):
    words = (*WORDS, "evaluation.limit=null")
    run = place.start(*words)
    until(lambda: any(place.runs.glob("*/model")), run, "the model")
    run.send(signal.SIGTERM)
    assert run.ended().code == 75
    folder = place.folder()
    assert folder.read_status().state == "interrupted"
    assert folder.read_scores() == {}
    written = (folder.model / "model.safetensors").stat().st_mtime_ns
    assert place.train(*WORDS).code == 0
    assert (folder.model / "model.safetensors").stat().st_mtime_ns == written
    assert scored(folder) == scored(undisturbed)


def test_a_second_signal_stops_at_once(place, undisturbed):
    """Without the checkpoint that the first one asked for; both arrive within one step."""
    run = place.start(*WORDS)
    until(lambda: is_training(place), run, "a training row")
    run.send(signal.SIGSTOP)
    run.send(signal.SIGTERM)
    run.send(signal.SIGINT)
    run.send(signal.SIGCONT)
    assert run.ended().code == 75
    assert status_of(place).state == "interrupted"
    assert not list(place.folder().checkpoints.glob("step-*"))
    finishes_as_if_nothing_had_been(place, undisturbed)


def test_an_import_is_not_broken_off(tmp_path, monkeypatch):
    """An exception in the middle of it can leave the import lock taken, and every other thread waiting for ever."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "signalled.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\nWHOLE = True\n")
    with listening() as stop, pytest.raises(Interrupted, match="SIGTERM"), stop.at_once():
        import signalled

        assert signalled.WHOLE
        select.select([], [], [], DEADLINE_SECONDS)
    with listening() as stop, stop.at_once(), stop.deferred():
        signal.raise_signal(signal.SIGINT)
        assert stop.reason == "SIGINT"
        with pytest.raises(Interrupted, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)


WARNED = "warned of the time limit (SIGUSR2): goes on when SLURM starts it again"


def warn(processes):
    for process in processes:
        os.kill(process, signal.SIGUSR2)


def state_of_process(process):
    """Z: it has died, and nobody has asked how."""
    return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()


def is_pending(place, ended):
    assert ended.code == 75, ended
    assert WARNED in ended.out
    assert "Traceback" not in ended.err
    status = place.folder().read_status()
    assert (status.state, status.reason) == ("pending", WARNED)
    logged = place.mlflow().get_run(status.mlflow_run_id)
    assert (logged.info.status, logged.data.tags["ftx.reason"]) == ("SCHEDULED", WARNED)


def is_finished(place, ended, undisturbed):
    assert ended.code == 0, ended
    folder = place.folder()
    assert same_weights(folder, undisturbed)
    assert learned(folder) == learned(undisturbed)
    logged = place.mlflow().get_run(folder.read_status().mlflow_run_id)
    assert (logged.info.status, logged.data.tags["ftx.reason"]) == ("FINISHED", "")


def test_slurms_warning_to_all_of_a_task(submit, place, undisturbed):
    """Also to its children, which neither die of it nor take it for theirs; they do end when they are told to."""
    job = submit(*WORDS)
    run = job.start(0, children=True)
    until(lambda: is_training(place), run, "a training row")
    children = descendants(run.process.pid)
    assert len(children) == 2
    warn([run.process.pid, *children])
    is_pending(place, run.ended())
    assert len(checkpoints_of(job.folder) - {".writing-812-0"}) == 1
    for child in children:
        assert state_of_process(child) == "S"
        os.kill(child, signal.SIGTERM)
        wait_for_end_of(child)
    assert not job.folder.model.exists()
    is_finished(place, job.start(1).ended(), undisturbed)


def test_slurms_warning_while_data_is_prepared(submit, place, undisturbed, tmp_path):
    job = submit(*WORDS, f"data.cache={tmp_path}", "data.processes=2")
    run = job.start(0)
    until(lambda: len(descendants(run.process.pid)) == 2, run, "two processes that prepare data")
    warn([run.process.pid, *descendants(run.process.pid)])
    is_pending(place, run.ended())
    is_finished(place, job.start(1).ended(), undisturbed)


def test_slurms_warning_to_one_rank(submit, place):
    """The first one learns of it from the other."""
    job = submit(*WORDS, "hardware.processes_per_node=2", "hardware.strategy=ddp", "hardware.micro_batch=1")
    first, second = job.start_ranks(0)
    until(lambda: is_training(place), first, "a training row")
    second.send(signal.SIGUSR2)
    is_pending(place, first.ended())
    assert second.ended().code == 75
    assert [rank.ended().code for rank in job.start_ranks(1)] == [0, 0]
    assert "resuming from step" in (place.path / "said" / "2.out").read_text()


def test_a_blocked_warning_is_heard_by_whoever_listens():
    """In a process without other threads, which would take it."""
    alone = SERVER.Process(target=_be_warned)
    alone.start()
    alone.join(DEADLINE_SECONDS)
    assert alone.exitcode == 0


def _be_warned():
    block_warning_signal()
    os.kill(os.getpid(), signal.SIGUSR2)  # as early as that: it waits
    with listening() as stop, pytest.raises(Interrupted, match="SIGUSR2"), stop.at_once():
        select.select([], [], [], DEADLINE_SECONDS)
    with listening() as outer, listening() as inner:
        os.kill(os.getpid(), signal.SIGUSR2)
        while not inner.reason:
            select.select([], [], [], 0.01)
        assert (outer.reason, inner.reason) == ("", "SIGUSR2")
    assert threading.active_count() == 1


def test_a_warning_is_no_second_time():
    with listening() as stop, stop.at_once(), stop.deferred():
        for _ in range(2):
            signal.raise_signal(signal.SIGUSR2)
        assert stop.reason == "SIGUSR2"
        with pytest.raises(Interrupted, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)


def test_being_suspended_is_no_warning(tmp_path):
    """sigtimedwait, interrupted by it, gives back memory that nothing was written to."""
    process = SERVER.Process(target=listen_until_told, args=(tmp_path,), daemon=True)
    process.start()
    poll((tmp_path / "listens").exists, "a process that listens")
    for _ in range(5):
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2 * WAIT_SECONDS)
        os.kill(process.pid, signal.SIGCONT)
    (tmp_path / "enough").touch()
    process.join()
    assert (tmp_path / "reason").read_text() == "nobody asked"


def listen_until_told(folder):
    block_warning_signal()
    with listening() as stop:
        (folder / "listens").touch()
        poll((folder / "enough").exists, "the end")
    (folder / "reason").write_text(stop.reason or "nobody asked")


@pytest.mark.long
def test_the_launcher_of_a_sweep(place):
    """SIGTERM ends its runs with a checkpoint, kill -9 takes them along, and the same command finishes them."""
    words = ("-m", "schedule.epochs=20,30", "launcher.parallel=2", "evaluation.tasks=[loss]", "tracking.offline=true")
    run = place.start(*words)
    until(lambda: len(folders_at_work(place)) == 2, run, "both runs")
    run.send(signal.SIGTERM)
    ended = run.ended()
    assert ended.code == 75
    assert "the same command goes on where it stopped" in ended.err
    folders = folders_of(place)
    assert [folder.read_status().state for folder in folders] == ["interrupted", "interrupted"]
    assert [holder(folder.lock) for folder in folders] == [None, None]

    run = place.start(*words)
    until(lambda: len(folders_at_work(place)) == 2, run, "both runs again")
    processes = [holder(folder.lock).pid for folder in folders]
    run.killed()
    for process in processes:
        wait_for_end_of(process)

    ended = place.train(*words)
    assert ended.code == 0, ended
    assert [folder.read_status().state for folder in folders] == ["finished", "finished"]


def folders_of(place):
    return [RunFolder(file.parent) for file in sorted(place.runs.glob("*/run.yaml"))]


def folders_at_work(place):
    return [folder for folder in folders_of(place) if holder(folder.lock) and folder.read_status().state == "running"]


def wait_for_end_of(process):
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process)
        assert select.select([descriptor], [], [], DEADLINE_SECONDS)[0], "outlived its launcher"
