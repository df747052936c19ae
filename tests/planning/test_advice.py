"""Advice of ``python -m ftx.plan``: whoever follows it gets what it promises, whatever else an experiment says."""

import subprocess
import sys
from functools import partial

import pytest

from ftx.config.compose import compose
from ftx.config.schema import RunConfig
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.plan import followed
from ftx.planning.machines import machines
from ftx.planning.memory import GIB, host_memory_of, memory_of
from ftx.planning.report import Plan, plan_of
from ftx.planning.text import describe

PUBLISHED = sorted(
    file.stem for file in (CHECKOUT / "experiments").glob("*.yaml") if "override /hardware" in file.read_text()
)
REFUSED = {
    ("ag_news", "8xH100"): "say method.master_weights=fp32",
    ("tulu3_8b_debug", "8xH100"): "try schedule.global_batch_size=8",
}
PLACES = ("1xRTX4070Ti", "1xRTX4090", "1xGB10", "1xH100", "8xH100")
ODD = {
    "a device's memory is said": ("hardware.memory_gib=20",),
    "a strategy is said": ("hardware=8xH100", "hardware.strategy=ddp", "hardware.memory_gib=30"),
    "nodes are said": (
        "hardware=8xH100", "hardware.nodes=2", "hardware.memory_gib=10", "schedule.global_batch_size=16",
    ),
    "a batch that other machines cannot share": ("hardware.memory_gib=20", "schedule.global_batch_size=4"),
    "rounding is said": (
        "hardware=1xRTX4090", "method.master_weights=none", "method.stochastic_rounding=true",
    ),
}  # fmt: skip


def is_kept(words: tuple[str, ...], planned: Plan) -> None:
    """Each way out, followed in real words, fits and takes the bytes that it promises."""
    for way in planned.ways_out:
        after = plan_of(compose(*words, *way.words))
        assert after.fits, way
        assert after.memory.total == pytest.approx(way.total), way


def planned(*words: str, tried: bool = False) -> Plan:
    return plan_of(compose(*words), follow=partial(followed, words, None) if tried else None)


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("experiment", PUBLISHED)
def test_what_is_promised_is_what_is_got_for_every_experiment(experiment, place):
    """Without trying: what advice expects of composing is so."""
    words = (f"experiment={experiment}", f"hardware={place}")
    if (experiment, place) in REFUSED:
        with pytest.raises(UserError, match=REFUSED[experiment, place]):
            planned(*words)
        return
    found = planned(*words)
    assert found.ways_out or found.fits
    is_kept(words, found)


@pytest.mark.parametrize("case", ODD)
def test_what_the_words_say_holds_on_other_machines_too(case):
    words = ("model=qwen3_4b", "data=ag_news", "hardware=1xH100", *ODD[case])
    found = planned(*words, tried=True)
    assert found.fits is False
    assert found.ways_out
    is_kept(words, found)


def test_an_experiments_strategy_stays_on_the_machine_that_is_advised():
    words = ("experiment=olmo2_32b", "hardware=1xH100")
    found = planned(*words, tried=True)
    assert found.ways_out[0].words == ("hardware=8xH100",)
    assert compose(*words, *found.ways_out[0].words).hardware.strategy == "zero3"
    is_kept(words, found)


def test_adapters_get_their_32_bits_back():
    words = ("experiment=ag_news", "hardware=1xRTX4090")
    found = planned(*words, tried=True)
    assert ("method=lora", "method.master_weights=fp32") in [way.words for way in found.ways_out]
    is_kept(words, found)


def test_advice_is_printed_as_it_is_planned():
    words = ("experiment=ag_news", "hardware=1xRTX4090")
    command = [sys.executable, "-m", "ftx.plan", *words]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for number, way in enumerate(planned(*words, tried=True).ways_out, 1):
        assert f"  {number}. {' '.join(way.words)}  → {way.total / GIB:,.2f} GiB" in printed


LONG = ("model=qwen3_4b", "data=jupyter_agent", "method=lora", "hardware.activation_checkpointing=true")
OFFLOADED = (*LONG, "hardware.activation_offload=true")


def host(run: RunConfig) -> float:
    return host_memory_of(run, run.model.architecture)


def test_what_is_offloaded_has_to_find_room_in_the_nodes_memory():
    """The inputs of all layers but two, 2,560 numbers of 2 bytes for each token, of every process on the node."""
    run = compose(*OFFLOADED, "hardware=8xH100")
    assert host(run) == 8 * 34 * 32_768 * 2560 * 2
    assert planned(*OFFLOADED, "hardware=8xH100").fits is True
    short = planned(*OFFLOADED, "hardware=8xH100", "hardware.host_memory_gib=40")
    assert short.fits is False
    assert short.memory.total < short.capacity
    assert ", and 42.50 GiB of each node's 40.00 GiB for what is offloaded: does not fit" in describe(short)


def test_offloading_is_advised_only_where_the_node_has_room():
    tight = (*LONG, "hardware=1xRTX4090", "hardware.memory_gib=20")
    offload = "hardware.activation_offload=true"
    assert any(offload in way.words for way in planned(*tight).ways_out)
    poor = planned(*tight, "hardware.host_memory_gib=4")
    assert poor.ways_out
    assert not any(offload in way.words for way in poor.ways_out)


def test_memory_that_is_shared_with_the_host_is_not_gained_by_offloading():
    both = [compose(*words, "hardware=1xGB10") for words in (LONG, OFFLOADED)]
    without, offloaded = (memory_of(run, run.model.architecture).total for run in both)
    assert offloaded == without
    assert host(both[1]) == 0


def test_machines_are_those_that_composing_chooses():
    for name, machine in machines().items():
        assert compose(f"hardware={name}", "schedule.global_batch_size=64").hardware == machine
