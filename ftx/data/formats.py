"""From rows to conversations: one pure function per shape of row, chosen by the row's keys.

The functions per shape raise ``ValueError`` with the reason alone; ``to_conversation`` adds the file and the line.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftx.data.conversation import Conversation, Message
from ftx.data.rows import BadRow, Row, json_type, parse_json

ROLES = ("system", "developer", "user", "assistant", "tool")
_ACCEPTED = "accepted: messages (+ tools), or prompt and completion (+ tools)"


def to_conversation(row: Row, path: Path) -> Conversation:
    """The conversation that a row holds; ``BadRow`` where it holds none that can be learned from.

    A key whose value is null counts as absent, as parquet writes absent keys: in the row, and in each message.
    """
    present = {key: value for key, value in row.value.items() if value is not None}
    try:
        messages = _format_of(present)(present)
        _check_has_answer(messages)
        tools = read_tools(present.get("tools"))
    except ValueError as error:
        raise BadRow(path, row.number, str(error)) from None
    return Conversation(id=f"{path.name}:{row.number}", messages=messages, tools=tools)


def read_messages(row: dict[str, Any]) -> tuple[Message, ...]:
    """``messages``: a list of objects, or JSON text of one."""
    messages = row["messages"]
    return _checked_messages("messages", _parsed("messages", messages) if isinstance(messages, str) else messages)


def read_prompt_completion(row: dict[str, Any]) -> tuple[Message, ...]:
    """``prompt`` and ``completion``: two strings, or two lists of messages."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        if not completion.strip():
            raise ValueError("completion is empty; there is nothing to learn from")
        return {"role": "user", "content": prompt}, {"role": "assistant", "content": completion}
    if isinstance(prompt, list) and isinstance(completion, list):
        answer = _checked_messages("completion", completion)
        _check_has_answer(answer, "completion")
        return (*(_checked_messages("prompt", prompt) if prompt else ()), *answer)
    kinds = f"{json_type(prompt)} and {json_type(completion)}"
    raise ValueError(f"prompt and completion must be two strings or two lists of messages, not {kinds}")


def read_tools(tools: Any) -> tuple[dict[str, Any], ...]:
    """``tools``: a list of objects, JSON text of one, or nothing (null, an empty string)."""
    if isinstance(tools, str):
        tools = _parsed("tools", tools) if tools.strip() else None
    if tools is None:
        return ()
    _check_objects("tools", tools)
    return tuple(tools)


_FORMATS: tuple[tuple[tuple[str, ...], Callable[[dict[str, Any]], tuple[Message, ...]]], ...] = (
    (("messages",), read_messages),
    (("prompt", "completion"), read_prompt_completion),
)


def _format_of(row: dict[str, Any]) -> Callable[[dict[str, Any]], tuple[Message, ...]]:
    for keys, read in _FORMATS:
        if all(key in row for key in keys):
            return read
    raise ValueError(f"unknown shape of row: it has {_keys_of(row)}; {_ACCEPTED}")


def _checked_messages(where: str, messages: Any) -> tuple[Message, ...]:
    _check_objects(where, messages)
    if not messages:
        raise ValueError(f"{where} is an empty list; it needs at least one message")
    return tuple(_checked_message(f"{where}[{index}]", message) for index, message in enumerate(messages))


def _checked_message(where: str, raw: dict[str, Any]) -> Message:
    message = {key: value for key, value in raw.items() if value is not None}
    if "role" not in message:
        raise ValueError(f"{where} has no role; it has {_keys_of(message)}")
    if message["role"] not in ROLES:
        raise ValueError(f"{where}.role must be one of {', '.join(ROLES)}, not {_shown(message['role'])}")
    if "tool_calls" in message:
        _check_objects(f"{where}.tool_calls", message["tool_calls"])
    if "content" not in message:
        if message["role"] != "assistant" or not message.get("tool_calls"):
            raise ValueError(f"{where} has no content; only an assistant message with tool_calls may go without")
        return {**message, "content": None}
    if not isinstance(message["content"], str):
        raise ValueError(f"{where}.content must be a string, not {json_type(message['content'])}")
    return message


def _check_has_answer(messages: tuple[Message, ...], where: str = "messages") -> None:
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError(f"{where} has no assistant message; there is nothing to learn from")


def _check_objects(where: str, values: Any) -> None:
    if not isinstance(values, list):
        raise ValueError(f"{where} must be a list of objects, not {json_type(values)}")
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise ValueError(f"{where}[{index}] must be an object, not {json_type(value)}")


def _parsed(key: str, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{key} is {error}") from None


def _keys_of(row: dict[str, Any]) -> str:
    shown = ", ".join(_shown(key) for key in list(row)[:8])
    return f"the keys {shown}{', ...' if len(row) > 8 else ''}" if row else "no keys"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
