"""Ctrl-C and SIGTERM: exit code 75, and the same command goes on as if nothing had been."""

import os
import select
import signal
from contextlib import suppress

import pytest
from run_records import checkpoints_of, learned, same_weights
from verb_process import DEADLINE_SECONDS, until

from ftx.errors import Interrupted
from ftx.lock import holder
from ftx.run_folder import RunFolder
from ftx.stopping import listening

WORDS = ("schedule.epochs=2", "schedule.log_every=2", "schedule.eval_every=never")


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
    assert folder.read_scores() == undisturbed.read_scores()


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
    assert not [path for path in place.folder().checkpoints.iterdir() if not path.name.startswith(".")]
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


def test_the_launcher_of_a_sweep(place):
    """SIGTERM ends its runs with a checkpoint, kill -9 takes them along, and the same command finishes them."""
    words = ("-m", "schedule.epochs=2,3", "launcher.parallel=2", "evaluation.tasks=[loss]", "tracking.offline=true")
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
