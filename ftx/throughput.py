"""How fast a run goes, and how fast its devices could."""

import logging
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ftx.config.hardware_schema import HardwareConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Peak:
    """Dense TFLOP/s as the maker states them: 16-bit floats and TF32 on tensor cores, and plain 32-bit floats."""

    half: float
    tf32: float
    single: float


# Device name as CUDA gives it → figures without sparsity (a data sheet that gives them with sparsity: halved).
PEAKS: dict[str, Peak] = {
    # "NVIDIA H100 Tensor Core GPU" data sheet and architecture white paper; H200 and GH200 have the same die.
    r"NVIDIA (H100 80GB HBM3|H200|GH200 480GB|GH200 144G HBM3e)": Peak(989.4, 494.7, 66.9),
    r"NVIDIA H100 PCIe": Peak(756.0, 378.0, 51.2),
    r"NVIDIA (H100|H200) NVL": Peak(835.5, 417.5, 60.0),
    # "NVIDIA A100 Tensor Core GPU" data sheet.
    r"NVIDIA A100(-SXM4-40GB|-SXM4-80GB|-PCIE-40GB| 80GB PCIe)": Peak(312.0, 156.0, 19.5),
    # "NVIDIA L40S" data sheet.
    r"NVIDIA L40S": Peak(362.05, 183.0, 91.6),
    # "NVIDIA Ada GPU Architecture" white paper, appendix A; 16-bit floats summed in 32 bits, as PyTorch does.
    r"NVIDIA GeForce RTX 4090": Peak(165.2, 82.6, 82.6),
    r"NVIDIA GeForce RTX 4070 Ti": Peak(80.2, 40.1, 40.1),
    # "NVIDIA RTX Blackwell GPU Architecture" white paper, appendix A; summed in 32 bits too.
    r"NVIDIA GeForce RTX 5090": Peak(209.5, 104.8, 104.8),
    # No data sheet has them: an eighth of the petaFLOP/s of sparse 4-bit floats that NVIDIA states, half of that, and
    # 6,144 cores at 2.5 GHz.
    r"NVIDIA GB10": Peak(125.0, 62.5, 31.0),
    # "NVIDIA HGX B200" data sheet, an eighth of it.
    r"NVIDIA B200": Peak(2250.0, 1125.0, 75.0),
}


def peak_flops(hardware: HardwareConfig) -> float | None:
    """FLOP/s of one device at most; None on a CPU, and where the device is not known, which is said."""
    if hardware.peak_tflops:
        return hardware.peak_tflops * 1e12
    if hardware.device == "cpu":
        return None
    name = torch.cuda.get_device_name()
    known = known_peak(name)
    if known is None:
        log.warning("mfu stays empty: nobody told the peak of %r; hardware.peak_tflops=… does", name)
        return None
    if hardware.precision != "fp32":
        return known.half * 1e12
    return (known.tf32 if torch.backends.cuda.matmul.fp32_precision == "tf32" else known.single) * 1e12


def known_peak(device: str) -> Peak | None:
    """By the whole name: a part of a device (MIG), or a laptop's, is another one."""
    return next((peak for pattern, peak in PEAKS.items() if re.fullmatch(pattern, device)), None)


class StepClock:
    """Seconds and tokens since the last metrics row of this process."""

    def __init__(self) -> None:
        self.restart(0, 0)

    def restart(self, step: int, tokens: int) -> None:
        self._since, self.step, self._tokens = time.perf_counter(), step, tokens

    def read(self, step: int, tokens: int) -> tuple[float, float]:
        """(seconds a step, tokens a second) since the last restart, and restart."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        steps, seen = max(step - self.step, 1), tokens - self._tokens
        self.restart(step, tokens)
        return seconds / steps, seen / seconds

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens within it takes no time."""
        begin = time.perf_counter()
        yield
        self.leave_out(time.perf_counter() - begin)

    def leave_out(self, seconds: float) -> None:
        """Time that was not spent on training steps, such as an evaluation."""
        self._since += seconds


def peak_memory_gib() -> float:
    """The most memory this process has held so far: allocated on the GPU where one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
