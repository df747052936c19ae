"""Compiled layers against the same layers as written, and when a run compiles."""

import copy

import numpy as np
import pytest
import torch

from ftx import compiled
from ftx.attention import PACKED_CPU, register
from ftx.compiled import compiled_layers, decoder_layers, without_compiling, worth_compiling
from ftx.config.compose import compose
from ftx.data.collate import collate
from ftx.data.store import Row
from ftx.errors import UserError
from ftx.loss import TokenLoss

LENGTHS, SHARED = (9, 30, 12, 47, 30), 6


def small_model() -> torch.nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    register()
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, attn_implementation=PACKED_CPU))


def batches() -> list[dict]:
    """Two micro-batches of different lengths, so that one graph has to do for any."""
    draw = np.random.default_rng(3)
    prompt = draw.integers(0, 50, SHARED)
    rows = [
        Row(
            np.concatenate([prompt, draw.integers(0, 50, length - SHARED)]).astype(np.int32),
            np.arange(length) > SHARED,
            np.array([length], dtype=np.int32),
        )
        for length in LENGTHS
    ]
    return [collate(rows, SHARED), collate(rows[:3], SHARED), collate(rows)]


def learned(model: torch.nn.Module) -> tuple[list[float], list[torch.Tensor]]:
    losses = []
    for batch in batches():
        labels = batch.pop("labels")
        loss = TokenLoss()(model(**batch), labels, num_items_in_batch=50)
        loss.backward()
        losses.append(float(loss.detach()))
    return losses, [weights.grad for weights in model.parameters()]


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.long
def test_compiled_layers_give_the_losses_and_gradients_of_plain_ones():
    plain = small_model()
    model = copy.deepcopy(plain)
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
    checkpointed.train()
    expected, right = learned(plain)
    before = graphs()
    with compiled_layers(model), compiled_layers(checkpointed):
        found = [learned(model), learned(checkpointed)]
        made = graphs()
        assert made > before
        with without_compiling(), torch.no_grad():
            model.eval()(**{name: value for name, value in batches()[0].items() if name != "labels"})
        assert graphs() == made
    for losses, gradients in found:
        assert losses == pytest.approx(expected, rel=1e-6)
        for ours, theirs in zip(gradients, right, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert all(layer._compiled_call_impl is None for layer in decoder_layers(model))
    assert list(model.state_dict()) == list(plain.state_dict())


def run_that(*words: str):
    return compose("model=small", *words)


def test_auto_compiles_long_trainings_only(monkeypatch):
    """6 floating-point operations for each weight of the layers and each token."""
    monkeypatch.setattr(compiled, "_obstacle", lambda run, layers: "")
    model = small_model()
    weights = sum(one.numel() for layer in model.model.layers for one in layer.parameters())
    tokens = int(1e14 / 6 / weights)
    assert [worth_compiling(run_that(), model, n) for n in (tokens - 1, tokens + 1)] == [False, True]
    assert worth_compiling(run_that("model.compile=always"), model, 1)
    assert not worth_compiling(run_that("model.compile=never"), model, tokens + 1)


def test_a_model_without_known_layers_is_refused_where_compiling_was_asked_for():
    with pytest.raises(UserError, match=r"^model.compile=always: this model does not say what its layers are"):
        worth_compiling(run_that("model.compile=always"), torch.nn.Linear(2, 2), 1)
