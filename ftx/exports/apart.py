"""A check in a process of its own, so that nothing is left in it of the one that made what is checked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ftx.environment import child_environment
from ftx.errors import ExitCode, ExportFailed, UserError
from ftx.heartbeat import beat
from ftx.processes import die_with

LOOK_SECONDS = 2.0
OUT_OF_MEMORY = -9
WAY_OUT = "export.check=false exports without a check"


def ask_apart(module: str, given: Sequence[str], what: str) -> Any:
    """What ``answer_apart`` of the module finds. Raises ExportFailed where the process fails, UserError where only the
    user can help it."""
    with TemporaryDirectory() as scratch:
        result, said = Path(scratch) / "found.json", Path(scratch) / "said.txt"
        with said.open("wb") as log:
            code = _run([sys.executable, "-m", module, *given, str(result), str(os.getpid())], log.fileno(), what)
        if code == ExitCode.FINISHED:
            return json.loads(result.read_text(encoding="utf-8"))
        last = (said.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    if code == ExitCode.USER_MISTAKE:
        raise UserError(last if WAY_OUT in last else f"{last}; {WAY_OUT}")
    if code == OUT_OF_MEMORY:
        last = f"it was killed, as where memory runs out; {WAY_OUT}"
    raise ExportFailed(f"the check of {what} did not come to an end: {last}")


def answer_apart(arguments: Sequence[str], find: Callable[..., Any]) -> ExitCode:
    """In that process, which ends with the one that started it: what ``find`` gives of the arguments, as JSON."""
    from transformers.utils.logging import disable_progress_bar

    *given, result, parent = arguments
    die_with(int(parent))
    disable_progress_bar()
    try:
        found = find(*given)
    except UserError as mistake:
        sys.stderr.write(f"{mistake}\n")
        return ExitCode.USER_MISTAKE
    Path(result).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    return ExitCode.FINISHED


def _run(command: list[str], log: int, what: str) -> int:
    """The exit code; the process ends with us."""
    process = subprocess.Popen(
        command,
        env=child_environment(torch.get_num_threads()),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        while True:
            beat(f"checking {what}")
            try:
                return process.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        process.kill()
        process.wait()
        raise
