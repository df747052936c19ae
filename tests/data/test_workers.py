"""Several processes give what one gives, in its order, and their mistakes are told as its own."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from ftx.config.compose import compose
from ftx.data.prepare import Prepared, prepare
from ftx.data.workers import START, Workers, processes_for
from ftx.environment import processors
from ftx.errors import UserError


class Difficult(Exception):
    """One that does not come out of a pickle as it went in."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


class Squares:
    """What the processes make: squares of numbers, and one end on request."""

    def __init__(self, added: int) -> None:
        self._added = added

    def __call__(self, numbers: list[int]) -> list[int]:
        print("this must not get between the answers")
        if -1 in numbers:
            raise UserError("numbers=-1: has no square here")
        if -3 in numbers:
            raise Difficult("a", "b")
        if -4 in numbers:
            sys.exit(7)
        if -2 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        return [number * number + self._added for number in numbers]


CHUNKS = [list(range(at, at + at % 5)) for at in range(200)]


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_the_order_of_the_chunks(count):
    with Workers(count, Squares, 7) as workers:
        assert list(workers.map(iter(CHUNKS))) == list(map(Squares(7), CHUNKS))


def test_only_a_few_chunks_are_read_ahead():
    read = []
    chunks = (read.append(at) or [at] for at in range(1000))
    with Workers(2, Squares, 0) as workers:
        results = workers.map(chunks)
        assert next(results) == [0]
        assert len(read) <= 6


def test_a_mistake_is_raised_here():
    with Workers(2, Squares, 0) as workers, pytest.raises(UserError, match="numbers=-1: has no square here"):
        list(workers.map([[1], [-1], [2]]))


@pytest.mark.parametrize(("number", "text"), [(-3, "Difficult: a and b"), (-4, "SystemExit: 7")])
def test_any_other_end_is_told_by_name_and_text(number, text):
    with Workers(2, Squares, 0) as workers, pytest.raises(RuntimeError, match=text):
        list(workers.map([[n] for n in range(20)] + [[number]] * 4))


def test_all_processes_may_die_and_nobody_waits_for_ever():
    with Workers(2, Squares, 0) as workers, pytest.raises(RuntimeError, match="died"):
        list(workers.map([[-2]] * 20))


def test_a_process_that_dies_ends_the_work():
    with Workers(2, Squares, 0) as workers, pytest.raises(RuntimeError, match=r"prepares data died \(-9\)"):
        list(workers.map([[1], [-2], [2]]))


def test_nobody_is_left_behind():
    with Workers(2, Squares, 0) as workers:
        processes = workers._all
    assert [process.returncode for process in processes] == [-9, -9]


@pytest.fixture
def chats(tmp_path) -> Path:
    rows = [{"prompt": f"q{n} <|im_end|>", "completion": "a" * (n % 50)} for n in range(1500)]
    path = tmp_path / "chats.jsonl"
    lines = [*(json.dumps(row) for row in rows if row["completion"]), "no json"]
    path.write_text("\n".join(lines[:700] + lines[-1:] + lines[700:-1]) + "\n")
    return path


def prepared(chats: Path, processes: int, *words: str) -> Prepared:
    here = (f"data.path={chats}", f"run_root={chats.parent}/{processes}", "model.architecture.vocabulary_size=512")
    return prepare(compose("data=jsonl", *here, f"data.processes={processes}", *words))


def test_prepared_data_is_the_same_to_the_byte(chats, ftx_log):
    words = ("data.on_bad_row=skip", "data.max_length=40", "data.too_long=split")
    one, three = (prepared(chats, processes, *words) for processes in (1, 3))
    assert one.folder.name == three.folder.name
    assert one.counts == three.counts
    for name in ("tokens.arrow", "train.arrow", "evaluation.arrow", "held_out.npy"):
        assert (one.folder / name).read_bytes() == (three.folder / name).read_bytes()
    assert list(one.held_out) == list(three.held_out)
    warnings = [line for line in ftx_log.lines if "control tokens" in line]
    assert len(warnings) == 2 and warnings[0] == warnings[1]


def test_a_bad_row_is_told_in_the_same_words(chats):
    said = []
    for processes in (1, 3):
        with pytest.raises(UserError) as caught:
            prepared(chats, processes)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert said[0].startswith(f"{chats}:701: not valid JSON: ")


def test_small_sets_are_for_one_process_and_large_ones_for_all_processors():
    data = compose("data=jsonl", "data.path=x.csv").data
    assert processes_for(data, many=False) == 1
    assert processes_for(data, many=True) == min(processors(), 32)
    assert processes_for(compose("data=jsonl", "data.path=x.csv", "data.processes=5").data, many=False) == 5


@pytest.mark.parametrize("read", [0, 10, -10], ids=["nothing", "half of what to make", "half a chunk"])
def test_a_parent_that_dies_leaves_quiet_processes(read):
    said = pickle.dumps((sys.path, Squares.__module__, Squares.__qualname__, (7,))) + pickle.dumps(CHUNKS[4])
    process = subprocess.Popen([sys.executable, "-c", START], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert process.communicate(said[:read]) == (b"", b"")
    assert process.returncode == 0


def test_so_does_one_that_dies_before_the_answer():
    said = pickle.dumps((sys.path, Squares.__module__, Squares.__qualname__, (7,))) + pickle.dumps(CHUNKS[4])
    process = subprocess.Popen([sys.executable, "-c", START], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    process.stdout.close()
    assert process.communicate(said)[1] == b"this must not get between the answers\n"
    assert process.returncode == 0
