"""Notebook-agent traces (jupyter-agent-dataset): ``messages`` and ``tools``; all other columns are left alone."""

from typing import Any

from ftx.data.conversation import Message
from ftx.data.formats.chat import checked_messages
from ftx.data.formats.checks import Parts, check_objects, parsed, required
from ftx.data.formats.tools import as_call, read_functions


def read_jupyter_agent(row: dict[str, Any]) -> Parts:
    """Lists or JSON text of them. Parquet gives all calls the keys of every tool; null ones among them are absent.

    What a tool says may be nothing.
    """
    messages = required(row, "messages")
    messages = parsed("messages", messages) if isinstance(messages, str) else _without_nulls(messages)
    if isinstance(messages, list):
        messages = [_with_something_said(message) for message in messages]
    tools = row.get("tools")
    read = checked_messages("messages", messages)
    return (
        tuple(_with_called_objects(f"messages[{index}]", message) for index, message in enumerate(read)),
        read_functions(tools if isinstance(tools, str) else _without_nulls(tools)),
    )


def _with_called_objects(where: str, message: Message) -> Message:
    calls = message.get("tool_calls", [])
    check_objects(f"{where}.tool_calls", calls)
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    if not calls:
        return rest
    return {**rest, "tool_calls": [as_call(f"{where}.tool_calls[{i}]", call) for i, call in enumerate(calls)]}


def _with_something_said(message: Any) -> Any:
    is_silent = isinstance(message, dict) and message.get("role") == "tool" and message.get("content") is None
    return {**message, "content": ""} if is_silent else message


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
