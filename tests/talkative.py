"""A random model in a folder that says something else for every question, and so shows whether it is the right one."""

from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.templates import load_template

WORDS = [f"w{number} which colour has the sky and how many legs user assistant\n" for number in range(40)]


def write_talkative(folder: Path) -> Path:
    """In Hugging Face layout, with the template chatml; in ``folder``."""
    tokenizer = train_tokenizer(WORDS, 400)
    tokenizer.chat_template = load_template("chatml").text
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.3,
        max_position_embeddings=512,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
