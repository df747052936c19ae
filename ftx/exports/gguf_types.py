"""Which of ggml's types each weight gets in a file of one kind, as llama.cpp's own quantize chooses them."""

from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

Type = GGMLQuantizationType
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
# Blocks of K-quants have 256 numbers, of the others 32.
FALLBACKS = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}


@dataclass(frozen=True)
class Kind:
    """What most matrices get, what the sensitive ones get, and the file's own number."""

    most: GGMLQuantizationType
    sensitive: GGMLQuantizationType
    file_type: LlamaFileType


KINDS = {
    "f32": Kind(Type.F32, Type.F32, LlamaFileType.ALL_F32),
    "f16": Kind(Type.F16, Type.F16, LlamaFileType.MOSTLY_F16),
    "bf16": Kind(Type.BF16, Type.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": Kind(Type.Q8_0, Type.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_k_m": Kind(Type.Q4_K, Type.Q6_K, LlamaFileType.MOSTLY_Q4_K_M),
    "q5_k_m": Kind(Type.Q5_K, Type.Q6_K, LlamaFileType.MOSTLY_Q5_K_M),
    "q6_k": Kind(Type.Q6_K, Type.Q6_K, LlamaFileType.MOSTLY_Q6_K),
}


def wanted_type(name: str, shape: tuple[int, ...], kind: Kind, layers: int, *, is_tied: bool) -> GGMLQuantizationType:
    """What the weight is meant to get: vectors stay in 32 bits, the head and some of the layers' values and down
    projections get more bits."""
    if len(shape) < 2:
        return Type.F32
    if name == HEAD or (name == EMBEDDING and is_tied):
        return kind.sensitive
    if name.endswith(("attn_v.weight", "ffn_down.weight")) and _gets_more_bits(int(name.split(".")[1]), layers):
        return kind.sensitive
    return kind.most


def fitting_type(wanted: GGMLQuantizationType, width: int) -> GGMLQuantizationType:
    """The same where rows are whole blocks of it, else one with smaller blocks, at last 16-bit floats."""
    if width % GGML_QUANT_SIZES[wanted][0] == 0:
        return wanted
    smaller = FALLBACKS.get(wanted, wanted)
    return smaller if width % GGML_QUANT_SIZES[smaller][0] == 0 else Type.F16


def _gets_more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
