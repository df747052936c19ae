"""Small random models of the families that are exported, with an adapter that moves them, and texts to cut."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    Olmo2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from ftx.config.compose import compose
from ftx.config.schema import RunConfig
from ftx.data.fingerprint import model_fingerprint
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.environment import CHECKOUT
from ftx.exports.probes import TEXTS
from ftx.models import load_model, trainable
from ftx.run_folder import RunFolder
from ftx.runs_on_disk import open_run_folder

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Larger than usual, so that the likeliest token is likelier than the next one by more than rounding.
    "initializer_range": 0.15,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "qwen3 tied": Qwen3Config(**SIZES, head_dim=24, tie_word_embeddings=True),
    "qwen3 untied": Qwen3Config(**SIZES, head_dim=24, tie_word_embeddings=False),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "olmo2": Olmo2Config(**SIZES),
    "llama": LlamaConfig(**SIZES, rms_norm_eps=1e-5, tie_word_embeddings=False),
    "llama3.1": LlamaConfig(**SIZES, head_dim=32, rope_parameters=LLAMA3_ROPE),
}
WORDS = ("the cat sat on a mat and looked at thirteen birds " * 3, "def f(x):\n    return x + 12\n" * 3)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([*TEXTS, *WORDS], SIZES["vocab_size"])


def save_model(folder: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A random model, no weight of which is one or nought where such a one would hide a swap."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 1:
                weights.add_(torch.randn_like(weights) * 0.3)
    model.save_pretrained(folder)
    tokenizer.chat_template = (CHECKOUT / "templates" / "chatml.jinja").read_text()
    tokenizer.save_pretrained(folder)
    return folder


def adapted(folder: Path, base: Path, data: Path, *words: str) -> tuple[RunFolder, RunConfig]:
    """A run's folder with an adapter in model/ that moves ``base`` a good deal, as if trained."""
    run = compose(
        *("model=hub", f"model.name={base}", "model.template=chatml", "data=jsonl", f"data.path={data}"),
        *(f"run_root={folder.parent}", "data.holdout=0.3", "hardware.threads=1", "tracking.offline=true"),
        *("method=lora", "method.lora.rank=4", "method.lora.alpha=12", *words),
    )
    described = open_run_folder(RunFolder(folder), run, words, {"model_fingerprint": model_fingerprint(run)})
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = trainable(load_model(run, tokenizer), run)
    torch.manual_seed(6)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.requires_grad:
                weights.add_(torch.randn_like(weights) * (0.1 if "magnitude" not in name else 0.3))
    model.save_pretrained(described.model)
    tokenizer.save_pretrained(described.model)
    return described, run


def greedy(model: torch.nn.Module, prompt: list[int], most: int = 200) -> tuple[list[int], float]:
    """What it goes on with, and by how much at least the likeliest token's logit was above the next one's."""
    written = model.generate(torch.tensor([prompt]), max_new_tokens=most, do_sample=False, eos_token_id=None)[0]
    with torch.no_grad():
        likeliest = model(input_ids=written[None]).logits[0, len(prompt) - 1 : -1].topk(2).values
    return written[len(prompt) :].tolist(), float((likeliest[:, 0] - likeliest[:, 1]).min())


def write_chats(path: Path, count: int = 12) -> Path:
    draw = random.Random(3)
    rows = [{"prompt": sentence(draw), "completion": sentence(draw)} for _ in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choice(WORDS[0].split()) for _ in range(draw.randint(3, 12)))


SCRIPTS = (
    "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789.,;:!?'\"()[]{}<>|/\\@#$%^&*-_=+~`"
    "éüßñøÅçαβγДЖя中文字漢字かなカナ한글עבأب๑नमस्ते½²∑→€😀🇩🇪👍🏽"
)
BLANKS = (" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n", "\u00a0", "\u3000", "")
CODE = (
    "if x == 1:",
    "return",
    "self._a[0] = {}",
    "i++;",
    "</div>",
    "'''doc'''",
    "0x1F",
    "1e-5",
    "we'll",
    "IT'S",
    "don't",
)


def texts(count: int, control: Sequence[str]) -> list[str]:
    """Of many scripts, blanks and code, with these control tokens spelled out in some."""
    draw = random.Random(11)
    made = list(TEXTS)
    while len(made) < count:
        pieces = []
        for _ in range(draw.randint(1, 9)):
            kind = draw.random()
            if kind < 0.6:
                pieces.append("".join(draw.choice(SCRIPTS) for _ in range(draw.randint(1, 8))))
            elif kind < 0.8:
                pieces.append(draw.choice(CODE))
            elif kind < 0.88 and control:
                pieces.append(draw.choice(list(control)))
            else:
                pieces.append(draw.choice(("hello", "World", "ing", "1234567", "...")))
            pieces.append(draw.choice(BLANKS))
        made.append("".join(pieces))
    return made[:count]
