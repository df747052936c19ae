"""Only the template ends a turn: what texts of a conversation would do to rendering and tokens, undone and counted."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftx.data.conversation import Conversation

# What a template writes where the assistant's words begin and end: noncharacters, which Unicode keeps out of texts.
OPEN, CLOSE = "\ufdd1", "\ufdd2"
# Where a text must not become one token; see ftx.data.encode.
BORDER = "\ufdd0"


@dataclass
class Noticed:
    """How many conversations were not taken quite as they are, or not at all."""

    with_control_tokens: int = 0
    with_noncharacters: int = 0
    without_their_reasoning: int = 0
    refused: int = 0

    def add(self, other: "Noticed") -> None:
        self.with_control_tokens += other.with_control_tokens
        self.with_noncharacters += other.with_noncharacters
        self.without_their_reasoning += other.without_their_reasoning
        self.refused += other.refused


class Guard:
    """A border inside every ``<|im_end|>`` and the like that somebody wrote, so that it is read as text.

    The noncharacters that rendering uses as its own marks become U+FFFD.
    """

    def __init__(self, control: Sequence[str], noticed: Noticed) -> None:
        """``control``: the tokenizer's control tokens, the longest first."""
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
            # Again and again, for two of them can overlap; one of a single character cannot be taken apart.
            while (divided := self._control.sub(lambda found: BORDER.join(found[0]), text)) != text:
                text = divided
            return text
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
