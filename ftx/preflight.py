"""What only this machine can tell about a run: checked before anything heavy is imported."""

import re
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ftx.config.data_checks import COLUMN_ORDER, ORDERS, PLAIN_ORDERS
from ftx.config.made_up import is_made_up
from ftx.config.schema import RunConfig
from ftx.data.filters import parse_filter
from ftx.data.fingerprint import cache_folder
from ftx.data.hooks import TRANSFORMS, load_hook
from ftx.data.hub_names import check_hub_name
from ftx.data.sources import check_first_row, held_out_source, is_file, sources_of, word_of
from ftx.environment import visible_gpus
from ftx.errors import UserError
from ftx.tasks.bfcl import check_board
from ftx.tasks.math_problems import check_first_problem
from ftx.tasks.registry import check_own_tasks


def check_here(run: RunConfig) -> None:
    """Raise UserError for what would stop the run on this machine: hardware, folders, files, the first data row."""
    if run.launcher.name == "local":
        check_hardware(run)
    check_kernels(run)
    check_tracking(run)
    check_data_here(run)
    check_tasks(run)


def check_data_here(run: RunConfig) -> None:
    """The part of it that preparing the run's data needs."""
    check_writable(f"run_root={run.run_root}", Path(run.run_root))
    if run.data.cache:
        check_writable(f"data.cache={run.data.cache}", cache_folder(run))
    check_model_folder(run)
    check_first_conversations(run)


def check_first_conversations(run: RunConfig) -> None:
    """Each file is there and of its format, and its first row is a conversation; the user's functions can be loaded."""
    data = run.data
    for name in data.transforms:
        load_hook(TRANSFORMS, "data.transforms", name)
    if data.order not in PLAIN_ORDERS and not data.order.startswith(COLUMN_ORDER):
        load_hook(ORDERS, "data.order", data.order)
    held_out = held_out_source(data)
    for name, source in [*sources_of(data).items(), *([("", held_out)] if held_out else [])]:
        parse_filter(source.filter)
        if is_file(source) or is_made_up(source.path):
            check_first_row(name, source, data, cache=cache_folder(run))
        else:
            check_hub_name(word_of(name), source.path)


def check_tasks(run: RunConfig) -> None:
    """What the tasks ask about is there and can be read, and so is what they need installed."""
    evaluation = run.evaluation
    check_own_tasks(evaluation.tasks)
    if "math" in evaluation.tasks and evaluation.math.path is not None:
        if Path(evaluation.math.path).is_absolute() or is_made_up(evaluation.math.path):
            check_first_problem(evaluation.math, cache_folder(run))
        else:
            check_hub_name("evaluation.math.path", evaluation.math.path)
    if "function_calling" in evaluation.tasks and evaluation.function_calling.path is not None:
        check_board(Path(evaluation.function_calling.path))
    if "lm_eval" in evaluation.tasks and find_spec("lm_eval") is None:
        raise UserError("evaluation.tasks=[lm_eval]: lm-eval is not installed; pip install 'ftx[lm-eval]'")


def check_hardware(run: RunConfig, word: str = "hardware") -> None:
    """``word``: what the user chose it with."""
    hardware = run.hardware
    if hardware.nodes > 1:
        raise UserError(f"hardware.nodes={hardware.nodes}: launcher=local starts processes on this machine only; set 1")
    if hardware.device == "cpu":
        return
    gpus, parallel = len(list_gpus()), run.launcher.parallel
    if hardware.gpus_per_node <= gpus < parallel * hardware.gpus_per_node:
        raise UserError(
            f"launcher.parallel={parallel}: so many runs of {hardware.gpus_per_node} GPU each do not fit, this machine "
            f"has {gpus}; set it to {gpus // hardware.gpus_per_node}"
        )
    if gpus < hardware.gpus_per_node:
        raise UserError(
            f"{word} asks for {hardware.gpus_per_node} {hardware.gpu or 'GPU'}; this machine has {gpus or 'no'} GPU: "
            f"look at it with --cfg job, or start it with {word}=cpu"
        )


def check_kernels(run: RunConfig) -> None:
    if run.model.attention == "flash" and find_spec("flash_attn") is None:
        raise UserError(
            "model.attention=flash: flash-attn is not installed; pip install flash-attn, or use model.attention=auto"
        )
    if run.model.loss == "liger" and find_spec("liger_kernel") is None:
        raise UserError(
            "model.loss=liger: liger-kernel is not installed; pip install liger-kernel, or use model.loss=auto"
        )
    if run.model.kernels == "liger" and find_spec("liger_kernel") is None:
        raise UserError(
            "model.kernels=liger: liger-kernel is not installed; pip install liger-kernel, or use model.kernels=auto"
        )


def list_gpus() -> list[str]:
    """NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them, without importing torch."""
    allowed = visible_gpus()
    if allowed is not None:
        return allowed
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return re.findall(r"^GPU (\d+)", listed.stdout, re.MULTILINE)


def check_writable(word: str, folder: Path) -> None:
    """Try a file in the folder, or where the folder would be made; nothing is left behind."""
    try:
        existing = folder
        while not existing.exists():
            existing = existing.parent
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{word}: cannot write there ({error.strerror}); choose another folder") from error


def check_tracking(run: RunConfig) -> None:
    uri = run.tracking.uri
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///"))
        if file.is_dir():
            raise UserError(f"tracking.uri={uri}: is a folder, not a SQLite file; write {uri.rstrip('/')}/mlflow.db")
        check_writable(f"tracking.uri={uri}", file.absolute().parent)


def check_model_folder(run: RunConfig) -> None:
    name, adapter = run.model.name, run.model.adapter
    if run.model.weights == "random" or name is None:
        return
    if adapter and not (Path(adapter) / "adapter_config.json").is_file():
        raise UserError(f"model.adapter={adapter}: no adapter_config.json in this folder; give an adapter's folder")
    folder = Path(name).expanduser()
    if folder.is_file():
        raise UserError(f"model.name={name}: is a file; give its folder, in Hugging Face layout")
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"model.name={name}: no config.json in this folder; give one in Hugging Face layout")
        if run.model.revision != "main":
            raise UserError(
                f"model.revision={run.model.revision}: nothing in this run reads it, only models from the hub have "
                "revisions; leave it out"
            )
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"model.name={name}: no such folder; give one that exists, or a hub name (OWNER/MODEL)")
