"""Models of transformers on which planning is checked: what autograd saves, and PyTorch's tracker over fake tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AttentionInterface, PreTrainedModel

from ftx import chunked_loss
from ftx.adapters import add_adapter
from ftx.architectures import FAMILIES, model_config
from ftx.config.model_schema import ArchitectureConfig
from ftx.config.schema import RunConfig
from ftx.head import loss_in_head, losses_of
from ftx.planning.numbers import Numbers, numbers_of

TYPES = {2: torch.bfloat16, 4: torch.float32}
LIKE_FLASH = "saves_alike"


class _LikeFlash(torch.autograd.Function):
    """Saves what FlashAttention does, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        tokens, heads, _ = query.shape
        result = torch.zeros_like(query)
        ctx.save_for_backward(query, key, value, result, torch.zeros(heads, tokens))
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.zeros_like(one) for one in ctx.saved_tensors[:3])


def _attention(module, query, key, value, mask, **others):
    parts = (part[0].transpose(0, 1) for part in (query, key, value))
    short = torch.is_autocast_enabled("cpu")
    return _LikeFlash.apply(*(part.to(torch.bfloat16) if short else part for part in parts))[None], None


AttentionInterface.register(LIKE_FLASH, _attention)


def built(run: RunConfig, architecture: ArchitectureConfig) -> PreTrainedModel:
    """The run's model as its training holds it, the matrices of method=qlora in 16 bits."""
    numbers = numbers_of(run)
    _, kind = FAMILIES[architecture.family]
    config = model_config(architecture)
    config.pad_token_id = 0
    model = kind._from_config(config, dtype=TYPES[numbers.base])
    model.set_attn_implementation(LIKE_FLASH)
    if run.method.name != "full":
        _freeze(model, numbers)
        masters = "fp32" if numbers.trained == 4 else "none"
        model = add_adapter(model, replace(run, method=replace(run.method, name="lora", master_weights=masters)))
    if run.hardware.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if run.method.name != "full":
            model.enable_input_require_grads()
    return model.train()


def _freeze(model: PreTrainedModel, numbers: Numbers) -> None:
    model.requires_grad_(False)
    for module in model.modules():
        own = list(module.named_parameters(recurse=False))
        if own and not isinstance(module, torch.nn.Linear) and all(weights.ndim == 1 for _, weights in own):
            for name, weights in own:
                kept = torch.nn.Parameter(weights.detach().to(TYPES[numbers.norm]), requires_grad=False)
                setattr(module, name, kept)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Dropout keeps a mask of bytes, and products are added up where they belong."""
    dropout, add = torch.nn.Dropout.forward, chunked_loss._add_product_
    torch.nn.Dropout.forward = lambda self, given: (
        torch.native_dropout(given, self.p, self.training)[0] if self.training and self.p else given
    )
    chunked_loss._add_product_ = lambda into, left, right: None
    try:
        yield
    finally:
        torch.nn.Dropout.forward, chunked_loss._add_product_ = dropout, add


def saved_by_a_layer(run: RunConfig, architecture: ArchitectureConfig, tokens: int) -> int:
    """Bytes that the second layer keeps for its backward pass, each storage once, parameters left out."""
    model = built(run, architecture)
    parameters = {weights.untyped_storage().data_ptr() for weights in model.parameters()}
    seen: dict[int, int] = {}
    kept, marks = [], []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters and storage.data_ptr() not in seen:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    layer = (model.get_base_model() if run.method.name != "full" else model).model.layers[1]
    layer.register_forward_pre_hook(lambda *_: marks.append(sum(seen.values())))
    layer.register_forward_hook(lambda *_: marks.append(sum(seen.values())))
    with (
        as_on_a_gpu(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=numbers_of(run).casts),
    ):
        model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    return marks[1] - marks[0]


class _Tracker(MemTracker):
    """PyTorch's, without its figures for each module, which take most of its time."""

    hooks = True

    def _track_module_params_and_buffers(self, module, install_grad_hooks=True):
        return super()._track_module_params_and_buffers(module, install_grad_hooks=install_grad_hooks and self.hooks)

    def _update_peak_stats(self, peak_state):
        for device, now in self._curr_mem_snap.items():
            if self._peak_mem.get(device, 0) < now["Total"]:
                self._peak_mem[device], self._peak_mem_snap[device] = now["Total"], dict(now)


def tracked_peak(run: RunConfig, architecture: ArchitectureConfig, tokens: int) -> int:
    """Bytes beyond weights and gradients at the fullest moment of a micro-batch, by MemTracker over fake tensors."""
    numbers = numbers_of(run)
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_a_gpu(), _parameters_replaced():
        model = built(run, architecture)
        loss_in_head(model, run.model.loss)
        causal = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
        causal.get_output_embeddings().forward.__self__._verified = True  # which looks at numbers
        for weights in model.parameters():
            if weights.requires_grad:
                weights.grad = torch.zeros_like(weights)
        tracker = _Tracker()
        tracker.hooks = run.method.name == "full"
        tracker.track_external(model)
        positions = torch.arange(tokens)
        batch = {"input_ids": positions[None] * 0, "position_ids": positions[None], "logits_to_keep": positions}
        with tracker:
            with torch.autocast("cpu", torch.bfloat16, enabled=numbers.casts):
                outputs = model(**batch, shift_labels=positions * 0, use_cache=False)
            loss = losses_of(outputs, positions * 0, "sum")
            del outputs
            loss.backward()
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    peak = {getattr(kind, "value", kind): size for kind, size in peak.items()}
    return peak["Total"] - peak["Parameter"] - peak["Gradient"]


@contextmanager
def _parameters_replaced() -> Iterator[None]:
    """Fake parameters cannot be converted in place: ``Module.to`` puts new ones there."""
    before = torch.nn.Module._apply

    def apply(self, function, recurse=True):
        for child in self.children():
            child._apply(function)
        for name, weights in self._parameters.items():
            if weights is not None and (changed := function(weights)) is not weights:
                kept = torch.nn.Parameter(changed.detach(), requires_grad=weights.requires_grad)
                self._parameters[name] = kept
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = function(buffer)
        return self

    torch.nn.Module._apply = apply
    try:
        yield
    finally:
        torch.nn.Module._apply = before
