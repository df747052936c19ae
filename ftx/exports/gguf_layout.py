"""A model's numbers as llama.cpp takes them: its settings, and the name and order of each weight."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import torch
from transformers import PreTrainedConfig

from ftx.errors import UserError
from ftx.exports.tensors import Tensor

# transformers' name of a family → llama.cpp's.
FAMILIES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
}
# llama.cpp turns these families' queries and keys in pairs of neighbours, transformers in halves.
IN_PAIRS = ("llama",)
ROPE_FREQUENCIES = "rope_freqs.weight"


@dataclass(frozen=True)
class Named:
    """One weight under llama.cpp's name."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    """In 32 bits."""


def architecture(config: PreTrainedConfig) -> "gguf.MODEL_ARCH":
    """Raises UserError for a family that no layout is known of here, or for what its llama.cpp has no word for."""
    family = config.model_type
    if family not in FAMILIES:
        raise UserError(
            f"export=gguf: the model is a {family}, and files for llama.cpp can be made of {', '.join(FAMILIES)}"
        )
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"}:
        raise UserError(f"export=gguf: {family} with {', '.join(sorted(layers))} has no layout here")
    if config.hidden_act != "silu":
        raise UserError(f"export=gguf: llama.cpp's {family} knows silu, the model has {config.hidden_act}")
    return FAMILIES[family]


def write_settings(writer: "gguf.GGUFWriter", config: PreTrainedConfig) -> None:
    """What llama.cpp has to know of the model's shape."""
    head = _head_width(config)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head)
    _write_rope(writer, _rope(config))


def _write_rope(writer: "gguf.GGUFWriter", rope: dict[str, Any]) -> None:
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif kind == "yarn" and _is_usual_yarn(rope):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
    elif kind not in ("default", "llama3"):
        raise UserError(f"export=gguf: rotary positions of type {kind} with these settings have no layout here")


def _is_usual_yarn(rope: dict[str, Any]) -> bool:
    """With the constants that llama.cpp takes where a file names none."""
    usual: dict[str, Any] = {"beta_fast": 32, "beta_slow": 1, "attention_factor": None, "truncate": True}
    strange = {name for name, value in usual.items() if rope.get(name) not in (None, value)}
    return not strange and not rope.get("mscale") and not rope.get("mscale_all_dim")


def named_weights(tensors: dict[str, Tensor], config: PreTrainedConfig) -> Iterator[Named]:
    """Every weight under llama.cpp's name, and of llama3's rotary positions the factors that scale them."""
    names = gguf.get_tensor_name_map(architecture(config), config.num_hidden_layers)
    if _rope(config).get("rope_type") == "llama3":
        factors = _llama3_factors(_rope(config), _head_width(config))
        yield Named(ROPE_FREQUENCIES, factors.shape, lambda: factors)
    for one in tensors.values():
        if one.name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(one.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise UserError(f"export=gguf: llama.cpp's {config.model_type} has no place for {one.name}")
        yield Named(name, one.shape, _reader(one, config))


def _reader(one: Tensor, config: PreTrainedConfig) -> Callable[[], np.ndarray]:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    module = one.name.split(".")[-2]

    def read() -> np.ndarray:
        weights = one.read().to(torch.float32)
        if config.model_type in IN_PAIRS and module in heads:
            weights = in_pairs(weights, heads[module])
        return weights.numpy()

    return read


def in_pairs(weights: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of each head so that the two which are turned together lie side by side."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.transpose(1, 2).reshape(weights.shape)


def _llama3_factors(rope: dict[str, Any], head: int) -> np.ndarray:
    """What each frequency is divided by (Llama 3.1's scaling, as transformers computes it)."""
    frequencies = float(rope["rope_theta"]) ** -(np.arange(0, head, 2, dtype=np.float64) / head)
    length = 2 * math.pi / frequencies
    original, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (original / length - low) / (high - low)
    between = 1 / ((1 - smooth) / rope["factor"] + smooth)
    factors = np.where(length > original / low, rope["factor"], np.where(length < original / high, 1.0, between))
    return factors.astype(np.float32)


def _rope(config: PreTrainedConfig) -> dict[str, Any]:
    rope: dict[str, Any] = dict(config.rope_parameters)
    if float(rope.get("partial_rotary_factor", 1.0)) != 1.0:
        raise UserError("export=gguf: rotary positions on a part of each head have no layout here")
    return rope


def _head_width(config: PreTrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
