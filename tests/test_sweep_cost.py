"""What runs took, from the rows of metrics.jsonl."""

import pytest
from arms import counted

from ftx.config.hardware_schema import HardwareConfig
from ftx.sweep_cost import ArmCost, cost_table, training_cost

CPU = HardwareConfig()
TWO_NODES = HardwareConfig(device="cuda", nodes=2, gpus_per_node=8, processes_per_node=8)


def row(step: int, seconds: float, tokens: int, mfu: float | None = None, memory: float = 1.0) -> dict:
    return {
        "step": step,
        "train_loss": 1.0,
        "step_seconds": seconds,
        "total_tokens": tokens,
        "mfu": mfu,
        "memory_gib": memory,
    }


ROWS = [row(10, 2.0, 1000, 0.5), row(40, 1.0, 4000, 0.2, 3.0), {"step": 50, "epoch": 1.0, "eval_loss": 1.0}]


def test_hours_are_those_of_all_steps():
    """10 steps of 2 s, 30 of 1 s, and the last 10 as fast as those before."""
    cost = training_cost(ROWS, CPU)
    assert cost.hours == pytest.approx(60 / 3600)
    assert cost.gpu_hours is None
    assert cost.tokens_per_second == pytest.approx(4000 / 50)
    assert cost.memory_gib == 3.0


def test_gpu_hours_are_those_of_all_devices():
    cost = training_cost(ROWS, TWO_NODES)
    assert cost.gpu_hours == pytest.approx(16 * 60 / 3600)
    assert cost.mfu == pytest.approx((0.5 * 20 + 0.2 * 30) / 50)


def test_a_run_without_training_has_no_cost():
    assert training_cost([{"step": 0, "epoch": 0.0, "eval_loss": 3.0}], CPU) is None


def test_the_table_has_what_there_is():
    timed, base = counted(2, 5, 10), counted(0, 1, 10)
    timed.scores["task"]["seconds_per_item"] = {"value": 0.25, "n": 10, "ci95": [0.2, 0.3]}
    table = cost_table([ArmCost(base, None), ArmCost(timed, training_cost(ROWS, TWO_NODES))])
    assert table == (
        "| run               | training | GPU-hours | tokens/s |   MFU | memory (GiB) |     seconds_per_item |\n"
        "| ----------------- | -------: | --------: | -------: | ----: | -----------: | -------------------: |\n"
        "| schedule.epochs=0 |        — |         — |        — |     — |            — |                    — |\n"
        "| schedule.epochs=2 |   60.0 s |     0.267 |       80 | 32.0% |          3.0 | 0.250 [0.200, 0.300] |"
    )
    assert "GPU-hours" not in cost_table([ArmCost(timed, training_cost(ROWS, CPU))])
    assert cost_table([ArmCost(base, None)]) == ""
