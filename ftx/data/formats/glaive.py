"""Glaive function calling v2 as published: turns in one text, calls as ``<functioncall>`` with quoted arguments."""

import json
import re
from typing import Any

from ftx.data.conversation import Message
from ftx.data.formats.checks import Parts, optional_text, parsed, required_text, shown
from ftx.data.formats.tools import as_call, read_functions
from ftx.data.rows import check_is_text, parse_json

END = "<|endoftext|>"
CALL = "<functioncall>"

_TURN = re.compile(r"(?:\A|\n|<\|endoftext\|>)\s*(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):")
_QUOTED_ARGUMENTS = re.compile(r"""("arguments"\s*:\s*)'(.*)'""", re.DOTALL)
_ESCAPED_APOSTROPHE = re.compile(r"(?<!\\)((?:\\\\)*)\\'")


def read_glaive_v2(row: dict[str, Any]) -> Parts:
    """Columns ``system`` and ``chat``, or both in one ``text``."""
    if "chat" in row:
        system, turns = optional_text(row, "system"), _turns("chat", required_text(row, "chat"))
        system = system.strip().removeprefix("SYSTEM:")
    else:
        turns = _turns("text", required_text(row, "text"))
        system = turns.pop(0)[1] if turns[0][0] == "SYSTEM" else ""
    preamble, tools = _split_functions(system.strip())
    messages: list[Message] = [{"role": "system", "content": preamble}] if preamble else []
    for number, (speaker, text) in enumerate(turns, 1):
        try:
            messages.append(_message(speaker, text, messages))
        except ValueError as error:
            raise ValueError(f"turn {number} ({speaker}): {error}") from None
    return tuple(messages), read_functions(tools)


def _turns(where: str, text: str) -> list[tuple[str, str]]:
    before, *rest = _TURN.split(text)
    if before.strip():
        raise ValueError(f"{where} must begin with SYSTEM:, USER: or ASSISTANT:, not {shown(before.strip())}")
    said = (text.strip().removesuffix(END).strip() for text in rest[1::2])
    return list(zip(rest[::2], said, strict=True))


def _split_functions(system: str) -> tuple[str, list[Any]]:
    """The text of a system turn and the JSON objects that follow it, one after the other."""
    start = system.find("{")
    if start < 0:
        return system, []
    functions, rest = [], system[start:]
    while rest:
        try:
            function, end = json.JSONDecoder().raw_decode(rest)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the functions in the system text are not JSON at {shown(rest)}") from error
        check_is_text(function, rest[:end])
        functions.append(function)
        rest = rest[end:].lstrip(", \n\r\t")
    return system[:start].rstrip(" -\n\r\t"), functions


def _message(speaker: str, text: str, before: list[Message]) -> Message:
    if END in text:
        raise ValueError(f"text after {END} belongs to nobody: {shown(text.partition(END)[2].strip())}")
    if not text:
        raise ValueError("is empty")
    if speaker == "ASSISTANT":
        said, *calls = text.split(CALL)
        if not calls:
            return {"role": "assistant", "content": text}
        return {
            "role": "assistant",
            "content": said.strip() or None,
            "tool_calls": [read_functioncall(call) for call in calls],
        }
    if speaker == "FUNCTION RESPONSE":
        if not before or not (before[-1].get("tool_calls") or before[-1]["role"] == "tool"):
            raise ValueError(f"comes without a {CALL} before it")
        return {"role": "tool", "content": text}
    if speaker == "SYSTEM":
        raise ValueError("only the first turn may be the system's")
    return {"role": "user", "content": text}


def read_functioncall(text: str) -> dict[str, Any]:
    """What follows ``<functioncall>``, as messages hold calls; ``ValueError`` for what is none.

    ``{"name": "f", "arguments": '{"x": 1}'}`` is no JSON until the single-quoted text is quoted as JSON.
    """
    quoted = _QUOTED_ARGUMENTS.search(text)
    try:
        if not quoted:
            return as_call("call", parse_json(text.strip()))
        outer = text[: quoted.start()] + quoted[1] + "null" + text[quoted.end() :]
        call = parse_json(outer.strip())
        return as_call("call", {**call, "arguments": _arguments(quoted[2])} if isinstance(call, dict) else call)
    except ValueError as error:
        raise ValueError(f"cannot read {CALL} {shown(text.strip())}: {error}") from None


def _arguments(text: str) -> Any:
    """JSON in which line ends may stand unescaped and an apostrophe may be escaped, as within single quotes."""
    for unescaped in (text, _ESCAPED_APOSTROPHE.sub(r"\1'", text)):
        try:
            value = json.loads(unescaped, strict=False)
        except (ValueError, RecursionError):
            continue
        check_is_text(value, text)
        return value
    return parsed("arguments", text)
