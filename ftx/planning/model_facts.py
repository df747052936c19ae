"""The dimensions of a run's model, without its weights."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ftx.config.model_schema import ArchitectureConfig, ModelConfig
from ftx.config.schema import RunConfig
from ftx.environment import CHECKOUT
from ftx.errors import UserError

# transformers' model_type → the family whose layers it has.
FAMILIES = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama", "mistral": "llama", "olmo2": "olmo2"}
CONFIG = "config.json"
# Seconds that the hub has for an answer: a plan is there at once, or says why not.
PATIENCE = 3


def architecture_of(run: RunConfig) -> ArchitectureConfig:
    """As the model's own config.json says where that is here, else as the choice of model does, else as the hub does.

    Raises UserError where nobody knows them, and for a family that is built otherwise.
    """
    if run.model.weights == "random":
        return run.model.architecture
    name = str(run.model.name)
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.count("/") != 1 or name.startswith((".", "~"))):
        raise UserError(f"model.name={name}: no such folder, and no OWNER/NAME on the hub")
    file = folder / CONFIG if folder.is_dir() else _in_cache(name, run.model.revision)
    if file is None and run.model.architecture != ArchitectureConfig() and _is_of(run.model):
        return run.model.architecture
    return read_architecture(file or _fetched(name, run.model.revision), name)


def _is_of(model: ModelConfig) -> bool:
    """Whether the dimensions are those of the model that is named: a choice brings both, a word may name another."""
    owners = {choice["name"] for choice in _choices() if choice.get("architecture") == asdict(model.architecture)}
    return not owners or model.name in owners


@cache
def _choices() -> list[dict[str, Any]]:
    """The models that come with ftx."""
    files = sorted((CHECKOUT / "conf" / "model").glob("*.yaml"))
    values = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    return [choice for choice in values if choice.get("name")]


def read_architecture(file: Path, name: str) -> ArchitectureConfig:
    """Of a model in Hugging Face layout; ``name`` is how the user calls it."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
        return _architecture(config, name)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.name={name}: {file} does not describe a model ({error}); mend it, or give another"
        ) from error


def _architecture(config: dict[str, Any], name: str) -> ArchitectureConfig:
    kind = config.get("model_type")
    family = FAMILIES.get(str(kind))
    if family is None or config.get("attention_bias") or config.get("mlp_bias"):
        raise UserError(
            f"model.name={name}: a plan knows the layers of {', '.join(FAMILIES)} without biases of their own, "
            f"and this is {kind}"
        )
    heads, hidden = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    return ArchitectureConfig(
        family=family,
        vocabulary_size=_size(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_size(config, "intermediate_size"),
        layers=_size(config, "num_hidden_layers"),
        heads=heads,
        key_value_heads=_size(config, "num_key_value_heads", heads),
        head_dim=_size(config, "head_dim", hidden // heads),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _size(config: dict[str, Any], key: str, usual: int | None = None) -> int:
    """``usual``: where the configuration leaves it out or says null."""
    value = usual if config.get(key) is None else config[key]
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} is {json.dumps(value)}, where a number belongs")
    return value


def _in_cache(name: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, CONFIG, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _fetched(name: str, revision: str) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    from ftx.data.hub_names import line

    try:
        # It asks once, where a download tries for half a minute and says so each time.
        get_hf_file_metadata(hf_hub_url(name, CONFIG, revision=revision), timeout=PATIENCE)
        return Path(hf_hub_download(name, CONFIG, revision=revision, etag_timeout=PATIENCE))
    except Exception as error:
        raise UserError(
            f"model.name={name}: nobody here knows its dimensions, and its config.json cannot be fetched "
            f"({line(error)}); mend the network or the name, or give a folder"
        ) from error
