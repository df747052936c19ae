"""FLOPs by formula against those that PyTorch counts while it computes them."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from ftx.config.hardware_schema import HardwareConfig
from ftx.flops import attended_pairs, flop_rates
from ftx.throughput import known_peak, peak_flops

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "vocab_size": 96,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
# Tokens of each segment, and how many of them are supervised.
SEGMENTS = ((17, 5), (9, 9), (30, 1))


def qwen3(**changes):
    return Qwen3ForCausalLM(Qwen3Config(**(SIZES | changes)))


def with_adapters(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


def counted(model):
    """By PyTorch, each segment alone in eager attention."""
    model.set_attn_implementation("eager")
    # So that the layers' inputs get gradients under an adapter too.
    model.enable_input_require_grads()
    with FlopCounterMode(display=False) as counter:
        for tokens, targets in SEGMENTS:
            ids = torch.randint(0, 96, (1, tokens))
            model(input_ids=ids, logits_to_keep=torch.arange(targets)).logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("adapters", [False, True], ids=["full", "lora"])
def test_forward_and_backward_are_what_pytorch_counts(tied, adapters):
    """Eager attention computes the masked half as well: n² pairs instead of n²/2."""
    model = qwen3(tie_word_embeddings=tied)
    model = with_adapters(model) if adapters else model
    rates = flop_rates(model)
    lengths = np.array([tokens for tokens, _ in SEGMENTS])
    (per_pair,) = rates.per_pair.values()
    by_formula = lengths.sum() * rates.per_token + sum(targets for _, targets in SEGMENTS) * rates.per_target
    assert counted(model) == by_formula + 2 * per_pair * attended_pairs(lengths, None).sum()


def test_the_rule_of_thumb_of_six_flops_a_parameter_and_token():
    model = qwen3(tie_word_embeddings=False)
    rates = flop_rates(model)
    matrices = sum(weights.numel() for weights in model.parameters() if weights.ndim == 2)
    embeddings = model.get_input_embeddings().weight.numel()
    assert rates.per_token + rates.per_target == 6 * (matrices - embeddings)
    assert rates.per_pair == {None: 12 * 4 * 8 * 3}


@pytest.mark.parametrize("window", [1, 4, 100])
def test_a_window_leaves_out_what_lies_further_back(window):
    """Compared as areas under the band of a long mask, where the diagonal's half cells do not matter."""
    tokens = 800
    band = np.tril(np.ones((tokens, tokens))) - np.tril(np.ones((tokens, tokens)), -window * 8)
    assert attended_pairs(np.array([tokens]), window * 8)[0] == pytest.approx(band.sum(), rel=0.01 + 0.5 / window / 8)
    layers = ["full_attention", "sliding_attention", "sliding_attention"]
    model = qwen3(layer_types=layers, sliding_window=window, use_sliding_window=True)
    assert flop_rates(model).per_pair == {None: 12 * 4 * 8, window: 2 * 12 * 4 * 8}


def test_a_mixture_of_experts_has_no_figure():
    config = Qwen3MoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    assert flop_rates(Qwen3MoeForCausalLM(config)) is None


def test_a_peak_is_that_of_the_whole_device():
    assert known_peak("NVIDIA H100 80GB HBM3").half == known_peak("NVIDIA H200").half
    assert known_peak("NVIDIA H100 PCIe").half < known_peak("NVIDIA H100 NVL").half < known_peak("NVIDIA H200").half
    for part in ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "Tesla V100"):
        assert known_peak(part) is None
    assert peak_flops(HardwareConfig()) is None
    assert peak_flops(HardwareConfig(peak_tflops=2.5)) == 2.5e12
