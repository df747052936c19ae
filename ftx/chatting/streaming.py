"""One answer, heard as it comes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast
from transformers.generation.streamers import BaseStreamer

from ftx.chatting.loading import Partner
from ftx.data.conversation import Conversation, Message
from ftx.data.tokenize import stop_ids, tokenize_questions
from ftx.engines.engine import Request
from ftx.errors import UserError
from ftx.generation import Draw, generate

# What a character decodes to whose bytes are not all there yet.
UNFINISHED = "\ufffd"


@dataclass(frozen=True)
class Settings:
    """At temperature 0 the likeliest token is taken each time, else ``seed`` says what is drawn."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int = 1024


def answer(
    partner: Partner, messages: Sequence[Message], settings: Settings, hear: Callable[[str], None], *, base: bool
) -> str:
    """The next turn; ``hear`` gets its text piece by piece. ``base``: of the model before its training.

    Raises UserError for what the template cannot render, or the model has no room for.
    """
    tokenizer, ends = partner.tokenizer, stop_ids(partner.tokenizer, partner.template)
    (prompt,) = tokenize_questions([Conversation("this chat", tuple(messages))], tokenizer, partner.template)
    room = getattr(partner.model.config, "max_position_embeddings", None) or len(prompt) + settings.max_tokens
    if len(prompt) >= room:
        raise UserError(f"the conversation has {len(prompt)} tokens, the model takes {room}; /reset begins a new one")
    request = Request(str(len(messages)), (), seed=settings.seed)
    draws = [Draw(request.drawn_by, settings.temperature, settings.top_p)] if settings.temperature > 0 else None
    with partner.speaking(base=base) as model:
        (tokens,) = generate(
            model,
            [prompt],
            max_new_tokens=min(settings.max_tokens, room - len(prompt)),
            batch_size=1,
            stop_ids=ends,
            pad_id=tokenizer.pad_token_id or 0,
            draws=draws,
            streamer=Pieces(tokenizer, ends, hear),
        )
    return str(tokenizer.decode(tokens, skip_special_tokens=False))


class Pieces(BaseStreamer):
    """Tokens become text as soon as the characters that they end are whole.

    Text is decoded from a few tokens before on, since a space may belong to the token that follows it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, ends: Sequence[int], hear: Callable[[str], None]) -> None:
        self._tokenizer, self._ends, self._hear = tokenizer, set(ends), hear
        self._tokens: list[int] = []
        self._before, self._said = 0, 0
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        if self._is_prompt:
            self._is_prompt = False
            return
        self._tokens += [token for token in value.flatten().tolist() if token not in self._ends]
        self._say(finished=False)

    def end(self) -> None:
        self._say(finished=True)

    def _say(self, *, finished: bool) -> None:
        known, now = self._text(self._before, self._said), self._text(self._before, len(self._tokens))
        if len(now) > len(known) and (finished or not now.endswith(UNFINISHED)):
            self._hear(now[len(known) :])
            self._before, self._said = self._said, len(self._tokens)

    def _text(self, begin: int, end: int) -> str:
        return str(self._tokenizer.decode(self._tokens[begin:end], skip_special_tokens=False))
