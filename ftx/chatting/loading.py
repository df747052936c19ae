"""The model to talk to, with the tokenizer and the template that it was trained with."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from ftx.config.schema import RunConfig
from ftx.data.model_parts import pretrained_parts
from ftx.errors import UserError
from ftx.models import load_base, load_model, load_trained
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
            self.base = _on_device(load_model(self.run, self.tokenizer), self.run)
        return self.base


def load_partner(folder: RunFolder | None, run: RunConfig, name: str) -> Partner:
    """A run's model from its folder, or what ``run`` starts from. Raises UserError."""
    if folder is not None and folder.model.is_dir():
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder.model)  # type: ignore[assignment]
        model = load_trained(folder.model, run, tokenizer)
        return Partner(name, run, _on_device(model, run), tokenizer, template_in(run, tokenizer))
    if run.model.weights == "random" or run.schedule.epochs != 0:
        raise UserError(f"{name}: has no model/ to talk to; the command that trained it goes on with it")
    parts = pretrained_parts(run)
    parts.tokenizer.chat_template = parts.template.text
    model = _on_device(load_base(run, parts.tokenizer), run)
    return Partner(name, run, model, parts.tokenizer, parts.template)


def template_in(run: RunConfig, tokenizer: PreTrainedTokenizerFast) -> Template:
    """The one that a trained model's tokenizer brings: what it was trained with, whatever templates/ has today."""
    return with_thinking(Template(OWN, str(tokenizer.chat_template)), run.data.thinking)


def _on_device(model: PreTrainedModel, run: RunConfig) -> PreTrainedModel:
    """Quantised models are loaded where they belong, and cannot be moved."""
    if run.hardware.device == "cuda" and run.method.name != "qlora":
        torch.nn.Module.to(model, "cuda")
    return model
