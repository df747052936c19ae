"""Liger's Triton kernels in one model."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from transformers import PreTrainedModel

from ftx import progress
from ftx.config.schema import RunConfig
from ftx.errors import UserError

ROTARY = "apply_rotary_pos_emb"


def apply_kernels(model: PreTrainedModel, run: RunConfig) -> None:
    """Liger's norms, MLP and rotary embedding where ``model.kernels`` wants them; the loss is not Liger's but ours.

    Raises UserError for ``model.kernels=liger`` and a family that Liger does not know.
    """
    wanted = run.model.kernels
    if wanted == "none" or run.hardware.device != "cuda" or find_spec("liger_kernel") is None:
        return
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    family = model.config.model_type
    if family in MODEL_TYPE_TO_APPLY_LIGER_FN:
        put_in(model)
    elif wanted == "liger":
        raise UserError(f"model.kernels=liger: Liger has no kernels for {family} models; use model.kernels=auto")
    else:
        progress.say(f"model.kernels=auto: Liger has none for {family} models; PyTorch's own are used")


def put_in(model: PreTrainedModel) -> None:
    """Change this model and no other.

    Liger also replaces the classes in the family's module, so that later models would have its kernels too: these are
    put back. The rotary embedding is a function that all models of a family look up there: it goes by the device.
    """
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    shared = vars(sys.modules[type(model).__module__])
    before = dict(shared)
    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
    changed = {name: value for name, value in shared.items() if before.get(name) is not value}
    shared.update(before)
    if ROTARY in changed:
        shared[ROTARY] = _by_device(changed[ROTARY], before[ROTARY])


def _by_device(on_gpu: Callable[..., Any], elsewhere: Callable[..., Any]) -> Callable[..., Any]:
    def rotary(query: torch.Tensor, *others: Any, **named: Any) -> Any:
        return (on_gpu if query.is_cuda else elsewhere)(query, *others, **named)

    return rotary
