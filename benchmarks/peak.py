"""The most memory that a piece of work takes above what was held when it began."""

from pathlib import Path

import torch

_BEGAN = {"bytes": 0}


def reset_peak(device: str) -> None:
    """What is held now is the level from which ``peak_since`` counts."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        _BEGAN["bytes"] = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's own peak counts from now
        _BEGAN["bytes"] = _status("VmRSS")


def peak_since(device: str) -> int:
    """Bytes."""
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - _BEGAN["bytes"]
    return _status("VmHWM") - _BEGAN["bytes"]


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}: peak memory is measured on Linux only")
