"""The weights that a run's adapter was trained on, as the training saw them, tensor by tensor."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerFast

from ftx.adapters import as_quantised, quantised_weights
from ftx.config.schema import RunConfig
from ftx.data.fingerprint import model_fingerprint
from ftx.errors import UserError
from ftx.exports.tensors import Tensor, tensors_in, tensors_of
from ftx.models import random_model, shapes_of_base
from ftx.precision import starting_type
from ftx.run_folder import RunFolder

WEIGHT_FILES = ("*.json", "*.safetensors")


@dataclass(frozen=True)
class Base:
    """``tensors`` by the name that the model's own module gives each."""

    tensors: dict[str, Tensor]
    config: PreTrainedConfig
    generation: GenerationConfig


def open_base(folder: RunFolder, run: RunConfig) -> Base:
    """Nothing is read yet of a stored one; raises UserError where it is not there, or not what was trained on."""
    trained_on = folder.read_provenance().get("model_fingerprint")
    if trained_on and trained_on != model_fingerprint(run):
        raise UserError(
            f"model.name={run.model.name}: is not the model any more that {folder.name} was trained on; its adapter "
            "fits that one only"
        )
    if run.model.weights == "random":
        model = random_model(run, saved_tokenizer(folder.model))
        weights = {name: one.detach() for name, one in model.named_parameters()}
        model.config.architectures = [type(model).__name__]
        base = Base(tensors_of(weights), model.config, model.generation_config)
    else:
        base = _stored(run)
    return replace(base, tensors=_as_trained(base.tensors, run))


def saved_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """What tokenizer.json says. ``AutoTokenizer`` would build a family's usual one where a config.json names it."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def _stored(run: RunConfig) -> Base:
    name = str(run.model.name)
    try:
        path = Path(name)
        if not path.is_dir():
            path = Path(snapshot_download(name, revision=run.model.revision, allow_patterns=list(WEIGHT_FILES)))
        config = AutoConfig.from_pretrained(path)
        tensors = tensors_in(path)
    except (OSError, ValueError, LocalEntryNotFoundError) as error:
        raise UserError(f"model.name={name}: cannot be read: {str(error).splitlines()[0]}") from error
    try:
        generation = GenerationConfig.from_pretrained(path)
    except OSError:
        generation = GenerationConfig.from_model_config(config)
    return Base(_by_module_name(tensors, run), config, generation)


def _by_module_name(tensors: dict[str, Tensor], run: RunConfig) -> dict[str, Tensor]:
    """A file that was saved from the inner model leaves the outer one's prefix out."""
    with torch.device("meta"):
        model = shapes_of_base(run)
    wanted = {name: tuple(one.shape) for name, one in model.named_parameters()}
    prefix = f"{model.base_model_prefix}."
    found = {}
    for name, one in tensors.items():
        known = name if name in wanted else f"{prefix}{name}"
        if known in wanted:
            found[known] = replace(one, name=known)
    lacking = [name for name, shape in wanted.items() if name not in found or found[name].shape != shape]
    if lacking:
        raise UserError(
            f"model.name={run.model.name}: its files hold no {lacking[0]} as the model has it, so that it cannot be "
            "merged tensor by tensor"
        )
    return found


def _as_trained(tensors: dict[str, Tensor], run: RunConfig) -> dict[str, Tensor]:
    """In the type that the run starts from, and of ``method=qlora`` with the values that NF4 left of the matrices."""
    dtype = starting_type(run)
    quantised: set[str] = set()
    if run.method.name == "qlora":
        with torch.device("meta"):
            quantised = quantised_weights(shapes_of_base(run))
    return {
        name: replace(one, dtype=dtype, read=_read_as(one, dtype, quantise=name in quantised))
        for name, one in tensors.items()
    }


def _read_as(one: Tensor, dtype: torch.dtype, *, quantise: bool) -> Callable[[], torch.Tensor]:
    def read() -> torch.Tensor:
        weights = one.read().to(dtype)
        return as_quantised(weights) if quantise else weights

    return read
