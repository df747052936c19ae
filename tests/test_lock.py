"""Real processes compete for real files; a child stops only where the test tells it to."""

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ftx.lock import Held, acquire_or_wait, holder, lock
from ftx.lock_file import LITTER_SECONDS
from ftx.processes import UNKNOWN, Holder, is_earlier_attempt

DEADLINE = 60
REPOSITORY = Path(__file__).parents[1]

PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from ftx.lock import Held, acquire_or_wait, lock
from ftx.processes import is_earlier_attempt

path = Path(sys.argv[1])

def say(*words):
    print(*words, flush=True)

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""

HOLD = """
try:
    with lock(path, job_id="812", heartbeat_seconds=3600):
        say("held")
        sys.stdin.readline()
    say("released")
except Held as error:
    say(error)
"""

PAUSE_BEFORE_CLAIM = """
link = os.link
def link_when_told(source, target):
    if str(target).endswith(".take"):
        say("before claim")
        sys.stdin.readline()
    link(source, target)
os.link = link_when_told
"""

PAUSE_AFTER_CLAIM = """
rename = os.rename
def rename_when_told(source, target):
    say("after claim")
    sys.stdin.readline()
    rename(source, target)
os.rename = rename_when_told
"""

DIE_AFTER_CLAIM = """
os.rename = lambda source, target: die()
"""

PAUSE_BEFORE_REMOVAL = """
unlink = os.unlink
def unlink_when_told(file):
    if Path(file) == path:
        say("before removal")
        sys.stdin.readline()
    unlink(file)
os.unlink = unlink_when_told
"""

ATTEMPT = """
def is_over(holder):
    return is_earlier_attempt(holder, "812", attempt)

attempt = int(sys.stdin.readline())
held = None
while held is None:
    try:
        with lock(path, job_id="812", attempt=attempt, supersedes=is_over, heartbeat_seconds=0.001) as held:
            say("held")
            while sys.stdin.readline() == "?\\n":
                say(held.is_ours())
        say("released")
    except Held as error:
        if not is_over(error.holder):  # else one that is just about to take it
            say(error)
            break
        time.sleep(0.001)
"""

COMPETE = """
def count_alone(folder):
    os.close(os.open(folder / "marker", os.O_CREAT | os.O_EXCL))
    counter = folder / "counter"
    seen = int(counter.read_text())
    time.sleep(0.001)
    counter.write_text(str(seen + 1))
    (folder / "marker").unlink()

for line in sys.stdin:
    folder, end = line.split()
    done = False
    while not done:
        try:
            with lock(Path(folder) / "lock"):
                count_alone(Path(folder))
                done = True
                if end == "die":
                    die()
        except Held:
            time.sleep(0.001)
    say("counted")
"""

BUILD = """
built = path.with_name("built")
say("started")
sys.stdin.readline()
with acquire_or_wait(path, built.exists, poll_seconds=0.01) as must_build:
    if must_build:
        say("building")
        if sys.stdin.readline() == "go\\n":
            with path.with_name("builders").open("a") as builders:
                builders.write(f"{os.getpid()}\\n")
            built.touch()
say("ready" if built.exists() else "not ready")
"""


