"""ShareGPT turns: ``conversations`` of ``from`` and ``value``, calls and observations among them, ``tools`` beside."""

from typing import Any

from ftx.data.conversation import Message
from ftx.data.formats.checks import Parts, check_is_string, check_objects, optional_text, parsed, required, shown
from ftx.data.formats.tools import read_calls, read_functions

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}


def read_sharegpt(row: dict[str, Any]) -> Parts:
    """A ``function_call`` (JSON of one call or several) joins the assistant's message that it follows."""
    turns = parsed("conversations", required(row, "conversations"))
    check_objects("conversations", turns)
    system = optional_text(row, "system")
    messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
    for index, turn in enumerate(turns):
        try:
            _add_turn(messages, turn)
        except ValueError as error:
            raise ValueError(f"conversations[{index}]: {error}") from None
    return tuple(messages), read_functions(row.get("tools"))


def _add_turn(messages: list[Message], turn: dict[str, Any]) -> None:
    speaker = required(turn, "from")
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise ValueError(f"from must be one of {', '.join(ROLES)}, not {shown(speaker)}")
    role, value = ROLES[speaker], required(turn, "value")
    check_is_string("value", value)
    last: Message = messages[-1] if messages else {"role": None}
    if speaker == "function_call":
        calls = read_calls("value", value)
        if last["role"] == "assistant":
            messages[-1] = {**last, "tool_calls": [*last.get("tool_calls", []), *calls]}
        else:
            messages.append({"role": role, "content": None, "tool_calls": calls})
        return
    if role == "tool" and last["role"] != "tool" and not last.get("tool_calls"):
        raise ValueError(f"{speaker} comes without a function_call before it")
    messages.append({"role": role, "content": value})
