"""Cells in a kernel in the sandbox: what they say, what persists, and what code cannot do to the notebook."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ftx.agent.cells import shown
from ftx.agent.notebook import Notebook
from ftx.config.evaluation_schema import SandboxConfig
from ftx.sandbox import Sandbox, why_no_sandbox

pytestmark = pytest.mark.skipif(bool(why := why_no_sandbox()), reason=f"no sandbox works here: {why}")

LIMITS = SandboxConfig(wall_seconds=3, memory_gib=1, processes=64, file_mib=16, disk_mib=64)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory) -> Iterator[Notebook]:
    table = tmp_path_factory.mktemp("files") / "table.csv"
    table.write_text("a,b\n1,2\n")
    with Notebook(Sandbox(LIMITS), {"table.csv": table}) as notebook:
        yield notebook


def test_a_cell_says_what_it_printed_and_its_last_value(notebook):
    cell = notebook.run("import sys, os\nprint('out')\nprint('err', file=sys.stderr)\nx = 41\nx + 1")
    assert (cell.state, cell.stdout, cell.stderr, cell.result) == ("ok", "out\n", "err\n", "42")


def test_what_another_program_prints_is_heard(notebook):
    assert "from a shell" in notebook.run("import os; os.system('echo from a shell'); None").stdout


def test_variables_persist_also_after_an_error(notebook):
    notebook.run("kept = [1, 2]")
    failed = notebook.run("1 / 0")
    assert failed.state == "error" and failed.traceback.endswith("ZeroDivisionError: division by zero")
    assert notebook.run("kept").result == "[1, 2]"


def test_the_files_are_there_to_be_read(notebook):
    assert notebook.run("open('data/table.csv').read()").result == repr("a,b\n1,2\n")


def test_a_cell_that_takes_too_long_is_interrupted_and_variables_stay(notebook):
    notebook.run("kept = 'still here'")
    slow = notebook.run("print('began')\nwhile True: pass")
    assert (slow.state, slow.stdout) == ("interrupted", "began\n")
    assert notebook.run("kept").result == "'still here'"


def test_a_kernel_that_does_not_stop_is_killed_and_started_again(notebook):
    notebook.run("kept = 1")
    deaf = notebook.run("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass")
    assert deaf.state == "killed" and "all variables are gone" in shown(deaf, 1)
    assert "NameError" in notebook.run("kept").traceback


@pytest.mark.parametrize(
    "code",
    ["import os; os._exit(0)", "import ctypes; ctypes.string_at(0)"],
    ids=["an exit", "a crash"],
)
def test_a_kernel_that_died_is_started_again(notebook, code):
    assert notebook.run(code).state == "died"
    assert notebook.run("6 * 7").result == "42"


def test_a_cell_that_kills_the_kernels_side_ends_the_notebook_and_the_next_cell_has_a_new_one(notebook):
    ended = notebook.run("import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    assert ended.state == "ended" and "started again" in shown(ended, 1)
    assert notebook.run("6 * 7").result == "42"


def test_a_notebook_over_a_limit_is_ended_and_says_which():
    code = """
import os, signal
for _ in range(14):
    if os.fork() == 0:
        kept = b"x" * (90 * 2 ** 20)
        signal.pause()
signal.pause()
"""
    with Notebook(Sandbox(replace(LIMITS, wall_seconds=60)), {}) as notebook:
        ended = notebook.run(code)
    assert (ended.state, ended.why) == ("ended", "it took more than 1 GiB of memory")


@pytest.mark.parametrize(
    "code",
    [
        "class Hostile:\n    def __repr__(self): raise BaseException('no')\nHostile()",
        "class Hostile:\n    def __repr__(self): return 'x' * 10 ** 7\nHostile()",
        "class Hostile:\n    def __repr__(self): return 7\nHostile()",
        "import sys; sys.stdout.write('\\ud800')",
        "while True: print('y' * 1000)",
    ],
    ids=["raises", "is endless", "is no text", "half a character", "output without end"],
)
def test_what_hostile_code_says_is_cut_and_the_notebook_goes_on(notebook, code):
    assert len(shown(notebook.run(code), 1)) < 40 * 10_100
    assert notebook.run("6 * 7").result == "42"


def test_a_kernel_without_its_descriptors_is_given_up(notebook):
    notebook.run("import os\nos.closerange(3, 512)")
    for _ in range(2):
        if (answered := notebook.run("6 * 7")).state == "ok":
            break
    assert answered.result == "42"


def test_messages_that_a_cell_forges_are_not_taken_for_another_cells(notebook):
    """It may write into every pipe of its sandbox; a reply has to name the cell that was asked for."""
    notebook.run("""
import glob, json
forged = json.dumps({"id": "", "state": "ok", "result": "forged"}) + "\\n{broken\\n[]\\n" + "[" * 100000 + "\\n"
for path in glob.glob("/proc/[0-9]*/fd/*"):
    try:
        with open(path, "w") as pipe:
            pipe.write(forged)
    except OSError:
        pass
""")
    assert notebook.run("6 * 7").result == "42"
