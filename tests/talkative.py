"""A random model in a folder that says something else for every question, and so shows whether it is the right one."""

from pathlib import Path

from random_model import random_qwen3
from tokenizers.processors import TemplateProcessing

from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.templates import load_template

WORDS = [f"w{number} which colour has the sky and how many legs user assistant\n" for number in range(40)]


# All of its layers then have a multiple of 64 inputs, as quantising wants them.
QUANTISABLE = 128


def write_talkative(folder: Path, width: int = 32) -> Path:
    """In Hugging Face layout, with the template chatml; in ``folder``."""
    tokenizer = train_tokenizer(WORDS, 400)
    tokenizer.chat_template = load_template("chatml").text
    random_qwen3(len(tokenizer), positions=512, width=width).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_beginning(folder: Path) -> Path:
    """The same with Llama 3's template, and a tokenizer that as its own begins every text with the begin token."""
    tokenizer = train_tokenizer(WORDS, 400, "llama3_1", "llama")
    begin = str(tokenizer.bos_token)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = load_template("llama3_1").text
    random_qwen3(len(tokenizer), positions=512).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
