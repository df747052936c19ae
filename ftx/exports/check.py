"""Starts the process that compares an export with the trained model, and reads what it found."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ftx.config.schema import RunConfig
from ftx.environment import child_environment
from ftx.errors import ExitCode, ExportFailed, UserError
from ftx.exports.check_memory import computing_type
from ftx.exports.check_samples import WAY_OUT, prepared_set
from ftx.exports.comparison import Findings
from ftx.heartbeat import beat
from ftx.run_folder import RunFolder

LOOK_SECONDS = 2.0
OUT_OF_MEMORY = -9


def check_can_compare(folder: RunFolder, run: RunConfig) -> None:
    """Raise UserError for what a check would fail of after hours of merging: memory, and what was trained on."""
    computing_type(run)
    prepared_set(folder, run)


def compare_in_a_process(folder: RunFolder, export: str, made: Path) -> Findings:
    """Raises ExportFailed where the process fails, UserError where only the user can help it."""
    with TemporaryDirectory() as scratch:
        result, said = Path(scratch) / "found.json", Path(scratch) / "said.txt"
        command = ["ftx.exports.check_process", str(folder.path), export, str(made), str(result), str(os.getpid())]
        with said.open("wb") as log:
            code = _run([sys.executable, "-m", *command], log.fileno(), f"checking {export}")
        if code == ExitCode.FINISHED:
            return Findings.from_json(json.loads(result.read_text(encoding="utf-8")))
        last = (said.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    if code == ExitCode.USER_MISTAKE:
        raise UserError(last if WAY_OUT in last else f"{last}; {WAY_OUT}")
    if code == OUT_OF_MEMORY:
        last = f"it was killed, as where memory runs out; {WAY_OUT}"
    raise ExportFailed(f"the check of {export} did not come to an end: {last}")


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
            beat(what)
            try:
                return process.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        process.kill()
        process.wait()
        raise
