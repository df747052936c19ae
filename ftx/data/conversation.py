"""The one shape that every source is brought into before it is rendered."""

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """One training or evaluation example.

    ``id`` says where it came from and stays the same from run to run (``chats.jsonl:12``). Conversations with one
    ``group`` (threads of one tree, methods of one class) always fall on the same side of the held-out split; an empty
    group stands for the conversation alone. ``rank`` is its place in a curriculum, the lowest first.
    """

    id: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    group: str = ""
    rank: float = 0.0
