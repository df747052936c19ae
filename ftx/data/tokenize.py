"""Conversations → rendered text → tokens and loss mask."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from ftx.data.conversation import Conversation
from ftx.errors import UserError
from ftx.templates import Template


@dataclass(frozen=True)
class Rendered:
    """A conversation's text and the character spans ``[start, end)`` that the assistant wrote."""

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Tokenized:
    """A conversation as tokens; ``supervised`` marks those inside the assistant's spans."""

    id: str
    input_ids: np.ndarray
    supervised: np.ndarray


def render(conversation: Conversation, template: Template, special_tokens: Mapping[str, Any]) -> Rendered:
    """The text that the model sees and what of it is to be learned."""
    rendered: Any = render_jinja_template(
        conversations=[list(conversation.messages)],
        tools=list(conversation.tools) or None,
        chat_template=template.text,
        return_assistant_tokens_mask=True,
        **special_tokens,
    )
    texts, spans = rendered
    return Rendered(texts[0], tuple(spans[0]))


def render_prompt(conversation: Conversation, template: Template, special_tokens: Mapping[str, Any]) -> str:
    """Everything before the last assistant turn, and the header of the turn that the model has to write."""
    messages = list(conversation.messages)
    last = max(at for at, message in enumerate(messages) if message["role"] == "assistant")
    rendered: Any = render_jinja_template(
        conversations=[messages[:last]],
        tools=list(conversation.tools) or None,
        chat_template=template.text,
        add_generation_prompt=True,
        **special_tokens,
    )
    return str(rendered[0][0])


def tokenize(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, template: Template
) -> list[Tokenized]:
    """Tokens and loss mask of each conversation; raises UserError for one of which nothing would be learned."""
    special = tokenizer.special_tokens_map
    rendered = [render(conversation, template, special) for conversation in conversations]
    encoded = tokenizer.backend_tokenizer.encode_batch([one.text for one in rendered], add_special_tokens=False)
    tokenized = []
    for conversation, text, encoding in zip(conversations, rendered, encoded, strict=True):
        supervised = supervised_tokens(encoding.offsets, text.spans)
        if not supervised.any():
            raise UserError(f"{conversation.id}: template '{template.name}' leaves no token of it to learn from")
        tokenized.append(Tokenized(conversation.id, np.array(encoding.ids, dtype=np.int32), supervised))
    return tokenized


def supervised_tokens(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Which tokens, given by their character offsets, lie in one of the spans."""
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    inside = np.zeros(len(starts), dtype=bool)
    for start, end in spans:
        inside |= (starts < end) & (ends > start)
    return inside


def stop_ids(tokenizer: PreTrainedTokenizerFast, template: Template) -> list[int]:
    """The tokens that end an answer: what the template closes an assistant's turn with, and the tokenizer's own end."""
    block = re.search(r"\{%-?\s*generation\s*-?%\}(.*?)\{%-?\s*endgeneration", template.text, re.DOTALL)
    closing = re.findall(r"<\|[^|>]+\|>", block[1]) if block else []
    vocabulary = tokenizer.get_vocab()
    found = {vocabulary[text] for text in closing if text in vocabulary} | {tokenizer.eos_token_id}
    return sorted(token for token in found if token is not None)
