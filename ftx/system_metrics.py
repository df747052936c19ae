"""What the machine was doing while a run trained: rows of ``system.jsonl``, and MLflow's system metrics tab.

Rows are taken where training rows are written, by the same thread: nothing runs on its own, or is left over.
"""

import logging
import time

import psutil
import torch

from ftx import metrics_log
from ftx.run_folder import RunFolder

log = logging.getLogger(__name__)

# Training rows may come many a second.
SECONDS = 5.0


class SystemMetrics:
    """Appends a row now and then; CPU figures are means since the row before."""

    def __init__(self, folder: RunFolder, *, enabled: bool) -> None:
        self._folder, self._enabled = folder, enabled
        self._process, self._sampled = psutil.Process(), 0.0
        self._has_nvml = True
        # The first call only begins to measure.
        self._process.cpu_percent()
        psutil.cpu_percent()

    def sample(self, step: int) -> None:
        """A row for ``step``, unless the last one is younger than SECONDS."""
        if not self._enabled or time.monotonic() - self._sampled < SECONDS:
            return
        self._sampled = time.monotonic()
        row = {
            "step": step,
            # Of all processors of the machine; of the process, 100 for each processor it keeps busy.
            "system/cpu_percent": psutil.cpu_percent(),
            "system/process_cpu_percent": self._process.cpu_percent(),
            "system/process_memory_gib": self._process.memory_info().rss / 2**30,
            "system/free_memory_gib": psutil.virtual_memory().available / 2**30,
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            free, total = torch.cuda.mem_get_info()
            row["system/gpu_memory_gib"] = (total - free) / 2**30
            row |= self._from_nvml()
        metrics_log.append(self._folder, self._folder.system, row)

    def _from_nvml(self) -> dict[str, float]:
        """Utilisation and power of this process's GPU, as far as NVIDIA's library is here."""
        if not self._has_nvml:
            return {}
        try:
            return {
                "system/gpu_utilization_percent": torch.cuda.utilization(),
                "system/gpu_power_watts": torch.cuda.power_draw() / 1000,
            }
        except Exception as error:
            log.info("no GPU utilisation in the system metrics: %s", str(error).splitlines()[0])
            self._has_nvml = False
            return {}
