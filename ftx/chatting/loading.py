"""The model to talk to, with the tokenizer and the template that it was trained with."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from ftx.config.schema import RunConfig
from ftx.data.model_parts import pretrained_parts
from ftx.errors import UserError
from ftx.models import load_base, load_model, load_trained
from ftx.precision import computing
from ftx.run_folder import RunFolder
from ftx.templates import OWN, Template, with_thinking


@dataclass
class Partner:
    """Whom one talks to; ``run`` says on what it is computed. The base of a full run is loaded when it is asked for."""

    name: str
    run: RunConfig
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    template: Template
    base: PreTrainedModel | None = None

    @property
    def has_adapter(self) -> bool:
        return hasattr(self.model, "disable_adapter")

    @property
    def has_base(self) -> bool:
        """Whether there is a model before the training."""
        return self.has_adapter or self.run.schedule.epochs != 0

    @contextmanager
    def speaking(self, *, base: bool) -> Iterator[PreTrainedModel]:
        """Within it the tuned model, or the one before the training, answers."""
        without: AbstractContextManager[Any] = nullcontext()
        model = self.model
        if base and self.has_adapter:
            without = self.model.disable_adapter()  # type: ignore[operator]
        elif base:
            model = self._loaded_base()
        with without:
            yield model

    def _loaded_base(self) -> PreTrainedModel:
        if self.base is None:
            self.base = _ready(load_model(self.run, self.tokenizer), self.run)
        return self.base


def load_partner(folder: RunFolder | None, run: RunConfig, name: str) -> Partner:
    """A run's model from its folder, or what ``run`` starts from. Raises UserError."""
    run = _to_be_asked(run)
    if folder is not None and folder.model.is_dir():
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder.model)  # type: ignore[assignment]
        model = load_trained(folder.model, run, tokenizer)
        return Partner(name, run, _ready(model, run), tokenizer, template_in(run, tokenizer))
    if run.model.weights == "random" or run.schedule.epochs != 0:
        raise UserError(f"{name}: has no model/ to talk to; the command that trained it goes on with it")
    parts = pretrained_parts(run)
    parts.tokenizer.chat_template = parts.template.text
    model = _ready(load_base(run, parts.tokenizer), run)
    return Partner(name, run, model, parts.tokenizer, parts.template)


def template_in(run: RunConfig, tokenizer: PreTrainedTokenizerFast) -> Template:
    """The one that a trained model's tokenizer brings: what it was trained with, whatever templates/ has today."""
    return with_thinking(Template(OWN, str(tokenizer.chat_template)), run.data.thinking)


def _to_be_asked(run: RunConfig) -> RunConfig:
    """Without the 32 bits that training in full keeps of every weight: nothing takes a step any more."""
    shorter = run.method.name == "full" and run.hardware.precision == "bf16"
    return replace(run, method=replace(run.method, master_weights="none")) if shorter else run


def _ready(model: PreTrainedModel, run: RunConfig) -> PreTrainedModel:
    """Where it is computed, and computing as in training. Quantised models are loaded there, and cannot be moved."""
    if run.hardware.device == "cuda" and run.method.name != "qlora":
        torch.nn.Module.to(model, "cuda")
    _compute_as_trained(model, run)
    return model


def _compute_as_trained(model: PreTrainedModel, run: RunConfig) -> None:
    """In every forward, whoever calls it: autocast is a thread's own, and a server generates in threads of its own.

    Of an adapter's base too, since that is what generates.
    """
    for part in {id(one): one for one in (model, getattr(model, "get_base_model", lambda: model)())}.values():
        part.forward = _computing(part.forward, run)


def _computing(forward: Callable[..., Any], run: RunConfig) -> Callable[..., Any]:
    @wraps(forward)
    def within(*given: Any, **named: Any) -> Any:
        with computing(run):
            return forward(*given, **named)

    return within
