"""Liger's kernels in one model and no other; they run on GPUs only, but putting them in does not."""

import sys

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from ftx.kernels import ROTARY, put_in


def tiny_model() -> Qwen3ForCausalLM:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=64, head_dim=16, num_key_value_heads=2, **sizes))


def test_they_are_put_into_this_model_only():
    pytest.importorskip("triton")
    pytest.importorskip("liger_kernel")
    model, tokens = tiny_model(), {"input_ids": torch.arange(6)[None]}
    family = sys.modules[type(model).__module__]
    before = {name: getattr(family, name) for name in ("Qwen3RMSNorm", "Qwen3MLP", "Qwen3ForCausalLM")}
    forward = type(model).forward
    put_in(model)
    assert "Liger" in repr(model.model.norm.forward) + repr(model.model.norm)
    assert {name: getattr(family, name) for name in before} == before
    assert type(model).forward is forward
    assert model.forward.__func__ is forward
    # Models on a CPU go on as if nothing had happened, in spite of the family's shared rotary embedding.
    assert getattr(family, ROTARY).__name__ == "rotary"
    assert tiny_model()(**tokens).logits.isfinite().all()
