"""A saved adapter, and what each weight of its base becomes with it (Hu et al., 2021; Liu et al., 2024).

Names are those of the base's own weights. What peft can do beyond what ``ftx.adapters`` asks of it is refused.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ftx.errors import UserError

PREFIX = "base_model.model."
LINEAR_DOWN, LINEAR_UP, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"
EMBEDDING_DOWN, EMBEDDING_UP = ".lora_embedding_A", ".lora_embedding_B"
# Settings of peft's that would make other sums than those here.
STRANGE = ("rank_pattern", "alpha_pattern", "layer_replication", "alora_invocation_tokens", "trainable_token_indices")


@dataclass(frozen=True)
class Update:
    """What is added to one weight: ``up @ down``, scaled; an embedding holds both the other way round."""

    down: torch.Tensor
    up: torch.Tensor
    magnitude: torch.Tensor | None = None
    is_embedding: bool = False


@dataclass(frozen=True)
class Adapter:
    """``updates`` by the name of the weight that each belongs to; ``replaced`` are weights that were trained whole."""

    updates: dict[str, Update]
    replaced: dict[str, torch.Tensor]
    scaling: float
    transposed: bool
    """Whether layers hold ``[in, out]``, as GPT-2's do."""

    @property
    def touched(self) -> set[str]:
        return {*self.updates, *self.replaced}

    def apply(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The merged weight, in 32 bits where the adapter touches it and as it is elsewhere."""
        if name in self.replaced:
            return self.replaced[name]
        update = self.updates.get(name)
        if update is None:
            return weight
        added = (update.up.float() @ update.down.float()) * self.scaling
        if update.is_embedding or self.transposed:
            added = added.T
        merged = weight.float() + added
        if update.magnitude is None:
            return merged
        across = 0 if self.transposed else 1
        length = merged.norm(dim=across, keepdim=True)
        return merged * (update.magnitude.float().unsqueeze(across) / length)


def read_adapter(folder: Path) -> Adapter:
    """Raises UserError for what is no LoRA adapter, or one with settings that are not known here."""
    settings: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    strange = [name for name in STRANGE if settings.get(name)]
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none" or strange:
        raise UserError(f"{folder}: cannot be merged: {', '.join(strange) or 'it is no LoRA adapter without biases'}")
    rank = settings["r"]
    scaling = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    saved = {name.removeprefix(PREFIX): one for name, one in load_file(folder / "adapter_model.safetensors").items()}
    updates = {
        **_updates(saved, LINEAR_DOWN, LINEAR_UP, is_embedding=False),
        **_updates(saved, EMBEDDING_DOWN, EMBEDDING_UP, is_embedding=True),
    }
    # With an embedding's adapter peft saves what it is put on as well.
    whole = {name: one for name, one in saved.items() if ".lora_" not in name and ".base_layer." not in name}
    return Adapter(updates, whole, scaling, bool(settings.get("fan_in_fan_out")))


def _updates(saved: dict[str, torch.Tensor], down: str, up: str, *, is_embedding: bool) -> dict[str, Update]:
    found = {}
    for name in [name for name in saved if name.endswith(down)]:
        module = name.removesuffix(down)
        magnitude = next((one for key, one in saved.items() if key.startswith(f"{module}{MAGNITUDE}")), None)
        if is_embedding and magnitude is not None:
            raise UserError(f"method.lora.dora=true: {module} is an embedding, whose DoRA adapter cannot be merged")
        found[f"{module}.weight"] = Update(saved[name], saved[f"{module}{up}"], magnitude, is_embedding)
    return found
