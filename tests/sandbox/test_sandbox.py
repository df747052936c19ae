"""What a sandbox is without anybody trying to get out: files, limits, and what is said where there is none."""

import os
import struct
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from ftx import sandbox
from ftx.config.evaluation_schema import SandboxConfig
from ftx.errors import UserError
from ftx.sandbox import Sandbox, bubblewrap, open_sandbox, why_no_sandbox
from ftx.sandbox.bubblewrap import python_folders
from ftx.sandbox.seccomp import seccomp_program
from ftx.sandbox.usage import memory_without_sharing, usage_of

PYTHON = [sys.executable, "-I", "-S", "-c"]
PYTHON_FOLDERS = python_folders()
needs_sandbox = pytest.mark.skipif(bool(why := why_no_sandbox()), reason=f"no sandbox works here: {why}")


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("a,b\n")
    return file


@pytest.mark.parametrize("confined", [pytest.param(True, marks=needs_sandbox), False])
def test_a_command_reads_its_files_and_writes_into_its_own_folder(table, confined):
    code = "import os; open('new', 'w').write('x'); print(open('data/table.csv').read(), sorted(os.listdir('.')))"
    outcome = Sandbox(confined=confined).run([*PYTHON, code], {"table.csv": table})
    assert outcome.stdout == "a,b\n ['.tmp', 'data', 'new']\n", outcome
    assert (outcome.returncode, outcome.ended_by) == (0, "")
    assert [file.name for file in table.parent.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("confined", [pytest.param(True, marks=needs_sandbox), False])
def test_a_command_is_given_its_input_and_its_exit_code_is_told(confined):
    outcome = Sandbox(confined=confined).run([*PYTHON, "import sys; sys.exit(int(input()))"], stdin=b"7\n")
    assert outcome.returncode == 7


@pytest.mark.parametrize("confined", [pytest.param(True, marks=needs_sandbox), False])
def test_a_command_that_takes_too_long_is_ended(confined):
    limits = replace(SandboxConfig(), wall_seconds=0.3)
    outcome = Sandbox(limits, confined).run(["sleep", "100000"])
    assert outcome.ended_by == "it worked for more than 0.3 seconds"


@pytest.mark.parametrize("confined", [pytest.param(True, marks=needs_sandbox), False])
def test_nothing_of_this_environment_is_seen(monkeypatch, confined):
    monkeypatch.setenv("HF_TOKEN", "secret")
    outcome = Sandbox(confined=confined).run([*PYTHON, "import os; print('HF_TOKEN' in os.environ)"])
    assert outcome.stdout == "False\n"


@needs_sandbox
def test_the_packages_of_this_python_are_there():
    outcome = Sandbox().run([sys.executable, "-I", "-c", "import numpy; print(numpy.arange(3).sum())"])
    assert outcome.stdout == "3\n", outcome


@needs_sandbox
def test_a_python_below_tmp_is_there_and_nothing_can_be_written_beside_it(monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder, "module.py").write_text("answer = 42")
        Path(folder).chmod(0o755)
        monkeypatch.setattr(bubblewrap, "python_folders", lambda: (*PYTHON_FOLDERS, Path(folder)))
        read = f"import sys; sys.path.append({folder!r}); import module; print(module.answer, flush=True)"
        outcome = Sandbox().run([*PYTHON, f"{read}; open('/tmp/new', 'w')"])
    assert outcome.stdout == "42\n", outcome
    assert "Read-only file system" in outcome.stderr


@needs_sandbox
def test_folders_that_root_alone_can_enter_are_shown(tmp_path):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "file").write_text("inside")
    (tmp_path / "closed").chmod(0o700)
    outcome = Sandbox().run(["cat", "data/file"], {"file": tmp_path / "closed" / "file"})
    assert outcome.stdout == "inside"


@needs_sandbox
def test_nothing_is_left_of_a_sandbox(tmp_path, monkeypatch):
    made = []
    real = sandbox.tempfile.mkdtemp
    monkeypatch.setattr(sandbox.tempfile, "mkdtemp", lambda **names: made.append(real(**names)) or made[-1])
    open_before = set(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        Sandbox().run(["true"])
    assert len(made) == 3 and not any(map(os.path.exists, made))
    assert len(set(Path("/proc/self/fd").iterdir()) - open_before) <= 1  # the listing's own


def test_where_there_is_no_bubblewrap_code_is_refused_and_the_way_out_is_named(monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"here there is no bwrap; install .* or say evaluation\.unsafe_local=true"):
        open_sandbox(SandboxConfig())
    assert not open_sandbox(SandboxConfig(), unsafe_local=True).confined


@pytest.mark.parametrize(
    ("program", "said"), [("/bin/false", "exit code 1"), ("/bin/cat", "cat: unrecognized option '--unshare-user'")]
)
def test_a_bubblewrap_that_does_not_work_is_told_with_its_own_words(monkeypatch, program, said):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: program if name == "bwrap" else name)
    assert why_no_sandbox().startswith(f"bubblewrap does not work ({said}") or "Try" in why_no_sandbox()


def test_shared_memory_of_a_tree_counts_once():
    """40 MiB in a parent, seen by three children: 160 MiB as they are resident, 40 as they are."""
    code = """
import os, signal
kept = b"x" * (40 * 2 ** 20)
for _ in range(3):
    if os.fork() == 0:
        sum(kept[::4096]); signal.pause()
print("ready", flush=True); signal.pause()
"""
    with subprocess.Popen([*PYTHON, code], stdout=subprocess.PIPE, start_new_session=True) as process:
        process.stdout.readline()
        usage = usage_of(process.pid)
        whole = memory_without_sharing(usage)
        os.killpg(process.pid, 9)
    assert len(usage.pids) == usage.threads == 4
    assert usage.memory > 155 * 2**20
    assert 40 * 2**20 < whole < 80 * 2**20


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_of_the_filter_lands_inside_it(machine):
    program = seccomp_program(machine)
    instructions = list(struct.iter_unpack("=HBBI", program))
    for at, (code, if_true, if_false, _) in enumerate(instructions):
        if code & 0x07 == 0x05:
            assert at + 1 + max(if_true, if_false) < len(instructions)
    assert instructions[-1][0] == 0x06
