"""The same endpoint by vLLM's own server, which loads a model from disk: the command that this process becomes."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from ftx.chatting.serving import LOOPBACK
from ftx.config.schema import RunConfig
from ftx.errors import UserError
from ftx.run_folder import RunFolder

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# Of --max-lora-rank: vLLM takes no others.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def become_vllm(folder: RunFolder | None, run: RunConfig, name: str, port: int) -> None:
    """Returns never; raises UserError without the package, or a model that lies nowhere on disk."""
    if find_spec("vllm") is None:
        raise UserError("--engine vllm: needs the vllm package and a GPU; pip install 'ftx[vllm]', or leave it out")
    os.execv(sys.executable, vllm_command(folder, run, name, port))


def vllm_command(folder: RunFolder | None, run: RunConfig, name: str, port: int) -> list[str]:
    """An adapter is served under ``name`` beside its base, a whole model alone."""
    trained = folder.model if folder is not None and folder.model.is_dir() else None
    adapter = Path(run.model.adapter) if run.model.adapter else None
    if trained is not None and (trained / "adapter_config.json").is_file():
        adapter = trained
    if run.model.weights == "random" and (trained is None or adapter is not None):
        raise UserError(
            f"--engine vllm: reads {name} from disk, and its random base is not there; leave --engine vllm out, or "
            "merge it first: python -m ftx.export RUN merge"
        )
    if run.method.name == "qlora" and adapter is not None:
        raise UserError(
            f"--engine vllm: would put the adapter of {name} on its base as it is, not in the 4 bits that it was "
            f"trained on; leave --engine vllm out, or merge it, python -m ftx.export {name} merge, and serve "
            "exports/merged/"
        )
    whole = trained is not None and adapter is None
    options = {
        "--model": str(trained if whole else run.model.name),
        "--served-model-name": name if adapter is None else f"{name}-base",
        "--host": LOOPBACK,
        "--port": str(port),
        "--dtype": DTYPES[run.hardware.precision],
    }
    if not whole:
        options["--revision"] = run.model.revision
    if trained is not None:
        options |= {"--tokenizer": str(trained), "--chat-template": str(trained / "chat_template.jinja")}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *sum(options.items(), ())]
    if adapter is not None:
        command += ["--enable-lora", "--max-lora-rank", _room_for(adapter), "--lora-modules", f"{name}={adapter}"]
    return command


def _room_for(adapter: Path) -> str:
    """The smallest that vLLM takes for an adapter of this rank."""
    rank = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    fitting = [known for known in RANKS if known >= rank]
    if not fitting:
        raise UserError(
            f"--engine vllm: takes adapters of a rank up to {RANKS[-1]}, and {adapter} has {rank}; leave --engine vllm "
            "out, or merge it first: python -m ftx.export RUN merge"
        )
    return str(fitting[0])
