"""A random model in a folder that says something else for every question, and so shows whether it is the right one."""

from pathlib import Path

from random_model import random_qwen3

from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.templates import load_template

WORDS = [f"w{number} which colour has the sky and how many legs user assistant\n" for number in range(40)]


def write_talkative(folder: Path) -> Path:
    """In Hugging Face layout, with the template chatml; in ``folder``."""
    tokenizer = train_tokenizer(WORDS, 400)
    tokenizer.chat_template = load_template("chatml").text
    random_qwen3(len(tokenizer), positions=512).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
