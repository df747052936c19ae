"""An adapter added into the weights of its base, tensor by tensor: a model in Hugging Face layout."""

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ftx.config.schema import RunConfig
from ftx.errors import UserError
from ftx.exports.adapter import Adapter, read_adapter
from ftx.exports.base import Base, open_base
from ftx.exports.tensors import Tensor, write_tensors
from ftx.heartbeat import beat
from ftx.precision import starting_type
from ftx.run_folder import RunFolder

# Of model/, what belongs to the adapter and not to a model.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md")


def merge_into(target: Path, folder: RunFolder, run: RunConfig) -> None:
    """Write the run's merged model, with its tokenizer and template, into ``target``, which must not exist yet.

    Weights are added in 32 bits and kept in the type that the run starts from. Of method=qlora the base is what NF4
    left of it, for that is what the adapter was trained on.
    """
    base, adapter = open_base(folder, run), read_adapter(folder.model)
    tensors = merged_tensors(base, adapter, starting_type(run))
    target.mkdir(parents=True)
    write_tensors(target, tensors)
    _write_configuration(target, base, tensors, starting_type(run))
    for file in folder.model.iterdir():
        if file.is_file() and file.name not in ADAPTER_FILES:
            shutil.copy(file, target / file.name)


def size_of_merged(folder: RunFolder, run: RunConfig) -> int:
    """Bytes of its weights."""
    base, adapter = open_base(folder, run), read_adapter(folder.model)
    return sum(one.bytes for one in merged_tensors(base, adapter, starting_type(run)))


def merged_tensors(base: Base, adapter: Adapter, dtype: torch.dtype) -> list[Tensor]:
    """Every weight of the merged model, each made when it is read. Raises UserError for an adapter of another model.

    Where embedding and head are one matrix, and the adapter is for one of the two, they become two.
    """
    tensors = _untied(base, adapter)
    strange = adapter.touched - set(tensors)
    if strange:
        raise UserError(f"the adapter is for {min(strange)}, which its base does not have")
    return [replace(one, dtype=dtype, read=_merging(one, adapter, dtype)) for one in tensors.values()]


def _untied(base: Base, adapter: Adapter) -> dict[str, Tensor]:
    pair = ("model.embed_tokens.weight", "lm_head.weight")
    held = next((name for name in pair if name in base.tensors), None)
    if not base.config.tie_word_embeddings or held is None or not adapter.touched & set(pair):
        return base.tensors
    return {**base.tensors, **{name: replace(base.tensors[held], name=name) for name in pair}}


def _merging(one: Tensor, adapter: Adapter, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        beat("merging")
        return adapter.apply(one.name, one.read()).to(dtype)

    return read


def _write_configuration(target: Path, base: Base, tensors: list[Tensor], dtype: torch.dtype) -> None:
    config = copy.deepcopy(base.config)
    config.dtype = dtype
    config.tie_word_embeddings = config.tie_word_embeddings and "lm_head.weight" not in {one.name for one in tensors}
    config.save_pretrained(target)
    base.generation.save_pretrained(target)
