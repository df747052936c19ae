"""What answers questions: a model in this process, or a server behind an address."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ftx.data.conversation import Message
from ftx.tool_calls import Call


@dataclass(frozen=True)
class Request:
    """One question. Above ``temperature`` 0 what is drawn depends on ``seed`` and ``id`` alone."""

    id: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @property
    def drawn_by(self) -> int:
        """64 bits made of ``seed`` and ``id``."""
        digest = hashlib.sha256(f"{self.seed} {self.id}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


@dataclass(frozen=True)
class Answer:
    """What came back.

    ``text`` is as generated, with control text such as ``<tool_call>`` and without the end of the turn. ``began`` and
    ``ended`` are seconds since the epoch, of the batch that it was part of. ``calls`` is None where nobody has read
    them out of the text yet.
    """

    text: str
    tokens: int
    prompt_tokens: int
    began: float
    ended: float
    finish: Literal["stop", "length", "failed"]
    error: str = ""
    calls: tuple[Call, ...] | None = None


def failed(why: str) -> Answer:
    """The answer to a request that got none."""
    now = time.time()
    return Answer("", 0, 0, now, now, "failed", why)


# Hears the place of a request and its answer, as soon as there is one.
OnAnswer = Callable[[int, Answer], None]


class Engine(Protocol):
    """Answers many requests at once, in their order; one that cannot be answered is ``failed``, and never raises."""

    def answer(self, requests: Sequence[Request], on_answer: OnAnswer | None = None) -> list[Answer]: ...
