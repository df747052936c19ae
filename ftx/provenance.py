"""Where a run came from: code, packages, data, machine."""

import platform
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ftx.environment import CHECKOUT
from ftx.writing import now

# fmt: off
PACKAGES = (
    "torch", "transformers", "tokenizers", "peft", "accelerate", "datasets", "deepspeed", "bitsandbytes",
    "liger-kernel", "flash-attn", "mlflow", "hydra-core", "omegaconf", "submitit", "numpy", "pyarrow",
)
# fmt: on


def describe_provenance(data_fingerprint: str, model_fingerprint: str) -> dict[str, Any]:
    """What provenance.json holds. ``dirty_diff`` is what was not committed when the run began."""
    return {
        "created": now(),
        "commit": _git("rev-parse", "HEAD"),
        "dirty_diff": _git("diff", "HEAD"),
        "python": sys.version.split()[0],
        "packages": installed_packages(),
        "data_fingerprint": data_fingerprint,
        "model_fingerprint": model_fingerprint,
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "processor": _processor(),
    }


def installed_packages() -> dict[str, str]:
    """The versions of those that a result may depend on."""
    return {name: found for name in PACKAGES if (found := _installed(name))}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
