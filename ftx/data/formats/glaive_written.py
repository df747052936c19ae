"""A conversation with functions as Glaive wrote it: plain turns, for models whose template has no place for tools."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ftx.data.conversation import Message
from ftx.data.formats.glaive import CALL
from ftx.data.formats.tools import as_call

PREAMBLE = "You are a helpful assistant with access to the following functions. Use them if required"


def written_as_glaive(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """The functions in the system's turn, calls as ``<functioncall>``, their results as turns of the user."""
    turns = list(messages)
    before = str(turns.pop(0)["content"]) if turns and turns[0]["role"] == "system" else PREAMBLE
    functions = "\n\n".join(json.dumps(tool["function"], indent=4, ensure_ascii=False) for tool in tools)
    return ({"role": "system", "content": f"{before} -\n{functions}"}, *map(_turn, turns))


def _turn(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"FUNCTION RESPONSE: {message['content']}"}
    if not message.get("tool_calls"):
        return message
    said = [message["content"]] if message.get("content") else []
    calls = [_call(as_call("tool_calls", call)["function"]) for call in message["tool_calls"]]
    return {"role": "assistant", "content": "\n".join([*said, *calls])}


def _call(function: Mapping[str, Any]) -> str:
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return f'{CALL} {{"name": {json.dumps(function["name"])}, "arguments": \'{arguments}\'}}'
