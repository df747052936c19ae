"""Conversations → rendered text → tokens and loss mask."""

import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerFast

from ftx.data.conversation import Conversation
from ftx.data.encode import Encoder, TokenBatch, control_tokens, exact_encoder
from ftx.data.guard import Guard, Noticed
from ftx.data.render import BatchRenderer, RenderedBatch, before_the_answer, render_question
from ftx.errors import UserError
from ftx.templates import Template

log = logging.getLogger(__name__)

# Conversations that are rendered and encoded at once, and how many batches may wait for being encoded.
BATCH, AHEAD = 1000, 16


@dataclass(frozen=True)
class Tokenized:
    """A conversation as tokens; ``supervised`` marks those of the assistant's that have a token before."""

    id: str
    input_ids: np.ndarray
    supervised: np.ndarray


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
    return tokenize_questions(list(map(before_the_answer, conversations)), tokenizer, template)


def tokenize_questions(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, template: Template
) -> list[list[int]]:
    """What ``render_question`` gives, as tokens."""
    guard = Guard(control_tokens(tokenizer), Noticed())
    rendered = [render_question(guard(one), template, tokenizer.special_tokens_map) for one in conversations]
    input_ids, _ = _separate(exact_encoder(tokenizer)(rendered))
    return [ids.tolist() for ids in input_ids]


def tokenize_batches(
    conversations: Iterable[Conversation],
    tokenizer: PreTrainedTokenizerFast,
    template: Template,
    encoder: Encoder,
    noticed: Noticed,
) -> Iterator[tuple[list[str], TokenBatch]]:
    """Ids and tokens of the conversations, a batch at a time."""
    remaining = iter(conversations)
    batches = iter(lambda: list(islice(remaining, BATCH)), [])
    render_batch = BatchRenderer(template, tokenizer.special_tokens_map, control_tokens(tokenizer))
    rendered = map(render_batch, batches)
    return ((batch.ids, tokens) for batch, tokens in encode_batches(rendered, template, encoder, noticed))


def encode_batches(
    batches: Iterable[RenderedBatch], template: Template, encoder: Encoder, noticed: Noticed
) -> Iterator[tuple[RenderedBatch, TokenBatch]]:
    """Each batch with its tokens, in order; while some are encoded the next ones are rendered.

    Raises UserError for a conversation of which nothing would be learned.
    """
    with ThreadPoolExecutor(1) as encoding:
        waiting: deque[tuple[RenderedBatch, Future[TokenBatch]]] = deque()
        for batch in batches:
            noticed.add(batch.noticed)
            waiting.append((batch, encoding.submit(encoder, batch.rendered)))
            while len(waiting) > AHEAD or (waiting and waiting[0][1].done()):
                yield _checked(*waiting.popleft(), template)
        while waiting:
            yield _checked(*waiting.popleft(), template)


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
    closing, found = _closing(tokenizer, template.text)
    if closing and not found:
        raise UserError(
            f"model.template={template.name}: its end of turn {closing[-1]} is no token of this model's tokenizer, so "
            "no answer would end; choose another template, or evaluation.tasks=[loss]"
        )
    return sorted(token for token in found | {tokenizer.eos_token_id} if token is not None)


def end_of_answer(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The same of a tokenizer that brings its template; without the end of turn where that is no token."""
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    return sorted(token for token in _closing(tokenizer, template)[1] | {tokenizer.eos_token_id} if token is not None)


def _closing(tokenizer: PreTrainedTokenizerFast, template: str) -> tuple[list[str], set[int]]:
    """What a template closes an assistant's turn with, and which of it are tokens."""
    block = re.search(r"\{%-?\s*generation\s*-?%\}(.*?)\{%-?\s*endgeneration", template, re.DOTALL)
    closing = re.findall(r"<\|[^|>]+\|>", block[1]) if block else []
    vocabulary = tokenizer.get_vocab()
    return closing, {vocabulary[text] for text in closing if text in vocabulary}


def _checked(
    batch: RenderedBatch, encoded: "Future[TokenBatch]", template: Template
) -> tuple[RenderedBatch, TokenBatch]:
    tokens = encoded.result()
    empty = np.flatnonzero(supervised_counts(tokens) == 0)
    if len(empty):
        raise UserError(f"{batch.ids[empty[0]]}: template '{template.name}' leaves no token of it to learn from")
    return batch, tokens


def _separate(batch: TokenBatch) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Token ids, and marks of the supervised ones, of each conversation."""
    if not len(batch.lengths):
        return [], []
    token_borders = np.cumsum(batch.lengths)[:-1]
    run_borders = np.cumsum(batch.run_counts)[:-1]
    return np.split(batch.input_ids, token_borders), list(map(marks_of, np.split(batch.runs, run_borders)))
