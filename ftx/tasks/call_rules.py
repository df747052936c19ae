"""Whether calls are those that were asked for: the Berkeley function-calling board's rules for what JSON can hold.

A gold call names its function and lists, for each argument, the values that are accepted: ``{"f": {"x": [1, 2]}}``. An
empty string among them says that the argument may be left out; within an object each key has such a list of its own.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ftx.tool_calls import Call

Accepted = dict[str, dict[str, list[Any]]]

# What a declared type is in Python, by the board's names and by JSON Schema's; bool is no int here.
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "any": (str,),
    "integer": (int,),
    "float": (float,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "tuple": (list,),
    "dict": (dict,),
    "object": (dict,),
    "null": (type(None),),
}
MAY_BE_LEFT_OUT = ""
_IGNORED = re.compile(r"[ ,./\-_*^]")


def names_agree(calls: Sequence[Call], accepted: Sequence[Accepted]) -> bool:
    """The same functions, each as often, in any order."""
    return sorted(call.name for call in calls) == sorted(name for gold in accepted for name in gold)


def calls_agree(calls: Sequence[Call], accepted: Sequence[Accepted], functions: Sequence[Mapping[str, Any]]) -> bool:
    """Each gold call is made once, in any order, and no other call is; ``functions`` declare the arguments' types.

    As on the board, each gold call in turn takes the first call that fits it and that none before it took.
    """
    if len(calls) != len(accepted):
        return False
    declared = {str(function.get("name")): function for function in functions}
    left = list(calls)
    for gold in accepted:
        ((name, arguments),) = gold.items()
        fitting = (call for call in left if call.name == name and _arguments_agree(call, arguments, declared.get(name)))
        found = next(fitting, None)
        if found is None:
            return False
        left.remove(found)
    return True


def as_accepted(call: Call) -> Accepted:
    """A gold call of which nothing but itself is accepted; an empty text in it may also be left out."""
    return {call.name: {name: [_accepting(value)] for name, value in call.arguments.items()}}


def _accepting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: [_accepting(inner)] for key, inner in value.items()}
    return [_accepting(inner) for inner in value] if isinstance(value, list) else value


def _arguments_agree(call: Call, accepted: Mapping[str, list[Any]], function: Mapping[str, Any] | None) -> bool:
    parameters = (function or {}).get("parameters") or {}
    properties = parameters.get("properties") or {}
    if any(name not in call.arguments for name in parameters.get("required") or []):
        return False
    if any(name not in call.arguments and MAY_BE_LEFT_OUT not in values for name, values in accepted.items()):
        return False
    return all(
        name in accepted
        and (function is None or name in properties)
        and _argument_agrees(value, accepted[name], properties.get(name) or {})
        for name, value in call.arguments.items()
    )


def _argument_agrees(value: Any, accepted: Sequence[Any], declared: Mapping[str, Any]) -> bool:
    kind = declared.get("type")
    if kind == "float" and type(value) is int:
        value = float(value)
    if not _has_type(value, kind, accepted):
        return False
    if isinstance(value, list):
        item = declared.get("items") or {}
        return any(_list_agrees(value, one, item.get("type")) for one in accepted)
    return any(_agrees(value, one) for one in accepted)


def _list_agrees(values: list[Any], accepted: Any, kind: Any) -> bool:
    if accepted == MAY_BE_LEFT_OUT:
        return not values
    return _agrees(values, accepted) and all(_has_type(value, kind, accepted) for value in values)


def _has_type(value: Any, kind: Any, accepted: Sequence[Any]) -> bool:
    """As declared, or as what is accepted: gold answers hold variables by name where numbers are declared."""
    kinds = kind if isinstance(kind, list) else [kind]
    if any(type(value) in TYPES.get(one, ()) for one in kinds if isinstance(one, str)):
        return True
    examples = [one for one in accepted if one != MAY_BE_LEFT_OUT]
    return bool(examples) and type(value) is type(examples[0])


def _agrees(value: Any, accepted: Any) -> bool:
    if isinstance(value, str) and isinstance(accepted, str):
        return _normalised(value) == _normalised(accepted)
    if isinstance(value, list) and isinstance(accepted, list):
        return len(value) == len(accepted) and all(map(_agrees, value, accepted))
    if isinstance(value, dict) and isinstance(accepted, dict):
        return all(
            any(_agrees(value[key], one) for one in values) if key in value else MAY_BE_LEFT_OUT in values
            for key, values in accepted.items()
        ) and set(value) <= set(accepted)
    return isinstance(value, bool) is isinstance(accepted, bool) and bool(value == accepted)


def _normalised(text: str) -> str:
    """Without case, spaces and ``,./-_*^``, and with one kind of quotes: April 1, 2024 is april 1 2024."""
    return _IGNORED.sub("", text).lower().replace("'", '"')
