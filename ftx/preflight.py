"""What only this machine can tell about a run: checked before anything heavy is imported."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ftx.config.schema import RunConfig
from ftx.data.files import check_first_row
from ftx.data.fingerprint import cache_folder
from ftx.data.formats import to_conversation
from ftx.data.rows import BadRow
from ftx.environment import visible_gpus
from ftx.errors import UserError


def check_here(run: RunConfig) -> None:
    """Raise UserError for what would stop the run on this machine: hardware, folders, files, the first data row."""
    check_hardware(run)
    check_writable("run_root", Path(run.run_root))
    if run.data.cache:
        check_writable("data.cache", cache_folder(run))
    check_tracking(run)
    check_model_folder(run)
    if run.data.source == "jsonl":
        path = Path(str(run.data.path))
        row = check_first_row(path)
        try:
            if isinstance(row, BadRow):
                raise row
            to_conversation(row, path)
        except BadRow as bad:
            if run.data.on_bad_row == "error":
                raise UserError(f"{bad}; mend it, or skip such rows with data.on_bad_row=skip") from bad


def check_hardware(run: RunConfig) -> None:
    hardware = run.hardware
    ranks = hardware.nodes * hardware.processes_per_node
    if hardware.device == "cpu":
        if ranks > 1:
            raise UserError(f"hardware: {ranks} processes asked for, and launcher=local starts one for each run")
        return
    gpus = count_gpus()
    wanted = f"{hardware.nodes} × {hardware.gpus_per_node} {hardware.gpu or 'GPU'}"
    here = f"this machine has {gpus or 'no'} GPU"
    if gpus >= hardware.gpus_per_node and hardware.nodes == 1:
        here += ", but runs are computed by one process on the CPU so far"
    raise UserError(f"hardware asks for {wanted}; {here}: look at the run with --cfg job, or start it with hardware=cpu")


def count_gpus() -> int:
    """NVIDIA GPUs that this process may use, without importing torch."""
    allowed = visible_gpus()
    if allowed is not None:
        return len(allowed)
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return len(re.findall(r"^GPU \d+", listed.stdout, re.MULTILINE))


def check_writable(key: str, folder: Path) -> None:
    """Make the folder and try a file in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{key}={folder}: cannot write there ({error.strerror}); choose another folder") from error


def check_tracking(run: RunConfig) -> None:
    if run.tracking.uri.startswith("sqlite:///"):
        file = Path(run.tracking.uri.removeprefix("sqlite:///"))
        if file.is_dir():
            raise UserError(f"tracking.uri={run.tracking.uri}: is a folder, not a SQLite file")
        check_writable("tracking.uri: its folder", file.absolute().parent)


def check_model_folder(run: RunConfig) -> None:
    name = run.model.name
    if run.model.weights == "random" or name is None:
        return
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"model.name={name}: no config.json in this folder; give one in Hugging Face layout")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"model.name={name}: no such folder")
