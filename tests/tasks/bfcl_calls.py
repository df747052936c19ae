"""Calls that the Berkeley board's possible answers accept, and what can be wrong with them."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from real_data import real_rows

from ftx.tool_calls import Call

CATEGORIES = ("simple_python", "multiple", "parallel")


def questions(category: str) -> Iterator[tuple[list[dict], list[dict]]]:
    """Functions and possible answer of each question."""
    asked = {row["id"]: row["function"] for row in real_rows(f"bfcl/question/{category}.jsonl.gz")}
    for row in real_rows(f"bfcl/possible_answer/{category}.jsonl.gz"):
        yield asked[row["id"]], row["ground_truth"]


def function_of(functions: list[dict], gold: dict) -> dict:
    (name,) = gold
    return next(function for function in functions if function["name"] == name)


def right_call(gold: dict, function: dict, draw: random.Random | None) -> Call:
    """The first accepted values and all that may be left out; with ``draw``, any of what is accepted."""
    ((name, arguments),) = gold.items()
    required = function["parameters"]["required"]
    chosen = {}
    for argument, values in arguments.items():
        given = [value for value in values if value != ""]
        may_be_left_out = argument not in required and "" in values
        if given and not (may_be_left_out and draw and draw.random() < 0.5):
            chosen[argument] = plain(draw.choice(given) if draw else given[0])
        elif not may_be_left_out:
            chosen[argument] = ""
    return Call(name, chosen)


def plain(accepted: Any) -> Any:
    """An accepted value as a model gives it: the first for each key of an object."""
    if isinstance(accepted, dict):
        return {key: plain(next(v for v in values if v != "")) for key, values in accepted.items() if values != [""]}
    return [plain(inner) for inner in accepted] if isinstance(accepted, list) else accepted


def of_another_type(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return "yes"
    if isinstance(value, int | float):
        return f"{value}"
    if isinstance(value, str):
        return [value]
    return str(value) if isinstance(value, list) else list(value)


def of_another_value(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return 777
    if isinstance(value, int | float):
        return value + 777
    if isinstance(value, str):
        return f"{value} or else"
    if isinstance(value, list):
        return [*value, value[0]] if value else ["or else"]
    return {**value, "or": "else"}


def wrong_calls(calls: list[Call], functions: list[dict], draw: random.Random) -> Iterator[tuple[str, list[Call]]]:
    """What is wrong, and the calls with it."""
    at = draw.randrange(len(calls))
    one = calls[at]

    def instead(call: Call) -> list[Call]:
        return [*calls[:at], call, *calls[at + 1 :]]

    yield "wrong name", instead(replace(one, name=f"{one.name}s"))
    yield "extra argument", instead(replace(one, arguments={**one.arguments, "or_else": 1}))
    yield "missing call", [*calls[:at], *calls[at + 1 :]]
    yield "extra call", [*calls, one]
    function = next(function for function in functions if function["name"] == one.name)
    for name in function["parameters"]["required"]:
        rest = {key: value for key, value in one.arguments.items() if key != name}
        yield f"missing {name}", instead(replace(one, arguments=rest))
    for name, value in one.arguments.items():
        for change in (of_another_type, of_another_value):
            changed = replace(one, arguments={**one.arguments, name: change(value)})
            yield f"{change.__name__} {name}", instead(changed)
