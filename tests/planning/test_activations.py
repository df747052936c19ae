"""What a plan says that layers keep and need, against autograd itself and against PyTorch's memory tracker."""

import pytest
from layer_memory import saved_by_a_layer, tracked_peak

from ftx import chunked_loss, head
from ftx.config.compose import compose
from ftx.config.model_schema import ArchitectureConfig
from ftx.planning import logits
from ftx.planning.activations import Layer
from ftx.planning.memory import memory_of
from ftx.planning.numbers import numbers_of
from ftx.planning.parameters import adapter_weights, layer_weights
from ftx.planning.states import count

TOKENS = 37
METHODS = {
    "fp32 masters": (),
    "pure bf16": ("method.master_weights=none",),
    "fp32": ("hardware.precision=fp32",),
    "adapters": ("method=lora", "method.lora.rank=6"),
    "adapters with dropout": ("method=lora", "method.lora.rank=6", "method.lora.dropout=0.1"),
    "adapters of two kinds": ("method=lora", "method.lora.rank=6", "method.lora.targets=[q_proj,v_proj]"),
    "short adapters": ("method=lora", "method.lora.rank=6", "method.master_weights=none"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama", "olmo2"])
def test_a_layer_keeps_so_many_bytes_for_its_backward_pass(family, method):
    """To the byte; under autocast shortened copies of its weights are among them."""
    run = compose("hardware=1xH100", "model.attention=auto", *METHODS[method])
    sizes = {"vocabulary_size": 500, "hidden_size": 80, "intermediate_size": 208, "layers": 2}
    architecture = ArchitectureConfig(family=family, heads=8, key_value_heads=4, head_dim=10, **sizes)
    expected = TOKENS * Layer(run, architecture, TOKENS).saved_by_token()
    if numbers_of(run).casts:
        linear = [one for one in layer_weights(architecture) if one.kind == "linear"]
        lora = run.method.lora
        adapters = adapter_weights(architecture, lora.rank, list(lora.targets), dora=False)
        expected += 2 * (count(linear) if run.method.name == "full" else count(adapters) // 2)
    assert saved_by_a_layer(run, architecture, TOKENS) == expected


# One rank of each model × method of the experiments, and what else people do with these models.
FULL_SIZE = {
    "jupyter_agent": (),
    "jupyter_agent at 4,096 tokens on one GPU": (
        "hardware=1xH100", "data.max_length=4096", "hardware.activation_checkpointing=false",
    ),
    "deepseek_r1_math_science": (),
    "ag_news": (),
    "glaive_function_calling": (),
    "glaive_function_calling without checkpointing": ("hardware.activation_checkpointing=false",),
    "tulu3_8b": (),
    "olmo2_7b": (),
    "olmo2_13b": (),
    "olmo2_32b": (),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("case", FULL_SIZE)
def test_a_rank_of_full_size_within_a_tenth(case):
    """Activations, logits and what else comes and goes, but for what is exchanged with other ranks."""
    run = compose(f"experiment={case.split()[0]}", *FULL_SIZE[case])
    architecture = run.model.architecture
    planned = memory_of(run, architecture)
    alone = planned.activations + planned.logits + planned.working
    tracked = tracked_peak(run, architecture, int(run.hardware.micro_batch) * run.data.max_length)
    print(f"\n{case}: planned {alone / 2**30:.2f} GiB, tracked {tracked / 2**30:.2f} GiB, {alone / tracked - 1:+.1%}")
    assert alone == pytest.approx(tracked, rel=0.1)


def test_the_bounds_of_the_loss_are_those_of_the_code():
    assert (logits.PLAIN_UP_TO, logits.CHUNK_BYTES) == (head.PLAIN_UP_TO, chunked_loss.CHUNK_BYTES)
