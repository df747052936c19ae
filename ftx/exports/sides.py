"""The trained model and what was made of it, asked the same things: logits, answers, tokens, renderings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from ftx.attention import unpacked_attention
from ftx.config.schema import RunConfig
from ftx.data.conversation import Conversation
from ftx.data.prepare import Prepared
from ftx.data.render import render, render_question, with_reasoning_by_its_name
from ftx.errors import UserError
from ftx.exports.llama_cpp import LlamaCpp
from ftx.exports.llama_server import LlamaChat
from ftx.generation import generate
from ftx.models import load_trained
from ftx.run_folder import RunFolder


class Side(Protocol):
    """Tokens come as lists of ids; logits are ``[tokens, vocabulary]`` in 32 bits."""

    def logits(self, tokens: Sequence[int]) -> np.ndarray: ...

    def answer(self, tokens: Sequence[int], *, most: int, stop: Sequence[int]) -> list[int]: ...

    def tokenize(self, text: str) -> list[int]: ...

    def controls(self) -> set[int]:
        """The tokens that are recognised when they are spelled out in a text."""

    def render(self, conversation: Conversation, *, question: bool) -> str: ...

    def chat(self, conversation: Conversation) -> str | None:
        """As the program that the export is for renders it before an answer; None where transformers is that."""


class Trained:
    """As it was trained: adapters on their base, held in the type that they were trained in, computed in 32 bits."""

    def __init__(self, folder: RunFolder, run: RunConfig, prepared: Prepared) -> None:
        self._prepared = prepared
        self._model = in_32_bits(load_trained(folder.model, on_a_processor(run), prepared.tokenizer))
        self.has_adapter = run.method.name != "full"

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        return _logits(self._model, tokens)

    def logits_of_base(self, tokens: Sequence[int]) -> np.ndarray:
        """Without the adapter."""
        with self._model.disable_adapter():  # type: ignore[operator]
            return _logits(self._model, tokens)

    def answer(self, tokens: Sequence[int], *, most: int, stop: Sequence[int]) -> list[int]:
        return _answer(self._model, tokens, most, stop)

    def tokenize(self, text: str) -> list[int]:
        return _tokenize(self._prepared.tokenizer, text)

    def controls(self) -> set[int]:
        return set(self._prepared.tokenizer.get_added_vocab().values())

    def render(self, conversation: Conversation, *, question: bool) -> str:
        """By ftx's own engine; what ``data.thinking`` does to conversations before them is no part of the template."""
        template = replace(self._prepared.template, thinking="template")
        special = self._prepared.tokenizer.special_tokens_map
        return (render_question if question else render)(conversation, template, special).text

    def chat(self, conversation: Conversation) -> str | None:
        """Without the begin token."""
        bos = self._prepared.tokenizer.bos_token
        return self.render(conversation, question=True).removeprefix(bos if isinstance(bos, str) else "")


class Merged:
    """A folder in Hugging Face layout, by transformers alone, as whoever downloads it would."""

    def __init__(self, folder: Path) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._model: PreTrainedModel = model.eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        return _logits(self._model, tokens)

    def answer(self, tokens: Sequence[int], *, most: int, stop: Sequence[int]) -> list[int]:
        return _answer(self._model, tokens, most, stop)

    def tokenize(self, text: str) -> list[int]:
        return _tokenize(self._tokenizer, text)

    def controls(self) -> set[int]:
        return set(self._tokenizer.get_added_vocab().values())

    def render(self, conversation: Conversation, *, question: bool) -> str:
        rendered: str = self._tokenizer.apply_chat_template(
            list(map(with_reasoning_by_its_name, conversation.messages)),
            tools=list(conversation.tools) or None,
            tokenize=False,
            add_generation_prompt=question,
        )
        return rendered

    def chat(self, _: Conversation) -> None:
        return None


class Gguf:
    """A file, by llama.cpp; its chat template by Jinja from what the file says, and by llama.cpp's own engine."""

    def __init__(self, file: Path, *, context: int) -> None:
        self._chat = LlamaChat(file)
        self._model = LlamaCpp(file, context=context, threads=torch.get_num_threads())
        self._template, self._special = _template_in(file)

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        return self._model.logits(tokens)

    def answer(self, tokens: Sequence[int], *, most: int, stop: Sequence[int]) -> list[int]:
        return self._model.answer(tokens, most=most, stop=stop)

    def tokenize(self, text: str) -> list[int]:
        return self._model.tokenize(text)

    def controls(self) -> set[int]:
        return self._model.controls()

    def render(self, conversation: Conversation, *, question: bool) -> str:
        rendered: str = render_jinja_template(
            conversations=[list(map(with_reasoning_by_its_name, conversation.messages))],
            tools=list(conversation.tools) or None,
            chat_template=self._template,
            add_generation_prompt=question,
            **self._special,
        )[0][0]
        return rendered

    def chat(self, conversation: Conversation) -> str:
        return self._chat.render(list(map(with_reasoning_by_its_name, conversation.messages)))


def _template_in(file: Path) -> tuple[str, dict[str, Any]]:
    """The chat template, and the texts of begin and end token."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    template, tokens = reader.get_field("tokenizer.chat_template"), reader.get_field("tokenizer.ggml.tokens")
    if template is None or tokens is None:
        raise UserError(f"{file}: has no chat template")
    special: dict[str, Any] = {}
    for name in ("bos", "eos"):
        field = reader.get_field(f"tokenizer.ggml.{name}_token_id")
        if field is not None:
            special[f"{name}_token"] = str(tokens.contents(int(field.contents())))
    return str(template.contents()), special


def on_a_processor(run: RunConfig) -> RunConfig:
    """The same model where nothing but a processor is needed."""
    return replace(
        run,
        hardware=replace(run.hardware, device="cpu"),
        model=replace(run.model, attention="auto", kernels="auto", loss="auto"),
    )


def in_32_bits(model: PreTrainedModel) -> PreTrainedModel:
    """The same values, computed with in 32 bits; quantised weights stay as they are."""
    for weights in model.parameters():
        if weights.is_floating_point():
            weights.data = weights.data.float()
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.float32  # type: ignore[assignment]
    return model.eval()


def _logits(model: PreTrainedModel, tokens: Sequence[int]) -> np.ndarray:
    with torch.no_grad(), unpacked_attention(model):
        found: np.ndarray = model(input_ids=torch.tensor([list(tokens)])).logits[0].float().numpy()
    return found


def _answer(model: PreTrainedModel, tokens: Sequence[int], most: int, stop: Sequence[int]) -> list[int]:
    return generate(model, [list(tokens)], max_new_tokens=most, batch_size=1, stop_ids=stop, pad_id=0)[0]


def _tokenize(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids
