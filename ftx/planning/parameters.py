"""A model's parameters by name and shape, as transformers builds the families that ftx knows."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from ftx.config.model_schema import ArchitectureConfig
from ftx.errors import UserError

HEAD = "lm_head"


@dataclass(frozen=True)
class Weight:
    """One tensor of a model. Of a linear layer's matrix ``shape`` is (outputs, inputs)."""

    name: str
    shape: tuple[int, ...]
    kind: str
    """``embedding``, ``linear``, ``head``, ``norm``, ``bias`` or ``adapter``; a tied head is no tensor of its own."""

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def module(self) -> str:
        """The last part of its layer's name, as method.lora.targets has it."""
        return self.name.rsplit(".", 2)[-2]


def weights_of(architecture: ArchitectureConfig) -> list[Weight]:
    """In the order of the model."""
    hidden, vocabulary = architecture.hidden_size, architecture.vocabulary_size
    found = [Weight("model.embed_tokens.weight", (vocabulary, hidden), "embedding")]
    for layer in range(architecture.layers):
        found += [
            Weight(f"model.layers.{layer}.{one.name}", one.shape, one.kind) for one in layer_weights(architecture)
        ]
    found.append(Weight("model.norm.weight", (hidden,), "norm"))
    if not architecture.tied_embeddings:
        found.append(Weight(f"{HEAD}.weight", (vocabulary, hidden), "head"))
    return found


def layer_weights(architecture: ArchitectureConfig) -> list[Weight]:
    """Of one decoder layer."""
    return [*_attention(architecture), *_mlp(architecture), *_norms(architecture)]


def _attention(architecture: ArchitectureConfig) -> Iterator[Weight]:
    hidden = architecture.hidden_size
    queries, keys = query_width(architecture), key_width(architecture)
    for name, outputs in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        yield Weight(f"self_attn.{name}.weight", (outputs, hidden), "linear")
        if architecture.family == "qwen2":
            yield Weight(f"self_attn.{name}.bias", (outputs,), "bias")
    yield Weight("self_attn.o_proj.weight", (hidden, queries), "linear")
    normed = {"qwen3": (architecture.head_dim, architecture.head_dim), "olmo2": (queries, keys)}
    for name, width in zip(("q_norm", "k_norm"), normed.get(architecture.family, ()), strict=False):
        yield Weight(f"self_attn.{name}.weight", (width,), "norm")


def _mlp(architecture: ArchitectureConfig) -> Iterator[Weight]:
    hidden, between = architecture.hidden_size, architecture.intermediate_size
    for name in ("gate_proj", "up_proj"):
        yield Weight(f"mlp.{name}.weight", (between, hidden), "linear")
    yield Weight("mlp.down_proj.weight", (hidden, between), "linear")


def _norms(architecture: ArchitectureConfig) -> Iterator[Weight]:
    behind = architecture.family == "olmo2"
    names = ("post_attention_layernorm", "post_feedforward_layernorm") if behind else _IN_FRONT
    for name in names:
        yield Weight(f"{name}.weight", (architecture.hidden_size,), "norm")


_IN_FRONT = ("input_layernorm", "post_attention_layernorm")


def query_width(architecture: ArchitectureConfig) -> int:
    return architecture.heads * architecture.head_dim


def key_width(architecture: ArchitectureConfig) -> int:
    return architecture.key_value_heads * architecture.head_dim


def adapter_weights(architecture: ArchitectureConfig, rank: int, targets: list[str], *, dora: bool) -> list[Weight]:
    """What ``method.lora`` adds, as peft does: two matrices to each target, and with DoRA its columns' lengths.

    ``all-linear`` is every linear layer but the head; else names are those of modules, or what they end with. Raises
    UserError where there is none of them, or an embedding is meant, whose adapters are not counted here.
    """
    found = []
    modules = [one for one in weights_of(architecture) if one.kind in ("linear", "head")]
    if architecture.tied_embeddings:
        modules.append(Weight(f"{HEAD}.weight", (architecture.vocabulary_size, architecture.hidden_size), "head"))
    for one in modules:
        outputs, inputs = one.shape
        layer = one.name.removesuffix(".weight")
        if not (one.kind == "linear" if targets == ["all-linear"] else _ends_with_one_of(layer, targets)):
            continue
        found.append(Weight(f"{layer}.lora_A.default.weight", (rank, inputs), "adapter"))
        found.append(Weight(f"{layer}.lora_B.default.weight", (outputs, rank), "adapter"))
        if dora:
            found.append(Weight(f"{layer}.lora_magnitude_vector.default.weight", (outputs,), "adapter"))
    if not found or any(target.endswith("embed_tokens") for target in targets):
        known = sorted({one.module for one in modules})
        raise UserError(f"method.lora.targets={targets}: a plan knows the linear layers {', '.join(known)}")
    return found


def _ends_with_one_of(layer: str, targets: list[str]) -> bool:
    return any(layer == target or layer.endswith(f".{target}") for target in targets)
