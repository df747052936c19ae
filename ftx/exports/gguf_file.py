"""A model's folder in Hugging Face layout → one file for llama.cpp, weight by weight."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from transformers import AutoConfig

from ftx.exports.base import saved_tokenizer
from ftx.exports.gguf_layout import Named, architecture, named_weights, write_settings
from ftx.exports.gguf_tokenizer import write_tokenizer
from ftx.exports.gguf_types import HEAD, KINDS, fitting_type, wanted_type
from ftx.exports.llama_cpp import quantized_rows
from ftx.exports.tensors import tensors_in
from ftx.heartbeat import beat

Type = GGMLQuantizationType
# Of version 2 are all blocks that are written here.
QUANTIZATION_VERSION = 2
NUMPY: dict[GGMLQuantizationType, np.dtype[Any]] = {Type.F32: np.dtype(np.float32), Type.F16: np.dtype(np.float16)}
# Numbers of a matrix that are quantised at once.
AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Planned:
    """A weight, the type that it is meant to get, and the one that its rows fit into."""

    weight: Named
    wanted: GGMLQuantizationType
    type: GGMLQuantizationType

    @property
    def bytes_shape(self) -> tuple[int, ...]:
        block, size = GGML_QUANT_SIZES[self.type]
        return (*self.weight.shape[:-1], self.weight.shape[-1] // block * size)


@dataclass(frozen=True)
class GgufPlan:
    """All that a file will hold; ``bytes`` of its weights."""

    source: Path
    kind: str
    weights: tuple[Planned, ...]

    @property
    def bytes(self) -> int:
        return sum(int(np.prod(one.bytes_shape)) for one in self.weights)

    @property
    def fallbacks(self) -> list[str]:
        """In words, the weights whose rows do not fit into the blocks of the type that they are meant to get."""
        found: dict[tuple[str, str, int], list[str]] = {}
        for one in self.weights:
            if one.type != one.wanted:
                key = (one.wanted.name.lower(), one.type.name.lower(), one.weight.shape[-1])
                found.setdefault(key, []).append(one.weight.name.removesuffix(".weight"))
        return [
            f"{len(names)} weights ({_kinds_of(names)}) have rows of {width}, no multiple of "
            f"{GGML_QUANT_SIZES[getattr(Type, wanted.upper())][0]}: {given} instead of {wanted}"
            for (wanted, given, width), names in found.items()
        ]


def _kinds_of(names: list[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names}))


def plan_gguf(source: Path, kind: str) -> GgufPlan:
    """Raises UserError for a model that llama.cpp has no place for."""
    config = AutoConfig.from_pretrained(source)
    architecture(config)
    weights = list(named_weights(tensors_in(source), config))
    is_tied = HEAD not in {one.name for one in weights}
    planned = []
    for one in weights:
        wanted = wanted_type(one.name, one.shape, KINDS[kind], config.num_hidden_layers, is_tied=is_tied)
        planned.append(Planned(one, wanted, fitting_type(wanted, one.shape[-1])))
    return GgufPlan(source, kind, tuple(planned))


def write_gguf(plan: GgufPlan, file: Path, name: str) -> None:
    """``name``: what llama.cpp calls the model. No more than one weight is in memory."""
    config = AutoConfig.from_pretrained(plan.source)
    writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[architecture(config)])
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(KINDS[plan.kind].file_type)
    writer.add_quantization_version(QUANTIZATION_VERSION)
    write_settings(writer, config)
    write_tokenizer(writer, saved_tokenizer(plan.source), config.vocab_size)
    for one in plan.weights:
        numpy_type = NUMPY.get(one.type)
        shape = one.weight.shape if numpy_type else one.bytes_shape
        writer.add_tensor_info(
            one.weight.name,
            shape,
            numpy_type or np.dtype(np.uint8),
            int(np.prod(one.bytes_shape)),
            raw_dtype=None if numpy_type else one.type,
        )
    writer.write_header_to_file(file)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for one in plan.weights:
        beat(f"writing {file.name}")
        writer.write_tensor_data(_converted(one))
    for opened in writer.fout or []:
        opened.flush()
        os.fsync(opened.fileno())
    writer.close()


def _converted(one: Planned) -> np.ndarray:
    numbers = one.weight.read()
    if one.type in NUMPY:
        return np.ascontiguousarray(numbers, dtype=NUMPY[one.type])
    return np.concatenate([_in_blocks(part, one.type) for part in _parts(numbers)])


def _parts(numbers: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(1, AT_ONCE // numbers.shape[-1])
    return (numbers[begin : begin + rows] for begin in range(0, len(numbers), rows))


def _in_blocks(rows: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    block, size = GGML_QUANT_SIZES[kind]
    if kind == Type.BF16:
        rows_of_16: np.ndarray = gguf.quants.quantize(rows, kind)
        return rows_of_16.view(np.uint8).reshape(len(rows), -1)
    return quantized_rows(rows, kind.value, size, block)
