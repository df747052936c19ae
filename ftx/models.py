"""The model that a run starts from, and what its method makes trainable."""

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from ftx import architectures, progress
from ftx.adapters import add_adapter, check_quantised, load_adapter, prepare_frozen, quantised, quantised_loading
from ftx.attention import check_packable, implementation, register
from ftx.config.schema import RunConfig
from ftx.data.hub_names import keep_card
from ftx.errors import UserError
from ftx.generation_settings import let_it_be_written
from ftx.kernels import apply_kernels
from ftx.optimizers import lost_steps
from ftx.precision import starting_type

log = logging.getLogger(__name__)


def load_model(run: RunConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The starting weights, with packed attention; frozen, and quantised if need be, where adapters are trained.

    The same seed gives the same random weights.
    """
    register()
    if run.model.weights == "random":
        model = random_model(run, tokenizer)
        if run.method.name == "qlora":
            model = quantised(model, run)
    else:
        model = _pretrained(str(run.model.name), run.model.revision, starting_type(run), **quantised_loading(run))
        keep_card(str(run.model.name), run.model.revision)
    if run.method.name != "full":
        check_quantised(model, run)
        model = prepare_frozen(model, run)
    check_packable(model)
    model.set_attn_implementation(implementation(run))
    apply_kernels(model, run)
    if tokenizer.pad_token_id is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def random_model(run: RunConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The starting weights of ``model=tiny`` as they are before any method: the same seed gives the same ones."""
    torch.manual_seed(run.seed)
    model = architectures.random_model(run.model.architecture, tokenizer)
    torch.nn.Module.to(model, starting_type(run))
    return model


def load_base(run: RunConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """What a run without training scores: the starting weights, with ``model.adapter`` on them where one is named."""
    model = load_model(run, tokenizer)
    return load_adapter(model, Path(run.model.adapter), run) if run.model.adapter else model


def without_weights(run: RunConfig) -> PreTrainedModel:
    """What the run trains, in all its shapes but without a number: what it takes shows before anything is loaded.

    Raises UserError as ``load_model`` and ``trainable`` would.
    """
    with torch.device("meta"):
        model = shapes_of_base(run)
        if run.method.name != "full":
            model.requires_grad_(False)
            model = add_adapter(model, run)
    return model


def shapes_of_base(run: RunConfig) -> PreTrainedModel:
    """The starting model without a number in it; to be called within ``torch.device("meta")``."""
    model = architectures.random_model(run.model.architecture) if run.model.weights == "random" else _shapes_of(run)
    torch.nn.Module.to(model, starting_type(run))
    return model


def load_trained(folder: Path, run: RunConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A finished run's model: the folder's own weights, or its adapter on the run's starting weights."""
    if run.method.name == "full":
        register()
        model = _pretrained(str(folder), "main", starting_type(run))
        model.set_attn_implementation(implementation(run))
        apply_kernels(model, run)
        return model
    return load_adapter(load_model(run, tokenizer), folder, run)


def trainable(model: PreTrainedModel, run: RunConfig) -> PreTrainedModel:
    """The starting model with what the run's method and hardware want of it in training.

    Raises UserError for an adapter's targets that the model does not have.
    """
    if run.hardware.activation_checkpointing:
        _checkpoint_activations(model, offload=run.hardware.activation_offload)
    if run.method.name != "full":
        model = add_adapter(model, run)
    if run.method.master_weights == "none" and not run.method.stochastic_rounding:
        lost = lost_steps(model, run.schedule.learning_rate)
        if lost:
            log.warning("%s", lost)
    if run.method.optimizer.startswith("paged") and run.hardware.device == "cpu":
        progress.say(
            f"method.optimizer={run.method.optimizer}: a CPU has nothing to page to; its state stays in memory"
        )
    return model


def _checkpoint_activations(model: PreTrainedModel, *, offload: bool) -> None:
    """Without reentrant autograd, which would need inputs that take gradients and run a layer's hooks twice."""
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(options, offload=offload)
    elif offload:
        raise UserError("hardware.activation_offload=true: pip install 'transformers>=5.23', older ones cannot")
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def _pretrained(name: str, revision: str, held_in: torch.dtype, **options: Any) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=held_in, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"model.name={name}: cannot be loaded: {str(error).splitlines()[0]}") from error
    let_it_be_written(model.generation_config)
    return model


def _shapes_of(run: RunConfig) -> PreTrainedModel:
    name = str(run.model.name)
    try:
        config = AutoConfig.from_pretrained(name, revision=run.model.revision)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise UserError(f"model.name={name}: cannot be loaded: {str(error).splitlines()[0]}") from error
    return model
