"""The two plain formats: ``messages``, and ``prompt`` with ``completion``; ``tools`` go with either."""

from typing import Any

from ftx.data.conversation import Message
from ftx.data.formats.checks import (
    Parts,
    check_has_answer,
    check_is_string,
    check_objects,
    keys_of,
    parsed,
    required,
    shown,
)
from ftx.data.formats.tools import read_calls, read_tools
from ftx.data.rows import json_type

ROLES = ("system", "developer", "user", "assistant", "tool")


def read_messages(row: dict[str, Any]) -> Parts:
    """``messages``: a list of objects, or JSON text of one."""
    return checked_messages("messages", parsed("messages", required(row, "messages"))), read_tools(row.get("tools"))


def read_prompt_completion(row: dict[str, Any]) -> Parts:
    """``prompt`` and ``completion``: two strings, or two lists of messages."""
    return _prompt_and_completion(required(row, "prompt"), required(row, "completion")), read_tools(row.get("tools"))


def checked_messages(where: str, messages: Any) -> tuple[Message, ...]:
    check_objects(where, messages)
    if not messages:
        raise ValueError(f"{where} is an empty list; it needs at least one message")
    return tuple(_checked_message(f"{where}[{index}]", message) for index, message in enumerate(messages))


def _prompt_and_completion(prompt: Any, completion: Any) -> tuple[Message, ...]:
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion.strip():
            raise ValueError("completion is empty; there is nothing to learn from")
        return {"role": "user", "content": prompt}, {"role": "assistant", "content": completion}
    if isinstance(prompt, list) and isinstance(completion, list):
        answer = checked_messages("completion", completion)
        check_has_answer(answer, "completion")
        return (*(checked_messages("prompt", prompt) if prompt else ()), *answer)
    kinds = f"{json_type(prompt)} and {json_type(completion)}"
    raise ValueError(f"prompt and completion must be two strings or two lists of messages, not {kinds}")


def _checked_message(where: str, raw: dict[str, Any]) -> Message:
    message = {key: value for key, value in raw.items() if value is not None}
    if "role" not in message:
        raise ValueError(f"{where} has no role; it has {keys_of(message)}")
    if message["role"] not in ROLES:
        raise ValueError(f"{where}.role must be one of {', '.join(ROLES)}, not {shown(message['role'])}")
    if isinstance(message.get("content"), list):
        message = _without_parts(where, message)
    if "tool_calls" in message:
        check_objects(f"{where}.tool_calls", message["tool_calls"])
    if "content" not in message:
        if message["role"] != "assistant" or not message.get("tool_calls"):
            raise ValueError(f"{where} has no content; only an assistant message with tool_calls may go without")
        return {**message, "content": None}
    check_is_string(f"{where}.content", message["content"])
    return message


def _without_parts(where: str, message: Message) -> Message:
    """Content given as typed parts (text; the assistant's also reasoning and tool_call), as the keys they stand for."""
    texts: dict[str, list[str]] = {"content": [], "reasoning_content": []}
    calls = list(message.get("tool_calls", []))
    check_objects(f"{where}.content", message["content"])
    for index, part in enumerate(message["content"]):
        here = f"{where}.content[{index}]"
        kind, text = part.get("type"), part.get("text", part.get("value"))
        known = ("text", "reasoning", "tool_call") if message["role"] == "assistant" else ("text",)
        if kind not in known:
            raise ValueError(f"{here}.type must be {' or '.join(known)}, not {shown(kind)}")
        check_is_string(f"text or value of {here}", text)
        if kind == "tool_call":
            calls += read_calls(here, text)
        else:
            texts["content" if kind == "text" else "reasoning_content"].append(text)
    whole = {key: value for key, value in message.items() if key != "content"}
    joined = {key: "".join(parts) for key, parts in texts.items() if parts}
    return {**whole, **joined, **({"tool_calls": calls} if calls else {})}
