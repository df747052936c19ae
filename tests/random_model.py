"""A random Qwen3 of two layers whose answers differ: its weights are large."""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM


def random_qwen3(vocabulary: int, positions: int, width: int = 32) -> Qwen3ForCausalLM:
    """The same one each time, for sequences of up to ``positions`` tokens."""
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 3 // 2,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width // 4,
        initializer_range=0.3,
        max_position_embeddings=positions,
    )
    return Qwen3ForCausalLM(config)
