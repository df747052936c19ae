"""torch.compile of a model's decoder layers: one graph before attention and one behind it, shared by all layers."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from ftx import progress
from ftx.config.schema import RunConfig
from ftx.config.training_checks import no_compiling
from ftx.errors import UserError

log = logging.getLogger(__name__)

# Compiling takes about a minute; a training with fewer floating-point operations is over before that is earned back.
WORTH_COMPILING = {"cpu": 1e14, "cuda": 1e16}


def decoder_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The blocks that the model's authors say are not to be split over devices."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def worth_compiling(run: RunConfig, model: PreTrainedModel, tokens: int) -> bool:
    """What ``model.compile`` comes to for a training on ``tokens`` tokens; says so where it cannot have its way.

    Raises UserError for ``always`` where nothing can be compiled.
    """
    choice, layers = run.model.compile, decoder_layers(model)
    if choice == "never":
        return False
    flops = 6.0 * tokens * sum(weights.numel() for layer in layers for weights in layer.parameters())
    if choice == "auto" and flops < WORTH_COMPILING[run.hardware.device]:
        return False
    obstacle = _obstacle(run, layers)
    if obstacle and choice == "always":
        raise UserError(f"model.compile=always: {obstacle}; model.compile=auto leaves it out")
    if obstacle:
        progress.say(f"model.compile=auto: layers are not compiled, {obstacle}")
    return not obstacle


def _obstacle(run: RunConfig, layers: list[torch.nn.Module]) -> str:
    if not layers:
        return "this model does not say what its layers are"
    if obstacle := no_compiling(run):
        return obstacle
    try:
        torch.compile(torch.nn.functional.silu, dynamic=True)(torch.ones(64, device=run.hardware.device))
    except Exception as error:
        log.debug("torch.compile", exc_info=error)
        return f"torch.compile does not work here ({type(error).__name__}; is there a C++ compiler?)"
    return ""


@contextmanager
def compiled_layers(model: torch.nn.Module, *, on: bool = True) -> Iterator[None]:
    """Within it the layers are compiled, for any number of tokens; compiling happens in the first step."""
    layers = decoder_layers(model) if on else []
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


@contextmanager
def without_compiling() -> Iterator[None]:
    """Within it compiled layers run as they are written: an evaluation is over before it would be compiled for."""
    with torch.compiler.set_stance("force_eager"):
        yield
