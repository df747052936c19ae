"""An adapter added into the weights of its base, tensor by tensor: a model in Hugging Face layout."""

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ftx.config.schema import RunConfig
from ftx.errors import UserError
from ftx.exports.adapter import Adapter, read_adapter
from ftx.exports.base import Base, open_base, saved_tokenizer
from ftx.exports.tensors import Tensor, write_tensors
from ftx.generation_settings import write_generation_settings
from ftx.heartbeat import beat
from ftx.precision import starting_type
from ftx.run_folder import RunFolder

# Of model/, what belongs to the adapter and not to a model.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md")


@dataclass(frozen=True)
class MergePlan:
    """All that the merged model will hold; ``bytes`` of its weights. Nothing is computed yet."""

    folder: RunFolder
    base: Base
    tensors: list[Tensor]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.tensors)


def plan_merge(folder: RunFolder, run: RunConfig) -> MergePlan:
    """Weights are added in 32 bits and kept in the type that the run starts from.

    Of method=qlora the base is what NF4 left of it, for that is what the adapter was trained on. Raises UserError.
    """
    base, adapter, dtype = open_base(folder, run), read_adapter(folder.model), starting_type(run)
    return MergePlan(folder, base, merged_tensors(base, adapter, dtype), dtype)


def write_merged(plan: MergePlan, target: Path) -> None:
    """The model, its tokenizer and template in Hugging Face layout; ``target`` must not exist yet."""
    target.mkdir(parents=True)
    write_tensors(target, plan.tensors)
    for file in plan.folder.model.iterdir():
        if file.is_file() and file.name not in ADAPTER_FILES:
            shutil.copy(file, target / file.name)
    _write_configuration(target, plan)


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


def _write_configuration(target: Path, plan: MergePlan) -> None:
    """Generation stops where the base did, and where the template ends an answer."""
    config = copy.deepcopy(plan.base.config)
    config.dtype = plan.dtype
    has_head = "lm_head.weight" in {one.name for one in plan.tensors}
    config.tie_word_embeddings = config.tie_word_embeddings and not has_head
    config.save_pretrained(target)
    write_generation_settings(target, plan.base.generation, saved_tokenizer(target))
