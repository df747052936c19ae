"""A random model with a tokenizer and a template, which answers something for every question."""

from random_model import random_qwen3
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.engines.engine import Request
from ftx.templates import load_template

WORDS = ["which colour has the sky at noon?", "how many legs has a spider?", "assistant\n", "user\n", "eight", "blue"]
TEMPLATE = load_template("chatml")


def tokenizer() -> PreTrainedTokenizerFast:
    made = train_tokenizer(WORDS * 9, 400)
    made.chat_template = TEMPLATE.text
    return made


def model(size: int) -> Qwen3ForCausalLM:
    return random_qwen3(size, positions=256).eval()


def asked(question: str, name: str = "one", **settings) -> Request:
    return Request(name, ({"role": "user", "content": question},), **{"max_new_tokens": 12, **settings})


QUESTIONS = [
    "which colour has the sky?",
    "how many legs has a spider at noon?",
    "legs?",
    "the sky at noon, how many colours has it, and how many has a spider at noon?",
    "eight",
]
