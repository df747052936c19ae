"""What rows cost, against the operations that a model's layers are seen to do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3Model

from ftx.data.cost import USUAL_CROSSOVER, Cost, cost_of_architecture, cost_of_model

TOKENS = 48


def qwen3(*, key_value_heads: int, head_dim: int) -> Qwen3Model:
    return Qwen3Model(
        Qwen3Config(
            vocab_size=16,
            hidden_size=32,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=key_value_heads,
            head_dim=head_dim,
            attn_implementation="eager",
        )
    )


def counted(model: Qwen3Model, tokens: int) -> tuple[int, int]:
    """FLOPs of the layers' matrices, and of causal attention: half of the eager one's, which masks too late."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    of_module = {name: sum(flops.values()) for name, flops in counter.get_flop_counts().items()}
    layers = sum(flops for name, flops in of_module.items() if name.count(".") == 2)
    matrices = sum(flops for name, flops in of_module.items() if name.endswith("_proj"))
    return matrices, (layers - matrices) // 2


@pytest.mark.parametrize(("key_value_heads", "head_dim"), [(4, 8), (2, 8), (1, 24)])
def test_a_models_cost_is_in_proportion_to_the_operations_of_its_layers(key_value_heads, head_dim):
    model = qwen3(key_value_heads=key_value_heads, head_dim=head_dim)
    weights = sum(one.numel() for name, one in model.layers.named_parameters() if one.ndim == 2)
    matrices, attention = counted(model, TOKENS)
    assert matrices == 2 * weights * TOKENS
    assert attention
    cost = cost_of_model(model.config).of_segments(np.array([TOKENS]))
    assert cost.tolist() == pytest.approx([(matrices + attention) / (2 * weights)])


def test_at_the_crossover_attention_takes_as_many_operations_as_the_matrices():
    dimensions = {"hidden": 32, "intermediate": 80, "heads": 4, "key_value_heads": 2, "head_dim": 8}
    crossover = cost_of_architecture(**dimensions).crossover
    assert crossover == round(crossover)
    matrices, attention = counted(qwen3(key_value_heads=2, head_dim=8), round(crossover))
    assert matrices == attention


def test_a_long_segment_costs_more_than_its_tokens_in_short_ones():
    assert Cost(100.0).of_segments(np.array([100, 50, 10])).tolist() == [200.0, 75.0, 11.0]


@pytest.mark.parametrize("left_out", [{}, {"num_key_value_heads": None, "head_dim": None}])
def test_without_a_head_size_or_heads_for_keys_of_their_own_they_follow_from_the_others(left_out):
    config = SimpleNamespace(hidden_size=96, intermediate_size=256, num_attention_heads=6, **left_out)
    by_hand = (4 * 96 * 96 + 3 * 96 * 256) / 96
    assert cost_of_model(config).crossover == pytest.approx(by_hand)


@pytest.mark.parametrize("missing", ["hidden_size", "intermediate_size", "num_attention_heads"])
def test_where_a_dimension_is_not_known_the_usual_cost_stands_in(missing):
    known = {"hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 6}
    del known[missing]
    assert cost_of_model(SimpleNamespace(**known)).crossover == USUAL_CROSSOVER


def test_the_usual_cost_is_about_that_of_a_model_with_four_billion_parameters():
    """The dimensions of Qwen3-4B."""
    cost = cost_of_architecture(hidden=2560, intermediate=9728, heads=32, key_value_heads=8, head_dim=128)
    assert cost.crossover == pytest.approx(USUAL_CROSSOVER, rel=0.05)
