"""The choices of hardware that come with ftx, for advice: read without composing, which would take a second."""

from collections.abc import Iterator
from dataclasses import fields, replace
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


def larger_machines(here: HardwareConfig) -> Iterator[tuple[str, HardwareConfig]]:
    """Those with more memory in all; what words or an experiment set of ``here`` holds there too."""
    said = _said(here)
    for name, choice in machines().items():
        there = replace(choice, **said)  # type: ignore[arg-type]
        if memory_in_all(there) > memory_in_all(here):
            yield name, there


def memory_in_all(hardware: HardwareConfig) -> float:
    """GiB of all devices."""
    return (hardware.memory_gib or 0) * hardware.nodes * hardware.processes_per_node


def _said(hardware: HardwareConfig) -> dict[str, object]:
    """By what it differs from the choice that it is most alike to."""
    return min((_differences(choice, hardware) for choice in machines().values()), key=len)


def _differences(choice: HardwareConfig, hardware: HardwareConfig) -> dict[str, object]:
    keys = [item.name for item in fields(hardware)]
    return {key: getattr(hardware, key) for key in keys if getattr(hardware, key) != getattr(choice, key)}
