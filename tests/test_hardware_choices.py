"""conf/hardware: its figures are those that ftx measures against."""

import pytest

from ftx.config.compose import compose
from ftx.environment import CHECKOUT
from ftx.throughput import known_peak

# Choice → what CUDA calls the device.
NAMES = {
    "1xRTX4070Ti": "NVIDIA GeForce RTX 4070 Ti",
    "1xRTX4090": "NVIDIA GeForce RTX 4090",
    "1x32GB": "NVIDIA GeForce RTX 5090",
    "1xGB10": "NVIDIA GB10",
    "1xA100": "NVIDIA A100-SXM4-80GB",
    "1xH100": "NVIDIA H100 80GB HBM3",
    "1xH200": "NVIDIA H200",
    "8xH100": "NVIDIA H100 80GB HBM3",
    "8xH200": "NVIDIA H200",
    "8x8xH100": "NVIDIA H100 80GB HBM3",
}
# On their boxes, in 10⁹ bytes; CUDA reports a little less.
GIGABYTES = {"1xRTX4070Ti": 12, "1xRTX4090": 24, "1x32GB": 32, "1xGB10": 128, "1xA100": 80, "1xH100": 80, "1xH200": 141}


def test_every_choice_is_looked_at():
    assert {file.stem for file in (CHECKOUT / "conf/hardware").glob("*.yaml")} == {*NAMES, "cpu"}


@pytest.mark.parametrize("choice", NAMES)
def test_a_plan_and_a_measurement_know_the_same_peaks(choice):
    tflops = compose(f"hardware={choice}", "schedule.global_batch_size=64").hardware.tflops
    known = known_peak(NAMES[choice])
    assert (tflops.half, tflops.tf32, tflops.single) == (known.half, known.tf32, known.single)


@pytest.mark.parametrize("choice", NAMES)
def test_devices_memory_and_links(choice):
    hardware = compose(f"hardware={choice}", "schedule.global_batch_size=64").hardware
    *nodes, devices = choice.split("x")[:-1]
    assert (hardware.nodes, hardware.gpus_per_node) == (int(nodes[0]) if nodes else 1, int(devices))
    assert hardware.processes_per_node == hardware.gpus_per_node
    assert (hardware.precision, hardware.micro_batch) == ("bf16", 1)
    one = f"1x{choice.split('x')[-1]}"
    sold = GIGABYTES[one] * (1e9 / 2**30 if GIGABYTES[one] > 100 else 1.0)
    assert 0.96 * sold < hardware.memory_gib <= 1.07 * sold
    assert hardware.bandwidth_gb_s
    assert hardware.host_memory_gib
    assert (hardware.interconnect_gb_s is not None) == (hardware.gpus_per_node > 1)
    assert hardware.unified_memory == (choice == "1xGB10")
