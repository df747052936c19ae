"""The least time of a step: bytes counted part by part, as they have to move, and what a plan makes of it."""

import pytest

from ftx.config.compose import compose
from ftx.planning.exchange import exchanged_by_all, micro_batches, slowest_of
from ftx.planning.report import plan_of
from ftx.planning.states import parameters_of
from ftx.planning.text import describe

QWEN3_4B = 4_022_468_096
SLOW = 1e-3


def run_of(*words: str):
    return compose("model=qwen3_4b", "data=ag_news", *words)


def whole(*words: str) -> float:
    run = run_of(*words)
    return exchanged_by_all(run, parameters_of(run, run.model.architecture))


def got(nodes: int, devices: int) -> tuple[float, float]:
    """What a device gets of one gathered byte for each part: (within its node, from others), by whose part it is.

    Each part from another node comes to one of the node's devices, in turn, and to the others from that one.
    """
    within, from_nodes = 0, 0
    for owner in range(1, nodes * devices):
        node, place = divmod(owner, devices)
        if node and place == 0:
            from_nodes += 1
        else:
            within += 1
    return within / (nodes * devices), from_nodes / (nodes * devices)


# Bytes of each parameter that all devices together gather or sum in a step of 4 micro-batches. Gradients: 4 bytes,
# once or in each of them; weights: 2 bytes, once, or twice in each of them. What DDP sums everybody gets whole: twice.
BY_HAND = {
    "ddp": 2 * 4,
    "zero1": 4 + 2,
    "zero2": 4 * 4 + 2,
    "zero3": 4 * (2 + 2 + 4),
    "fsdp": 4 * (2 + 2) + 4,
}


@pytest.mark.parametrize("strategy", BY_HAND)
def test_what_a_strategy_exchanges(strategy):
    found = whole("hardware=8xH100", f"hardware.strategy={strategy}", "schedule.global_batch_size=32")
    assert found == BY_HAND[strategy] * QWEN3_4B


def test_one_process_exchanges_nothing_and_adapters_little():
    assert whole("hardware=1xH100") == 0
    run = run_of("hardware=8xH100", "method=lora", "hardware.strategy=ddp")
    trained = plan_of(run).trained
    assert exchanged_by_all(run, parameters_of(run, run.model.architecture)) == 8 * trained < 0.1 * QWEN3_4B


@pytest.mark.parametrize(("nodes", "devices"), [(1, 8), (2, 4), (8, 8), (4, 1)])
@pytest.mark.parametrize("slow", ["interconnect", "network"])
def test_each_link_takes_the_parts_that_have_to_cross_it(nodes, devices, slow):
    words = (
        *("hardware=8x8xH100", f"hardware.nodes={nodes}", "schedule.global_batch_size=64", "hardware.strategy=zero1"),
        *(f"hardware.gpus_per_node={devices}", f"hardware.processes_per_node={devices}"),
        *("hardware.bandwidth_gb_s=1e9", "hardware.interconnect_gb_s=1e9", "hardware.network_gb_s=1e9"),
    )
    run = run_of(*words, f"hardware.{slow}_gb_s={SLOW}")
    bound = slowest_of(run, run.model.architecture, parameters_of(run, run.model.architecture))
    share = got(nodes, devices)[0 if slow == "interconnect" else 1]
    if share:
        assert bound.seconds == pytest.approx(share * 6 * QWEN3_4B / (SLOW * 1e9))
    else:
        assert bound.seconds < 1


def test_memory_is_read_twice_a_micro_batch_and_by_the_optimizer():
    """One process in pure bf16: weights, gradients and two moments of 2 bytes; a tied embedding is the head too."""
    run = run_of("hardware=1xH100", "method.master_weights=none", "hardware.micro_batch=2")
    assert micro_batches(run) == 4
    bound = slowest_of(run, run.model.architecture, parameters_of(run, run.model.architecture))
    by_hand = QWEN3_4B * (4 * 2 * 2 + 2 + 2 * 4)
    assert bound.seconds == pytest.approx(by_hand / 3350e9)


def test_a_plan_takes_the_longest_and_says_so():
    words = ("hardware=8xH100", "schedule.global_batch_size=8")
    free, tied = (run_of(*words, *more) for more in ((), ("hardware.interconnect_gb_s=10",)))
    quick, slow = plan_of(free), plan_of(tied)
    bound = slowest_of(tied, tied.model.architecture, parameters_of(tied, tied.model.architecture))
    assert slow.time.hours == pytest.approx(slow.work.steps * bound.seconds / 3600)
    assert slow.time.hours > 2 * quick.time.hours
    assert "bound by what each device gets within its node, 21.1 GB a step at 10 GB/s" in describe(slow)
    assert "bound by" not in describe(plan_of(compose("experiment=jupyter_agent")))
