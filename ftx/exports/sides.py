"""The trained model and what was made of it, asked the same things: logits, answers, tokens, renderings."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from peft.tuners.lora import Linear, LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from ftx.attention import unpacked_attention
from ftx.chatting.loading import template_in
from ftx.config.schema import RunConfig
from ftx.data.conversation import Conversation
from ftx.data.render import render, render_question, with_reasoning_by_its_name
from ftx.data.tokenize import end_of_answer
from ftx.errors import UserError
from ftx.exports.llama_cpp import LlamaCpp
from ftx.exports.llama_server import LlamaChat
from ftx.generation import generate
from ftx.generation_settings import as_list
from ftx.models import load_model, load_trained
from ftx.precision import starting_type
from ftx.run_folder import RunFolder

# Of a model that says nothing of it.
LONGEST_KNOWN = 512
SPECIAL = ("bos_token", "eos_token")


class Side(Protocol):
    """Tokens come as lists of ids; logits are ``[tokens, vocabulary]`` in 32 bits, of the last ``last`` tokens."""

    def logits(self, tokens: Sequence[int], *, last: int) -> np.ndarray: ...

    def answer(self, tokens: Sequence[int], *, most: int, stop: Sequence[int]) -> list[int]: ...

    def tokenize(self, text: str) -> list[int]: ...

    def controls(self) -> set[int]:
        """The tokens that are recognised when they are spelled out in a text."""

    def ends(self) -> set[int]:
        """The tokens that it stops generating at."""

    def special(self) -> dict[str, str | None]:
        """The texts of begin and end token."""

    def render(self, conversation: Conversation, *, question: bool) -> str: ...

    def prompt(self, text: str) -> list[int]:
        """Of a rendered question, as the program that the export is for cuts it."""

    def chat(self, conversation: Conversation) -> str | None:
        """As the program that the export is for renders it before an answer; None where transformers is that."""


class Trained:
    """As it was trained: adapters on their base, held in the type that they were trained in; ``dtype``: computed in."""

    def __init__(
        self, folder: RunFolder, run: RunConfig, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype
    ) -> None:
        self._dtype = dtype
        self._run, self._tokenizer, self.template = run, tokenizer, template_in(run, tokenizer)
        self._model = computing_in(dtype, load_trained(folder.model, on_a_processor(run), tokenizer))
        self.has_adapter = run.method.name != "full"
        self.model_limit: int = getattr(self._model.config, "max_position_embeddings", None) or LONGEST_KNOWN

    def logits(self, tokens: Sequence[int], *, last: int) -> np.ndarray:
        return _logits(self._model, tokens, last)

    def logits_of_base(self, tokens: Sequence[int], *, last: int) -> np.ndarray:
        """Without the adapter; to be asked before it is merged."""
        with self._model.disable_adapter():  # type: ignore[operator]
            return _logits(self._model, tokens, last)

    def merge(self) -> None:
        """Bring the adapter into the weights by peft's own sums, each weight rounded once to the type that it goes in:
        what a sound export holds. It cannot be taken out again."""
        if self.has_adapter:
            merge_by_peft(self._model, starting_type(self._run), self._dtype)

    def answer(self, tokens: Sequence[int], *, most: int, stop: Sequence[int]) -> list[int]:
        return _answer(self._model, tokens, most, stop)

    def tokenize(self, text: str) -> list[int]:
        return _tokenize(self._tokenizer, text)

    def controls(self) -> set[int]:
        return set(self._tokenizer.get_added_vocab().values())

    def ends(self) -> set[int]:
        """Where its answers ended in training, and where the base's do."""
        return {*end_of_answer(self._tokenizer), *as_list(self._model.generation_config.eos_token_id)}

    def special(self) -> dict[str, str | None]:
        return _special_of(self._tokenizer)

    def prompt(self, text: str) -> list[int]:
        return self.tokenize(text)

    def render(self, conversation: Conversation, *, question: bool) -> str:
        """By ftx's own engine; what ``data.thinking`` does to conversations before them is no part of the template."""
        template = replace(self.template, thinking="template")
        special = self._tokenizer.special_tokens_map
        return (render_question if question else render)(conversation, template, special).text

    def chat(self, conversation: Conversation) -> str:
        """Without the begin token."""
        bos = self._tokenizer.bos_token
        return self.render(conversation, question=True).removeprefix(bos if isinstance(bos, str) else "")


class Untrained:
    """The weights that a run started from."""

    def __init__(self, run: RunConfig, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype) -> None:
        self._model = computing_in(dtype, load_model(on_a_processor(run), tokenizer))

    def logits(self, tokens: Sequence[int], *, last: int) -> np.ndarray:
        return _logits(self._model, tokens, last)


