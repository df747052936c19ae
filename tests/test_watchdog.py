"""Which ranks the watchdog takes for stuck, and what it finds out about them before it ends them."""

import math
import os
import re
import signal
import threading
from contextlib import suppress

import pytest
from verb_process import SERVER, poll

from ftx.heartbeat import Beat, Heartbeat, beat, beat_file, read_beat, watched
from ftx.run_folder import RunFolder
from launchers.watchdog import PAUSE_SECONDS, START_SECONDS, Watchdog

LIMIT = 100.0


class Clock:
    """Seconds that go by when told to; the watchdog is asked every ten."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def at_work(folder, count, clock):
    hearts = [Heartbeat(folder.heartbeats, rank, clock) for rank in range(count)]
    for heart in hearts:
        heart.beat("train", 0)
    return hearts


def asked_for(seconds, clock, watchdog, meanwhile=lambda: None):
    """What it says at the end of these seconds, and at the first time that it says anything."""
    for _ in range(int(seconds / 10)):
        clock.now += 10
        meanwhile()
        if silent := watchdog.silent():
            return silent
    return []


def test_a_rank_that_falls_silent(folder, clock):
    watchdog = Watchdog(folder, 3, LIMIT, clock)
    hearts = at_work(folder, 3, clock)

    def others_go_on():
        for rank in (0, 2):
            hearts[rank].beat("train", int(clock.now))

    assert asked_for(LIMIT, clock, watchdog, others_go_on) == []
    assert asked_for(2 * 10, clock, watchdog, others_go_on) == [1]


def test_a_slow_rank_is_not_stuck(folder, clock):
    """It takes most of the limit for every step, a hundred times; and one that has ended may be silent for ever."""
    watchdog = Watchdog(folder, 2, LIMIT, clock)
    slow, done = (Heartbeat(folder.heartbeats, rank, clock) for rank in range(2))
    done.end()
    for step in range(100):
        assert asked_for(0.9 * LIMIT, clock, watchdog) == []
        slow.beat("train", step)
    assert asked_for(2 * LIMIT, clock, watchdog) == [0]


def test_starting_takes_what_it_takes(folder, clock):
    """Until it says what it does; what an earlier attempt left there does not count."""
    Heartbeat(folder.heartbeats, 1, clock).beat("train")
    watchdog = Watchdog(folder, 2, LIMIT, clock)
    assert asked_for(START_SECONDS / 2, clock, watchdog) == []
    heart = Heartbeat(folder.heartbeats, 0, clock)  # and imports its libraries now
    assert asked_for(START_SECONDS / 2, clock, watchdog) == []
    assert asked_for(20, clock, watchdog) == [1]
    watchdog = Watchdog(folder, 1, LIMIT, clock)
    heart.beat("preparing")
    assert asked_for(LIMIT, clock, watchdog) == []
    assert asked_for(20, clock, watchdog) == [0]
    patient = Watchdog(folder, 1, 2 * START_SECONDS, clock)
    assert asked_for(2 * START_SECONDS, clock, patient) == []
    assert asked_for(2 * patient._every, clock, patient) == [0]


def test_clocks_of_other_machines_do_not_matter(folder, clock):
    watchdog = Watchdog(folder, 1, LIMIT, clock)
    (heart,) = at_work(folder, 1, clock)
    ahead = 4 * 10**18

    def with_another_clock():
        nonlocal ahead
        heart.beat("train", 1)
        ahead -= 1
        os.utime(beat_file(folder.heartbeats, 0), ns=(ahead, ahead))

    assert asked_for(10 * LIMIT, clock, watchdog, with_another_clock) == []


def test_a_job_that_was_suspended(folder, clock):
    """The watchdog too: the time that it slept itself says nothing about the ranks."""
    watchdog = Watchdog(folder, 1, 2 * PAUSE_SECONDS, clock)
    (heart,) = at_work(folder, 1, clock)
    assert asked_for(10, clock, watchdog) == []
    clock.now += 86400
    assert watchdog.silent() == []
    heart.beat("train", 2)
    assert asked_for(2 * PAUSE_SECONDS, clock, watchdog) == []
    assert asked_for(20, clock, watchdog) == [0]


def test_without_a_limit_nobody_is_stuck(folder, clock):
    watchdog = Watchdog(folder, 1, math.inf, clock)
    assert asked_for(10 * START_SECONDS, clock, watchdog) == []


def test_it_says_where_each_rank_is_and_ends_them(folder, clock):
    """Three that wait for one another, and one that is stopped: a stopped process cannot even write its stack."""
    watchdog = Watchdog(folder, 5, LIMIT, clock)
    ranks = [SERVER.Process(target=_wait, args=(folder, index), daemon=True) for index in range(5)]
    for rank in ranks:
        rank.start()
    waiting = [Beat("train tiny", 7)] * 3 + [Beat("evaluate", 3, "conversation"), Beat("ended", ended=True)]
    poll(lambda: [_last(folder, index) for index in range(5)] == waiting, "the beats")
    os.kill(ranks[1].pid, signal.SIGSTOP)
    (folder.path / "log.txt").write_text("Thread 0x1 (most recent call first):\n  File old.py, line 1 in old\n")

    def send(number):
        for rank in ranks:
            with suppress(ProcessLookupError):
                os.kill(rank.pid, number)

    assert asked_for(LIMIT + 20, clock, watchdog) == [0, 1, 2, 3]
    reason = watchdog.end(send)
    for rank in ranks[:4]:
        rank.join()
        assert rank.exitcode == -signal.SIGKILL
    place = re.search(r"rank 3 (in wait of threading.py:\d+)", reason)[1]
    assert reason == (
        "no progress of ranks 0-3 for 1.67 minutes: "
        "rank 1 wrote no stack, stopped or waiting for a disk or device (train tiny, step 7); "
        f"rank 3 {place} (evaluate, conversation 3); "
        f"ranks 0, 2 {place} (train tiny, step 7); "
        "stacks are in log.txt and log-rank<n>.txt"
    )
    assert "in _wait_in_vain" in folder.log_of(2).read_text()
    assert "in _wait_in_vain" in folder.log.read_text()


def test_who_was_silent_first(folder, clock, monkeypatch):
    monkeypatch.setattr("launchers.watchdog.STACKS_SECONDS", 0)
    monkeypatch.setattr("launchers.watchdog.REST_SECONDS", 0)
    watchdog = Watchdog(folder, 2, LIMIT, clock)
    hearts = at_work(folder, 2, clock)
    assert asked_for(50, clock, watchdog, lambda: hearts[0].beat("train", int(clock.now))) == []
    assert asked_for(LIMIT, clock, watchdog) == [1]
    reason = watchdog.end(lambda _: None)
    assert "rank 1 was silent first, 40 s before the next" in reason
    assert reason.startswith("no progress of rank 1 for ")


def _wait(folder, index):
    with watched(folder, index):
        beat(*(("evaluate", 3, "conversation") if index == 3 else ("train tiny", 7)))
        if index != 4:
            _wait_in_vain()
    signal.pause()


def _wait_in_vain():
    threading.Event().wait()


def _last(folder, index):
    found = read_beat(beat_file(folder.heartbeats, index))
    return found and found.beat
