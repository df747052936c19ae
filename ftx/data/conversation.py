"""The one shape that every source is brought into before it is rendered."""

import json
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
# Id, group, rank, and messages and tools as JSON: what a conversation is on disk, and between processes.
Stored = tuple[str, str, float, str]

# Made once: json.dumps would make an encoder for each conversation.
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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


def to_stored(conversation: Conversation) -> Stored:
    body = _ENCODE([conversation.messages, conversation.tools])
    return conversation.id, conversation.group, conversation.rank, body


def from_stored(stored: Stored) -> Conversation:
    """The inverse of ``to_stored``."""
    name, group, rank, body = stored
    messages, tools = json.loads(body)
    return Conversation(name, tuple(messages), tuple(tools), group, rank)
