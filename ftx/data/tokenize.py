"""Conversations → rendered text → tokens and loss mask."""

import json
import logging
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from ftx.data.conversation import Conversation
from ftx.data.encode import Encoder, TokenBatch, control_tokens, exact_encoder
from ftx.data.render import BORDER, CLOSE, OPEN, Rendered, render, render_prompt
from ftx.errors import UserError
from ftx.templates import Template

log = logging.getLogger(__name__)

# Conversations encoded at once, about how many characters at most, and how many batches may wait for that.
BATCH, BATCH_CHARACTERS, AHEAD = 1000, 2**22, 16
END_OF_REASONING = "</think>"


@dataclass(frozen=True)
class Tokenized:
    """A conversation as tokens; ``supervised`` marks those of the assistant's that have a token before."""

    id: str
    input_ids: np.ndarray
    supervised: np.ndarray


@dataclass
class Noticed:
    """How many conversations were not taken quite as they are."""

    with_control_tokens: int = 0
    with_noncharacters: int = 0
    without_their_reasoning: int = 0


def tokenize(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, template: Template
) -> list[Tokenized]:
    """Tokens and loss mask of each conversation; raises UserError for one of which nothing would be learned."""
    tokenized: list[Tokenized] = []
    for ids, batch in tokenize_batches(conversations, tokenizer, template, exact_encoder(tokenizer), Noticed()):
        tokenized += map(Tokenized, ids, *_separate(batch))
    return tokenized


def tokenize_prompts(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, template: Template
) -> list[list[int]]:
    """What ``render_prompt`` gives, as tokens: the same ones that ``tokenize`` has before the last answer."""
    guard = _Guard(tokenizer, Noticed())
    rendered = [render_prompt(guard(one), template, tokenizer.special_tokens_map) for one in conversations]
    input_ids, _ = _separate(exact_encoder(tokenizer)(rendered))
    return [ids.tolist() for ids in input_ids]


def tokenize_batches(
    conversations: Iterable[Conversation],
    tokenizer: PreTrainedTokenizerFast,
    template: Template,
    encoder: Encoder,
    noticed: Noticed,
) -> Iterator[tuple[list[str], TokenBatch]]:
    """Ids and tokens of the conversations, a batch at a time; while some are encoded the next ones are rendered.

    Raises UserError for a conversation of which nothing would be learned.
    """
    with ThreadPoolExecutor(1) as encoding:
        waiting: deque[tuple[list[str], Future[TokenBatch]]] = deque()
        for ids, rendered in _rendered_batches(conversations, tokenizer, template, noticed):
            waiting.append((ids, encoding.submit(encoder, rendered)))
            while len(waiting) > AHEAD or (waiting and waiting[0][1].done()):
                yield _checked(*waiting.popleft(), template)
        while waiting:
            yield _checked(*waiting.popleft(), template)


def _rendered_batches(
    conversations: Iterable[Conversation], tokenizer: PreTrainedTokenizerFast, template: Template, noticed: Noticed
) -> Iterator[tuple[list[str], list[Rendered]]]:
    guard = _Guard(tokenizer, noticed)
    special = tokenizer.special_tokens_map
    ids: list[str] = []
    rendered: list[Rendered] = []
    characters = 0
    for conversation in conversations:
        one = render(guard(conversation), template, special)
        noticed.without_their_reasoning += _lost_reasoning(conversation, one)
        ids.append(conversation.id)
        rendered.append(one)
        characters += sum(map(len, one.pieces))
        if len(ids) == BATCH or characters > BATCH_CHARACTERS:
            yield ids, rendered
            ids, rendered, characters = [], [], 0
    if ids:
        yield ids, rendered


def supervised_counts(batch: TokenBatch) -> np.ndarray:
    """Supervised tokens of each conversation: every second of its runs."""
    starts = np.concatenate([[0], np.cumsum(batch.run_counts)])
    number_in_conversation = np.arange(len(batch.runs)) - np.repeat(starts[:-1], batch.run_counts)
    sums = np.concatenate([[0], np.cumsum(np.where(number_in_conversation % 2, batch.runs, 0))])
    return np.diff(sums[starts])


def marks_of(runs: np.ndarray) -> np.ndarray:
    """Which tokens are supervised, one bool each: the inverse of ``runs_of``."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


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


class _Guard:
    """Only the template ends a turn: a border inside every ``<|im_end|>`` and the like that somebody wrote.

    The noncharacters that rendering uses as its own marks become U+FFFD.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, noticed: Noticed) -> None:
        control = control_tokens(tokenizer)
        self._noticed = noticed
        self._control = re.compile("|".join(map(re.escape, control)) or "(?!)")
        self._prefix = os.path.commonprefix(control)  # noqa: RUF071 - of strings, not of paths
        self._ours = re.compile(f"[{BORDER}{OPEN}{CLOSE}]")

    def __call__(self, conversation: Conversation) -> Conversation:
        texts = [*_texts(conversation.messages), *(_texts(conversation.tools) if conversation.tools else ())]
        control = any(self._prefix in text and self._control.search(text) for text in texts)
        ours = any(not text.isascii() and self._ours.search(text) for text in texts)
        if not (control or ours):
            return conversation
        self._noticed.with_control_tokens += control
        self._noticed.with_noncharacters += ours
        guarded = self._guarded
        return replace(
            conversation,
            messages=tuple(map(guarded, conversation.messages)),
            tools=tuple(map(guarded, conversation.tools)),
        )

    def _guarded(self, value: Any) -> Any:
        if isinstance(value, str):
            text = self._ours.sub("\ufffd", value)
            return self._control.sub(lambda found: found[0][:1] + BORDER + found[0][1:], text)
        if isinstance(value, dict):
            return {self._guarded(name): self._guarded(one) for name, one in value.items()}
        return [self._guarded(one) for one in value] if isinstance(value, list) else value


def _texts(values: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every string in messages or tools; keys and strings further inside as JSON of the whole."""
    texts = []
    for value in values:
        for one in value.values():
            if type(one) is str:
                texts.append(one)
            elif one is not None:
                texts.append(json.dumps(one, ensure_ascii=False))
    return texts


def _lost_reasoning(conversation: Conversation, rendered: Rendered) -> bool:
    """Whether the template left out an answer's ``<think>`` block."""
    written = 0
    for message in conversation.messages:
        if message["role"] == "assistant" and message.get("content"):
            written += message["content"].count(END_OF_REASONING)
    return bool(written) and written > sum(piece.count(END_OF_REASONING) for piece in rendered.pieces)


def _checked(ids: list[str], encoded: "Future[TokenBatch]", template: Template) -> tuple[list[str], TokenBatch]:
    batch = encoded.result()
    empty = np.flatnonzero(supervised_counts(batch) == 0)
    if len(empty):
        raise UserError(f"{ids[empty[0]]}: template '{template.name}' leaves no token of it to learn from")
    return ids, batch


def _separate(batch: TokenBatch) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Token ids, and marks of the supervised ones, of each conversation."""
    token_borders = np.cumsum(batch.lengths)[:-1]
    run_borders = np.cumsum(batch.run_counts)[:-1]
    return np.split(batch.input_ids, token_borders), list(map(marks_of, np.split(batch.runs, run_borders)))
