"""The choices of hardware that come with ftx, for advice: read without composing, which would take a second."""

from functools import cache

import yaml

from ftx.config.hardware_schema import HardwareConfig, TflopsConfig
from ftx.environment import CHECKOUT


@cache
def machines() -> dict[str, HardwareConfig]:
    """Those with GPUs, by their names."""
    files = sorted((CHECKOUT / "conf" / "hardware").glob("*.yaml"))
    values = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    return {
        name: HardwareConfig(**{**given, "tflops": TflopsConfig(**given.get("tflops", {}))})
        for name, given in values.items()
        if given["device"] == "cuda"
    }