class Child:
    """A process of ours that we talk to line by line, never waiting for longer than DEADLINE."""

    def __init__(self, code: str, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        self.pid = self.process.pid
        self.said: queue.Queue[str] = queue.Queue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.put(line.rstrip("\n"))

    def hear(self) -> str:
        return self.said.get(timeout=DEADLINE)

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait_until_dead(self) -> None:
        """Dead, but still a zombie: its parent, this process, has not asked for its exit status."""
        wait_for(lambda: os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None)

    def kill(self) -> None:
        self.process.kill()
        self.wait_until_dead()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.listener.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


Spawn = Callable[[str], Child]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def spawn(path: Path) -> Iterator[Spawn]:
    children: list[Child] = []

    def start(code: str) -> Child:
        children.append(Child(code, path))
        return children[-1]

    yield start
    for child in children:
        child.close()


@pytest.fixture
def me(tmp_path: Path) -> Holder:
    """What this process writes into a lock."""
    with lock(tmp_path / "other") as held:
        return held.holder


def write(path: Path, holder: Holder, age: float = 0) -> None:
    path.write_text(json.dumps(asdict(holder)))
    make_older(path, age)


def write_dead(path: Path, me: Holder) -> None:
    write(path, replace(me, started=me.started - 100, token="dead"))


def make_older(path: Path, seconds: float) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# ---------------------------------------------------------------- who holds it


def test_a_second_process_is_refused_and_told_who_holds_it(path: Path, spawn: Spawn) -> None:
    child = spawn(HOLD)
    assert child.hear() == "held"
    with pytest.raises(Held) as refused, lock(path):
        pass
    host = re.escape(os.uname().nodename)
    assert re.fullmatch(rf"held by process {child.pid} on {host}, job 812 \(heartbeat \d+ s ago\)", str(refused.value))
    assert refused.value.holder == holder(path)
    child.tell()
    assert child.hear() == "released"
    assert holder(path) is None
    with lock(path):
        pass


def test_the_same_process_cannot_take_it_twice(path: Path) -> None:
    with lock(path) as outer:
        with pytest.raises(Held, match=rf"held by process {os.getpid()} on \S+ \(heartbeat \d+ s ago\)"), lock(path):
            pass
        assert holder(path) == outer.holder


def test_the_heartbeats_age_is_told(path: Path, spawn: Spawn) -> None:
    child = spawn(HOLD)
    child.hear()
    make_older(path, 1000)
    with pytest.raises(Held) as refused, lock(path):
        pass
    assert 1000 <= refused.value.heartbeat_age < 1000 + DEADLINE


def test_a_live_process_on_this_machine_holds_it_however_old_its_heartbeat(path: Path, spawn: Spawn) -> None:
    child = spawn(HOLD)
    child.hear()
    os.utime(path, (0, 0))
    assert holder(path) is not None
    with pytest.raises(Held), lock(path, stale_seconds=1):
        pass


def test_a_killed_holders_lock_is_taken_at_once(path: Path, spawn: Spawn) -> None:
    child = spawn(HOLD)
    child.hear()
    child.kill()
    assert holder(path) is None
    with lock(path, stale_seconds=3600) as held:
        assert holder(path) == held.holder
        assert files(path.parent) == ["lock"]
    child.process.wait()
    assert files(path.parent) == []


def test_a_recycled_pid_is_dead(path: Path, spawn: Spawn, me: Holder) -> None:
    child = spawn(HOLD)
    child.hear()
    theirs = holder(path)
    assert theirs is not None
    child.kill()
    write(path, replace(theirs, pid=me.pid, started=me.started - 100))
    assert holder(path) is None
    with lock(path, stale_seconds=3600):
        pass


@pytest.mark.parametrize("elsewhere", [{"host": "elsewhere"}, {"boot": "another"}])
def test_a_holder_elsewhere_is_judged_by_its_heartbeat(path: Path, me: Holder, elsewhere: dict[str, Any]) -> None:
    theirs = replace(me, **elsewhere)
    write(path, theirs)
    assert holder(path) == theirs
    with pytest.raises(Held) as refused, lock(path):
        pass
    assert refused.value.holder == theirs
    make_older(path, 61)
    assert holder(path) is None
    with lock(path) as held:
        assert holder(path) == held.holder


def test_the_heartbeat_is_judged_by_the_file_systems_clock(
    path: Path, me: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, replace(me, host="elsewhere"))
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert holder(path) is not None
    with pytest.raises(Held), lock(path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": "elsewhere"}', '{"pid": 1, "host": 2, "extra": 3}'])
def test_an_unreadable_lock_is_held_until_it_is_stale(path: Path, content: str) -> None:
    path.write_text(content)
    assert holder(path) == UNKNOWN
    with pytest.raises(Held, match=r"held by an unknown process \(heartbeat \d+ s ago\)"), lock(path):
        pass
    make_older(path, 61)
    assert holder(path) is None
    with lock(path) as held:
        assert holder(path) == held.holder


# ---------------------------------------------------------------- races


def test_sixteen_processes_race_for_a_dead_lock_and_never_hold_it_together(
    spawn: Spawn, tmp_path: Path, me: Holder
) -> None:
    children = [spawn(COMPETE) for _ in range(16)]
    for turn in range(5):
        folder = tmp_path / str(turn)
        folder.mkdir()
        (folder / "counter").write_text("0")
        write_dead(folder / "lock", me)
        for child in children:
            child.tell(f"{folder} live")
        assert [child.hear() for child in children] == ["counted"] * 16
        assert (folder / "counter").read_text() == "16"
        assert files(folder) == ["counter"]


def test_holders_that_die_one_after_another_are_each_replaced_once(
    spawn: Spawn, tmp_path: Path, path: Path, me: Holder
) -> None:
    (tmp_path / "counter").write_text("0")
    write_dead(path, me)
    children = [spawn(COMPETE) for _ in range(16)]
    for child in children:
        child.tell(f"{tmp_path} die")
    for child in children:
        child.wait_until_dead()
    assert (tmp_path / "counter").read_text() == "16"
    assert holder(path) is None


def test_a_slow_taker_leaves_the_winners_fresh_lock_alone(path: Path, spawn: Spawn, me: Holder) -> None:
    write_dead(path, me)
    slow = spawn(PAUSE_BEFORE_CLAIM + HOLD)
    assert slow.hear() == "before claim"
    with lock(path) as held:
        slow.tell()
        assert slow.hear().startswith(f"held by process {os.getpid()} ")
        assert holder(path) == held.holder
        assert files(path.parent) == ["lock"]


def test_a_slow_taker_gets_the_lock_once_the_winner_is_through(path: Path, spawn: Spawn, me: Holder) -> None:
    write_dead(path, me)
    slow = spawn(PAUSE_BEFORE_CLAIM + HOLD)
    assert slow.hear() == "before claim"
    with lock(path):
        pass
    slow.tell()
    assert slow.hear() == "held"


def test_a_claim_is_respected_while_its_owner_lives(path: Path, spawn: Spawn, me: Holder) -> None:
    write_dead(path, me)
    slow = spawn(PAUSE_AFTER_CLAIM + HOLD)
    assert slow.hear() == "after claim"
    with pytest.raises(Held, match=rf"held by process {slow.pid} "), lock(path):
        pass
    slow.tell()
    assert slow.hear() == "held"
    assert files(path.parent) == ["lock"]


def test_the_claim_of_a_killed_taker_is_taken_over(path: Path, spawn: Spawn, me: Holder) -> None:
    write_dead(path, me)
    for _ in range(2):
        spawn(DIE_AFTER_CLAIM + HOLD).wait_until_dead()
    assert len([name for name in files(path.parent) if name.endswith(".take")]) == 2
    with lock(path) as held:
        assert holder(path) == held.holder
        assert [name for name in files(path.parent) if not name.endswith(".tmp")] == ["lock"]


# ---------------------------------------------------------------- whose time is over


def over(holder: Holder) -> bool:
    """What the second start of job 812 says."""
    return is_earlier_attempt(holder, "812", 1)


def test_an_earlier_attempt_loses_it_alive_and_leaves_it_alone(path: Path, spawn: Spawn) -> None:
    """Also while its heart beats, a thousand times a second."""
    old = spawn(ATTEMPT)
    old.tell("0")
    assert old.hear() == "held"
    theirs = holder(path)
    old.tell("?")
    assert old.hear() == "True"
    with lock(path, job_id="812", attempt=1, supersedes=over) as held:
        assert held.taken_from == theirs
        assert held.is_ours()
        assert files(path.parent) == ["lock"]
        old.tell("?")
        assert old.hear() == "False"
        old.tell()
        assert old.hear() == "released"
        assert holder(path) == held.holder
        assert held.holder.attempt == 1
    assert files(path.parent) == []


@pytest.mark.parametrize(("job_id", "attempt"), [("812", 1), ("812", 2), ("813", 0), (None, 0)])
def test_nobody_else_is_superseded(path: Path, job_id: str | None, attempt: int) -> None:
    with lock(path, job_id=job_id, attempt=attempt) as held:
        with pytest.raises(Held), lock(path, job_id="812", attempt=1, supersedes=over):
            pass
        assert held.is_ours()
    assert not is_earlier_attempt(replace(held.holder, job_id=None), None, 9)


def test_a_lock_from_before_there_were_attempts(path: Path, me: Holder) -> None:
    written = asdict(replace(me, job_id="812"))
    del written["attempt"]
    path.write_text(json.dumps(written))
    assert holder(path) == replace(me, job_id="812", attempt=0)
    with lock(path, job_id="812", attempt=1, supersedes=over) as held:
        assert held.taken_from == replace(me, job_id="812")


@pytest.mark.parametrize("elsewhere", [True, False])
def test_of_whom_a_lock_was_taken(path: Path, me: Holder, elsewhere: bool) -> None:
    """Of a process that is surely gone, nobody has to be told."""
    if elsewhere:
        write(path, replace(me, host="elsewhere"), age=61)
    else:
        write_dead(path, me)
    with lock(path) as held:
        assert held.taken_from == (replace(me, host="elsewhere") if elsewhere else None)
    with lock(path) as held:
        assert held.taken_from is None


def test_a_heartbeat_between_the_looks_saves_a_silent_holder_and_not_a_superseded_one(
    path: Path, spawn: Spawn, me: Holder
) -> None:
    write(path, replace(me, host="elsewhere"), age=61)
    taker = spawn(PAUSE_BEFORE_CLAIM + HOLD)
    assert taker.hear() == "before claim"
    os.utime(path)
    taker.tell()
    assert taker.hear().startswith(f"held by process {me.pid} on elsewhere ")
    path.unlink()
    with lock(path, job_id="812"):
        taker = spawn(PAUSE_BEFORE_CLAIM + ATTEMPT)
        taker.tell("1")
        assert taker.hear() == "before claim"
        os.utime(path)
        taker.tell()
        assert taker.hear() == "held"


def test_what_is_being_removed_is_not_taken_over(path: Path, spawn: Spawn) -> None:
    """The removal would hit the new lock."""
    old = spawn(PAUSE_BEFORE_REMOVAL + ATTEMPT)
    old.tell("0")
    assert old.hear() == "held"
    old.tell()
    assert old.hear() == "before removal"
    with pytest.raises(Held) as refused, lock(path, job_id="812", attempt=1, supersedes=over):
        pass
    assert refused.value.holder.pid == old.pid
    old.tell()
    assert old.hear() == "released"
    assert files(path.parent) == []
    with lock(path, job_id="812", attempt=1, supersedes=over) as held:
        assert held.taken_from is None


def test_what_is_being_taken_over_is_not_removed(path: Path, spawn: Spawn) -> None:
    """A third one could get the place that falls free, and the taker would put his lock over that one's."""
    taker = spawn(PAUSE_AFTER_CLAIM + ATTEMPT)
    with lock(path, job_id="812") as held:
        taker.tell("1")
        assert taker.hear() == "after claim"
    assert holder(path) == held.holder
    with pytest.raises(Held), lock(path):
        pass
    taker.tell()
    assert taker.hear() == "held"
    assert not held.is_ours()
    assert files(path.parent) == ["lock"]


def test_of_eight_attempts_at_once_the_last_one_has_it(spawn: Spawn, path: Path) -> None:
    children = [spawn(ATTEMPT) for _ in range(8)]
    for attempt, child in enumerate(children):
        child.tell(str(attempt))
    said = [child.hear() for child in children]
    assert said[-1] == "held"
    at_it = [child for child, word in zip(children, said, strict=True) if word == "held"]
    for child in at_it:
        child.tell("?")
    assert [child.hear() for child in at_it] == ["False"] * (len(at_it) - 1) + ["True"]
    for child in at_it:
        child.tell()
    assert [child.hear() for child in at_it] == ["released"] * len(at_it)
    assert files(path.parent) == []


# ---------------------------------------------------------------- while it is held, and after


def test_the_heartbeat_goes_on_while_the_lock_is_held(path: Path) -> None:
    with lock(path, heartbeat_seconds=0.01) as held:
        for _ in range(3):
            os.utime(path, (0, 0))
            wait_for(lambda: path.stat().st_mtime > 0)
        assert not held.lost


def test_release_removes_the_file_also_when_the_body_fails(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(path):
        raise ZeroDivisionError
    assert files(path.parent) == []


@pytest.mark.parametrize("taken", [True, False])
def test_a_lost_lock_is_noticed_and_another_ones_is_left_alone(path: Path, me: Holder, taken: bool) -> None:
    calls: list[threading.Thread] = []
    with lock(path, heartbeat_seconds=0.01, on_lost=lambda: calls.append(threading.current_thread())) as held:
        assert not held.lost
        theirs = replace(me, host="elsewhere")
        if taken:
            write(path.with_name("theirs"), theirs)
            path.with_name("theirs").rename(path)
        else:
            path.unlink()
        wait_for(lambda: bool(calls))
        assert held.lost
        calls[0].join(DEADLINE)
    assert len(calls) == 1
    assert not calls[0].is_alive()
    assert holder(path) == (theirs if taken else None)


def test_a_forked_child_does_not_release_its_parents_lock(path: Path, spawn: Spawn) -> None:
    child = spawn("""
with lock(path):
    if os.fork() == 0:
        sys.exit()
    os.wait()
    say(path.exists())
say(path.exists())
""")
    assert [child.hear(), child.hear()] == ["True", "False"]


def test_old_temporary_files_are_removed_and_nothing_else(path: Path) -> None:
    def leave(name: str, age: float) -> None:
        path.with_name(name).touch()
        make_older(path.with_name(name), age)

    for name in (".lock.a.tmp", ".lock.b.take", ".lock.c", ".other.a.tmp", "lock.a.tmp"):
        leave(name, LITTER_SECONDS + 60)
    leave(".lock.young.tmp", LITTER_SECONDS - 600)
    with lock(path):
        pass
    assert files(path.parent) == [".lock.c", ".lock.young.tmp", ".other.a.tmp", "lock.a.tmp"]


def test_a_folder_that_cannot_be_written_is_an_os_error() -> None:
    with pytest.raises(OSError), lock(Path("/proc/self/lock")):
        pass


def test_importing_it_is_light() -> None:
    code = "import sys, ftx.lock; print(*{'psutil', 'torch', 'socket', 'hashlib', 'uuid'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# ---------------------------------------------------------------- one builds, the rest wait


def test_what_is_built_already_is_not_locked(path: Path) -> None:
    with acquire_or_wait(path.parent / "missing" / "lock", lambda: True) as must_build:
        assert not must_build


def test_what_was_built_just_before_we_got_the_lock_is_not_built_again(path: Path) -> None:
    answers = iter([False, True])
    with acquire_or_wait(path, lambda: next(answers)) as must_build:
        assert not must_build
        assert files(path.parent) == []


def test_one_of_eight_builds_and_the_rest_wait(path: Path, spawn: Spawn) -> None:
    children = [spawn(BUILD) for _ in range(8)]
    assert {child.hear() for child in children} == {"started"}
    for child in children:
        child.tell()
        child.tell("go")
    said = sorted(child.hear() for child in children)
    assert said == ["building"] + ["ready"] * 7
    assert len((path.parent / "builders").read_text().split()) == 1
    wait_for(lambda: files(path.parent) == ["builders", "built"])


def test_a_builder_killed_half_way_is_replaced(path: Path, spawn: Spawn) -> None:
    first = spawn(BUILD)
    assert first.hear() == "started"
    first.tell()
    assert first.hear() == "building"
    rest = [spawn(BUILD) for _ in range(7)]
    assert {child.hear() for child in rest} == {"started"}
    for child in rest:
        child.tell()
        child.tell("go")
    assert not (path.parent / "built").exists()
    first.kill()
    assert sorted(child.hear() for child in rest) == ["building"] + ["ready"] * 6
    assert len((path.parent / "builders").read_text().split()) == 1
    wait_for(lambda: files(path.parent) == ["builders", "built"])