class Merged:
    """A folder in Hugging Face layout, by transformers alone, as whoever downloads it would."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self._model: PreTrainedModel = model.eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def logits(self, tokens: Sequence[int], *, last: int) -> np.ndarray:
        return _logits(self._model, tokens, last)

    def answer(self, tokens: Sequence[int], *, most: int, stop: Sequence[int]) -> list[int]:
        return _answer(self._model, tokens, most, stop)

    def tokenize(self, text: str) -> list[int]:
        return _tokenize(self._tokenizer, text)

    def controls(self) -> set[int]:
        return set(self._tokenizer.get_added_vocab().values())

    def ends(self) -> set[int]:
        return set(as_list(self._model.generation_config.eos_token_id))

    def special(self) -> dict[str, str | None]:
        return _special_of(self._tokenizer)

    def prompt(self, text: str) -> list[int]:
        return self.tokenize(text)

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

    def logits(self, tokens: Sequence[int], *, last: int) -> np.ndarray:
        return self._model.logits(tokens, last=last)

    def answer(self, tokens: Sequence[int], *, most: int, stop: Sequence[int]) -> list[int]:
        return self._model.answer(tokens, most=most, stop=stop)

    def tokenize(self, text: str) -> list[int]:
        return self._model.tokenize(text)

    def controls(self) -> set[int]:
        return self._model.controls()

    def ends(self) -> set[int]:
        return self._model.all_ends()

    def special(self) -> dict[str, str | None]:
        return {name: self._special.get(name) for name in SPECIAL}

    def prompt(self, text: str) -> list[int]:
        """The begin token is llama.cpp's to add."""
        bos = self._special.get("bos_token")
        return self._model.tokenize(text.removeprefix(bos or ""), add_special=True)

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


def _special_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, str | None]:
    return {name: str(text) if (text := getattr(tokenizer, name)) is not None else None for name in SPECIAL}


def on_a_processor(run: RunConfig) -> RunConfig:
    """The same model where nothing but a processor is needed."""
    return replace(
        run,
        hardware=replace(run.hardware, device="cpu"),
        model=replace(run.model, attention="auto", kernels="auto", loss="auto"),
    )


def in_32_bits(model: PreTrainedModel) -> PreTrainedModel:
    """The same values, computed with in 32 bits; quantised weights stay as they are."""
    return computing_in(torch.float32, model)


def computing_in(dtype: torch.dtype, model: PreTrainedModel) -> PreTrainedModel:
    """The same for another type, which adapters are not held in, so that they lose nothing."""
    for name, weights in model.named_parameters():
        if weights.is_floating_point():
            weights.data = weights.data.to(torch.float32 if "lora_" in name else dtype)
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = dtype  # type: ignore[assignment]
    return model.eval()


def merge_by_peft(model: PreTrainedModel, dtype: torch.dtype, computed_in: torch.dtype = torch.float32) -> None:
    """Each adapter into its own weights in 32 bits, rounded to ``dtype``; weights that were shared are no longer."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            base: Any = layer.get_base_layer()
            if hasattr(base.weight, "quant_state"):
                layer.base_layer = base = _dequantised(base)
            base.weight = torch.nn.Parameter(base.weight.detach().float().clone(), requires_grad=False)
            # Of 4-bit layers peft's own would quantise the sum again.
            (Linear.merge if isinstance(base, torch.nn.Linear) else type(layer).merge)(layer)  # type: ignore[arg-type]
            base.weight.data = base.weight.data.to(dtype).to(computed_in)


def _dequantised(layer: torch.nn.Module) -> torch.nn.Linear:
    from bitsandbytes.functional import dequantize_4bit

    weight: torch.Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)  # type: ignore[union-attr, arg-type]
    plain = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None, device="meta")
    plain.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
    if layer.bias is not None:
        plain.bias = layer.bias  # type: ignore[assignment]
    return plain


def _logits(model: PreTrainedModel, tokens: Sequence[int], last: int) -> np.ndarray:
    with torch.no_grad(), unpacked_attention(model):
        given = torch.tensor([list(tokens)])
        found: np.ndarray = model(input_ids=given, use_cache=False, logits_to_keep=last).logits[0].float().numpy()
    return found


def _answer(model: PreTrainedModel, tokens: Sequence[int], most: int, stop: Sequence[int]) -> list[int]:
    return generate(model, [list(tokens)], max_new_tokens=most, batch_size=1, stop_ids=stop, pad_id=0)[0]


def _tokenize(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids
