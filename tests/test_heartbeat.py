"""A rank's signs of life: what they cost, what they say, and that a rank which is stuck in C still shows where."""

import ctypes
import json
import os
import signal
from itertools import chain, pairwise, repeat

import pytest
from tiny_training import tiny, train_in, write_chats
from verb_process import SERVER, poll

from ftx.data.cache import build
from ftx.heartbeat import Beat, Heartbeat, beat, beat_file, read_beat, remove_old_beats, watched
from ftx.lock import lock
from ftx.progress import Progress
from ftx.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


def last_beat(folder, rank=0) -> Beat | None:
    found = read_beat(beat_file(folder.heartbeats, rank))
    return found and found.beat


def test_a_new_phase_is_written_at_once_and_steps_once_a_second(folder):
    now = 0.0
    heart = Heartbeat(folder.heartbeats, 3, clock=lambda: now)
    assert last_beat(folder, 3) == Beat()
    heart.beat("train", 1)
    assert str(last_beat(folder, 3)) == "train, step 1"
    for step in range(2, 9):
        now += 0.25
        heart.beat("train", step)
        heart.beat()
    assert last_beat(folder, 3) == Beat("train", 5)
    file = beat_file(folder.heartbeats, 3)
    first = read_beat(file)
    os.utime(file, ns=(0, 0))
    now += 1
    heart.beat()
    assert last_beat(folder, 3) == Beat("train", 8)
    assert read_beat(file).seen != first.seen
    heart.end()
    assert last_beat(folder, 3).ended


def test_nothing_is_written_where_nobody_looks(folder):
    beat("train", 1)
    with Progress("read", 10) as progress:
        progress.show(3)
    assert list(folder.path.iterdir()) == []


def test_work_that_shows_its_progress_beats(folder):
    with watched(folder, 0):
        assert last_beat(folder) == Beat()
        with Progress("read chats.jsonl", 10, unit="byte") as progress:
            progress.show(3)
        assert str(last_beat(folder)) == "read chats.jsonl, byte 3"
        with watched(folder, 0):  # whoever started the process has begun already
            beat("deeper")
        assert last_beat(folder) == Beat("deeper")
    assert last_beat(folder).ended
    assert json.loads(beat_file(folder.heartbeats, 0).read_text())["phase"] == "ended"


class Heard:
    """In place of a rank's file: everything that was said, in order."""

    def __init__(self) -> None:
        self.beats = []

    def beat(self, *said) -> None:
        self.beats.append(said)

    def phases(self) -> list[str]:
        named = [phase for phase, *_ in self.beats if phase]
        return [phase for before, phase in pairwise(["", *named]) if phase != before]


@pytest.fixture
def heard(monkeypatch) -> Heard:
    heard = Heard()
    monkeypatch.setattr("ftx.heartbeat._current", heard)
    return heard


def test_a_training_says_where_it_is(tmp_path, heard):
    """After every micro-batch, and while it evaluates and writes."""
    words = ("schedule.epochs=1", "schedule.save_every=epoch", "schedule.eval_every=epoch")
    run = tiny(write_chats(tmp_path), *words)
    train_in(tmp_path / "run", run)
    training = f"train {run.name}"
    end = ["evaluate", "writing the checkpoint of step 5", "writing model/"]
    assert heard.phases()[-5:] == ["evaluate", training, *end]
    assert {"read chats.jsonl", "tokenize"} <= set(heard.phases())
    assert [done for phase, done, _ in heard.beats if phase == training] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    steps = [at for at, (phase, *_) in enumerate(heard.beats) if phase == training]
    # Four micro-batches a step: one comes with the step's own beat.
    assert all(heard.beats[at + 1 : at + 4] == [("", None, "step")] * 3 for at in steps[::2])


def test_whoever_waits_for_prepared_data_lives(tmp_path, heard):
    looks = chain([False] * 3, repeat(True))
    folder = tmp_path / "prepared" / "set"
    folder.parent.mkdir()
    with lock(folder.with_suffix(".lock")), build(folder, lambda: next(looks)) as writing:
        assert writing is None
    assert heard.beats[:4] == [("waiting for prepared/set", None, "step")] * 4


def test_a_full_disk_does_not_silence_a_rank(folder):
    """Nor does it end the rank."""
    heart = Heartbeat(folder.heartbeats, 0, clock=lambda: 0.0)
    file = beat_file(folder.heartbeats, 0)
    before = read_beat(file)
    os.utime(file, ns=(0, 0))
    limited = SERVER.Process(target=_beat_without_room, args=(file.parent,), daemon=True)
    limited.start()
    limited.join()
    assert limited.exitcode == 0
    assert read_beat(file).seen[1] not in (0, before.seen[1])
    file.unlink()
    file.parent.rmdir()
    heart.beat("goes on")
    assert last_beat(folder) == Beat("goes on")


def _beat_without_room(folder):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    heart = Heartbeat(folder, 0)
    heart.beat("no room")


def test_another_attempt_has_beats_of_its_own(folder, monkeypatch):
    Heartbeat(folder.heartbeats, 0)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    Heartbeat(folder.heartbeats, 0)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with watched(folder, 0):
        assert len(list(folder.path.glob(".heartbeat*"))) == 3
        remove_old_beats(folder)
        assert list(folder.path.glob(".heartbeat*")) == [folder.heartbeats]
    remove_old_beats(folder)
    assert list(folder.path.glob(".heartbeat*")) == []


def test_a_thread_that_holds_the_interpreter_in_c_shows_where(folder):
    """No line of Python runs in such a process any more, and no handler that is written in it."""
    stuck = SERVER.Process(target=_hold_the_interpreter, args=(folder,), daemon=True)
    stuck.start()
    poll(lambda: last_beat(folder, 1) == Beat("stuck"), "the beat")
    os.kill(stuck.pid, signal.SIGUSR1)
    log = folder.log_of(1)
    poll(lambda: "in _hold_the_interpreter" in log.read_text(), "the stack")
    assert stuck.is_alive()
    stuck.kill()
    stuck.join()


def _hold_the_interpreter(folder):
    reading, _ = os.pipe()
    with watched(folder, 1):
        beat("stuck")
        ctypes.PyDLL(None).read(reading, ctypes.create_string_buffer(1), 1)
