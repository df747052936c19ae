"""Conversations → rendered text → tokens and loss mask."""

import copy
import logging
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jinja2 import TemplateError
from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from ftx.data.conversation import Conversation, Message
from ftx.errors import UserError
from ftx.templates import Template

log = logging.getLogger(__name__)

# Where a text must not become one token. A noncharacter, which Unicode keeps out of texts; from one that has it all the
# same it is dropped.
BORDER = "\ufdd0"


@dataclass(frozen=True)
class Rendered:
    """A conversation's text and the character spans ``[start, end)`` that the assistant wrote."""

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Tokenized:
    """A conversation as tokens; ``supervised`` marks those inside the assistant's spans that have a token before."""

    id: str
    input_ids: np.ndarray
    supervised: np.ndarray


def render(conversation: Conversation, template: Template, special_tokens: Mapping[str, Any]) -> Rendered:
    """The text that the model sees and what of it is to be learned."""
    return _render(conversation, template, special_tokens, add_generation_prompt=False)


def render_prompt(conversation: Conversation, template: Template, special_tokens: Mapping[str, Any]) -> Rendered:
    """Everything before the last assistant turn, and the header of the turn that the model has to write."""
    messages = conversation.messages
    last = max(at for at, message in enumerate(messages) if message["role"] == "assistant")
    before = replace(conversation, messages=messages[:last])
    return _render(before, template, special_tokens, add_generation_prompt=True)


def _render(
    conversation: Conversation, template: Template, special_tokens: Mapping[str, Any], *, add_generation_prompt: bool
) -> Rendered:
    try:
        rendered: Any = render_jinja_template(
            conversations=[list(conversation.messages)],
            tools=list(conversation.tools) or None,
            chat_template=template.text,
            return_assistant_tokens_mask=True,
            add_generation_prompt=add_generation_prompt,
            **special_tokens,
        )
    except TemplateError as error:
        raise UserError(f"{conversation.id}: template '{template.name}' cannot render it: {error}") from error
    texts, spans = rendered
    return Rendered(texts[0], tuple(spans[0]))


def tokenize(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, template: Template
) -> list[Tokenized]:
    """Tokens and loss mask of each conversation; raises UserError for one of which nothing would be learned."""
    rendered = [
        render(conversation, template, tokenizer.special_tokens_map)
        for conversation in _with_control_tokens_as_text(conversations, tokenizer)
    ]
    tokenized = []
    for conversation, (input_ids, supervised) in zip(conversations, _encode(rendered, tokenizer), strict=True):
        supervised[:1] = False
        if not supervised.any():
            raise UserError(f"{conversation.id}: template '{template.name}' leaves no token of it to learn from")
        tokenized.append(Tokenized(conversation.id, input_ids, supervised))
    return tokenized


def tokenize_prompts(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, template: Template
) -> list[list[int]]:
    """What ``render_prompt`` gives, as tokens: the same ones that ``tokenize`` has before the last answer."""
    rendered = [
        render_prompt(conversation, template, tokenizer.special_tokens_map)
        for conversation in _with_control_tokens_as_text(conversations, tokenizer)
    ]
    return [input_ids.tolist() for input_ids, _ in _encode(rendered, tokenizer)]


def _with_control_tokens_as_text(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast
) -> list[Conversation]:
    """With a border inside every ``<|im_end|>`` and the like that somebody wrote: only the template ends a turn."""
    control = _control_tokens(tokenizer)
    pattern = re.compile("|".join(map(re.escape, control)) or "(?!)")

    def guarded(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda found: found[0][:1] + BORDER + found[0][1:], value)
        if isinstance(value, dict):
            return {guarded(name): guarded(one) for name, one in value.items()}
        return [guarded(one) for one in value] if isinstance(value, list) else value

    result, found = [], 0
    for conversation in conversations:
        messages: tuple[Message, ...] = tuple(map(guarded, conversation.messages))
        tools = tuple(map(guarded, conversation.tools))
        found += (messages, tools) != (conversation.messages, conversation.tools)
        result.append(replace(conversation, messages=messages, tools=tools))
    if found:
        log.warning("%d conversations spell control tokens such as %s out; they are read as text", found, control[0])
    return result


def _control_tokens(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The longest first, so that a pattern of them finds the whole one."""
    control = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted(control, key=len, reverse=True)


def _encode(rendered: Sequence[Rendered], tokenizer: PreTrainedTokenizerFast) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token ids of each text, and which of them lie in one of its spans; no token reaches over the border of a span.

    The tokenizer alone would merge across one, as a header's newline with a newline that the answer begins with. But a
    model that has to answer gets a prompt that ends there.
    """
    control = tuple(_control_tokens(tokenizer))
    split = [_with_borders(one, control) for one in rendered]
    splitting = _splitting_at_borders(tokenizer.backend_tokenizer)
    encodings = splitting.encode_batch([one.text for one in split], add_special_tokens=False)
    return [
        (np.array(encoding.ids, dtype=np.int32), supervised_tokens(encoding.offsets, one.spans))
        for encoding, one in zip(encodings, split, strict=True)
    ]


def _with_borders(rendered: Rendered, control: tuple[str, ...]) -> Rendered:
    """The same with a BORDER where a span begins or ends, but for places where a control token splits the text anyway.

    Not there, because tokenizers of the SentencePiece kind mark the first word after a control token.
    """
    text = rendered.text
    borders = sorted({border for span in rendered.spans for border in span})
    borders = [at for at in borders if not text.endswith(control, 0, at) and not text.startswith(control, at)]
    pieces = [text[start:end] for start, end in zip([0, *borders], [*borders, None], strict=True)]
    spans = [(start + bisect_left(borders, start), end + bisect_left(borders, end)) for start, end in rendered.spans]
    return Rendered(BORDER.join(pieces), tuple(spans))


def _splitting_at_borders(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, but it makes no token over a BORDER and drops it."""
    splitting = copy.deepcopy(tokenizer)
    split = pre_tokenizers.Split(BORDER, "removed")
    own = splitting.pre_tokenizer
    splitting.pre_tokenizer = split if own is None else pre_tokenizers.Sequence([split, own])
    return splitting


def supervised_tokens(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Which tokens, given by their character offsets, lie in one of the spans."""
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    inside = np.zeros(len(starts), dtype=bool)
    for start, end in spans:
        inside |= (starts < end) & (ends > start)
    return inside


def stop_ids(tokenizer: PreTrainedTokenizerFast, template: Template) -> list[int]:
    """The tokens that end an answer: what the template closes an assistant's turn with, and the tokenizer's own end.

    Raises UserError where the template's end of turn is no token of this tokenizer: no answer would ever end.
    """
    block = re.search(r"\{%-?\s*generation\s*-?%\}(.*?)\{%-?\s*endgeneration", template.text, re.DOTALL)
    closing = re.findall(r"<\|[^|>]+\|>", block[1]) if block else []
    vocabulary = tokenizer.get_vocab()
    found = {vocabulary[text] for text in closing if text in vocabulary}
    if closing and not found:
        raise UserError(
            f"model.template={template.name}: its end of turn {closing[-1]} is no token of this model's tokenizer, so "
            "no answer would end; choose another template, or evaluation.tasks=[loss]"
        )
    return sorted(token for token in found | {tokenizer.eos_token_id} if token is not None)
