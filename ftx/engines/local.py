"""The model in this process answers, in batches."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ftx.data.conversation import Conversation
from ftx.data.tokenize import stop_ids, tokenize_questions
from ftx.engines.engine import Answer, OnAnswer, Request, failed
from ftx.errors import UserError
from ftx.generation import Draw, generate
from ftx.templates import Template

log = logging.getLogger(__name__)

Place = int


class LocalEngine:
    """Answers by ``model.generate``; the same answers for any batch size, up to the arithmetic's own rounding."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, template: Template, batch_size: int
    ) -> None:
        self._model, self._tokenizer, self._template = model, tokenizer, template
        self._batch_size = batch_size

    def answer(self, requests: Sequence[Request], on_answer: OnAnswer | None = None) -> list[Answer]:
        answers: dict[Place, Answer] = {}

        def hear(place: Place, answer: Answer) -> None:
            answers[place] = answer
            if on_answer:
                on_answer(place, answer)

        asked = []
        for place, (request, prompt) in enumerate(zip(requests, self._prompts(requests), strict=True)):
            if isinstance(prompt, str):
                hear(place, failed(prompt))
            else:
                asked.append((place, request, prompt))
        for alike in _alike(asked):
            self._answer(alike, self._batch_size, hear)
        return [answers[place] for place in range(len(requests))]

    def _prompts(self, requests: Sequence[Request]) -> list[list[int] | str]:
        """The tokens of each, or why it cannot be asked."""
        asked = [Conversation(request.id, request.messages, request.tools) for request in requests]
        prompts: list[list[int] | str] = []
        try:
            prompts += tokenize_questions(asked, self._tokenizer, self._template)
        except UserError:
            prompts += [self._prompt(one) for one in asked]
        return [self._if_it_fits(prompt) for prompt in prompts]

    def _prompt(self, asked: Conversation) -> list[int] | str:
        try:
            return tokenize_questions([asked], self._tokenizer, self._template)[0]
        except UserError as error:
            return str(error)

    def _if_it_fits(self, prompt: list[int] | str) -> list[int] | str:
        if isinstance(prompt, str) or self._room(prompt) > 0:
            return prompt
        return f"too long: {len(prompt)} tokens, and the model takes {self._model.config.max_position_embeddings}"

    def _room(self, prompt: Sequence[int]) -> float:
        """Tokens that an answer may have before the model's last position."""
        return (getattr(self._model.config, "max_position_embeddings", None) or math.inf) - len(prompt)

    def _answer(self, asked: "Sequence[Asked]", batch_size: int, hear: OnAnswer) -> None:
        """Requests of one limit and kind; where a batch does not fit into memory, the rest goes in smaller ones."""
        answered: set[int] = set()
        most = [int(min(request.max_new_tokens, self._room(prompt))) for _, request, prompt in asked]
        began = time.time()

        def on_batch(chosen: list[int], generated: list[list[int]]) -> None:
            nonlocal began
            ended = time.time()
            kept = [tokens[: most[at]] for at, tokens in zip(chosen, generated, strict=True)]
            texts = self._tokenizer.batch_decode(kept, skip_special_tokens=False)
            for at, tokens, text in zip(chosen, kept, texts, strict=True):
                place, _, prompt = asked[at]
                finish: Literal["stop", "length"] = "length" if len(tokens) == most[at] else "stop"
                hear(place, Answer(text, len(tokens), len(prompt), began, ended, finish))
            answered.update(chosen)
            began = ended

        try:
            generate(
                self._model,
                [prompt for *_, prompt in asked],
                max_new_tokens=max(most),
                batch_size=batch_size,
                stop_ids=stop_ids(self._tokenizer, self._template),
                pad_id=self._tokenizer.pad_token_id or 0,
                draws=[_draw(request) for _, request, _ in asked] if asked[0][1].temperature else None,
                on_batch=on_batch,
            )
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            self._answer_less_at_once([one for at, one in enumerate(asked) if at not in answered], batch_size, hear)

    def _answer_less_at_once(self, asked: "Sequence[Asked]", batch_size: int, hear: OnAnswer) -> None:
        if batch_size > 1:
            log.warning("%d prompts at once do not fit into memory; going on with %d", batch_size, batch_size // 2)
            self._answer(asked, batch_size // 2, hear)
            return
        longest = max(asked, key=lambda one: len(one[2]))
        hear(longest[0], failed(f"out of memory with {len(longest[2])} tokens alone"))
        if rest := [one for one in asked if one is not longest]:
            self._answer(rest, batch_size, hear)


Asked = tuple[Place, Request, list[int]]


def _alike(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Those that can share a batch."""

    def kind(one: Asked) -> tuple[int, bool]:
        return one[1].max_new_tokens, one[1].temperature > 0

    return (list(group) for _, group in groupby(sorted(asked, key=kind), kind))


def _draw(request: Request) -> Draw:
    return Draw(request.drawn_by, request.temperature, request.top_p)
