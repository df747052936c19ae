"""Tools that an assistant may call, and its calls."""

from typing import Any

from ftx.data.formats.checks import check_objects, keys_of, parsed, shown
from ftx.data.rows import json_type


def read_tools(tools: Any) -> tuple[dict[str, Any], ...]:
    """``tools`` as they are: a list of objects, JSON text of one, or nothing (null, an empty string)."""
    if isinstance(tools, str):
        tools = parsed("tools", tools) if tools.strip() else None
    if tools is None:
        return ()
    check_objects("tools", tools)
    return tuple(tools)


def read_functions(tools: Any) -> tuple[dict[str, Any], ...]:
    """``tools``, the bare functions (name, description, parameters) among them wrapped as templates expect tools."""
    return tuple(_as_tool(f"tools[{index}]", tool) for index, tool in enumerate(read_tools(tools)))


def read_calls(where: str, value: Any) -> list[dict[str, Any]]:
    """One call or a list of calls, or JSON text of that."""
    calls = parsed(where, value)
    if not isinstance(calls, list):
        return [as_call(where, calls)]
    if not calls:
        raise ValueError(f"{where} is an empty list; it needs at least one call")
    return [as_call(f"{where}[{index}]", call) for index, call in enumerate(calls)]


def as_call(where: str, call: Any) -> dict[str, Any]:
    """A call as messages hold it, its arguments an object; ``call`` is name and arguments, or the whole with its id."""
    if not isinstance(call, dict):
        raise ValueError(f"{where} must be an object with name and arguments, not {json_type(call)}")
    if "function" in call:
        return {**call, "type": "function", "function": _function(f"{where}.function", call["function"])}
    return {"type": "function", "function": _function(where, call)}


def _function(where: str, function: Any) -> dict[str, Any]:
    if not isinstance(function, dict) or set(function) != {"name", "arguments"}:
        held = keys_of(function) if isinstance(function, dict) else json_type(function)
        raise ValueError(f"{where} must hold name and arguments, not {held}")
    if not isinstance(function["name"], str) or not function["name"].strip():
        raise ValueError(f"{where}.name must be the name of a function, not {shown(function['name'])}")
    arguments = parsed(f"{where}.arguments", function["arguments"])
    if not isinstance(arguments, dict):
        raise ValueError(f"{where}.arguments must be an object, not {json_type(arguments)}")
    return {"name": function["name"], "arguments": arguments}


def _as_tool(where: str, tool: dict[str, Any]) -> dict[str, Any]:
    if "function" in tool:
        return tool
    if not isinstance(tool.get("name"), str):
        raise ValueError(f"{where} has no name; it has {keys_of(tool)}")
    return {"type": "function", "function": tool}
