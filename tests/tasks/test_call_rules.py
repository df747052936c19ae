"""The Berkeley board's rules: all of its possible answers are right, and nothing else is."""

import random

import pytest
from bfcl_calls import CATEGORIES, function_of, questions, right_call, wrong_calls

from ftx.tasks.call_rules import as_accepted, calls_agree, names_agree
from ftx.tool_calls import Call


@pytest.mark.parametrize("category", CATEGORIES)
def test_possible_answers_score_100_per_cent_and_mutated_ones_0(category):
    draw = random.Random(3)
    for functions, accepted in questions(category):
        for any_of_them in (None, draw):
            calls = [right_call(gold, function_of(functions, gold), any_of_them) for gold in accepted]
            assert calls_agree(calls, accepted, functions)
            assert names_agree(calls, accepted)
        for what, wrong in wrong_calls(calls, functions, draw):
            assert not calls_agree(wrong, accepted, functions), (what, wrong)


def test_several_calls_are_right_in_any_order():
    functions, gold = declared(x="integer"), [{"f": {"x": [at]}} for at in range(3)]
    calls = [Call("f", {"x": at}) for at in range(3)]
    assert calls_agree(calls[::-1], gold, functions)
    assert not calls_agree([*calls[:2], calls[0]], gold, functions)


def declared(**types) -> list[dict]:
    properties = {name: kind if isinstance(kind, dict) else {"type": kind} for name, kind in types.items()}
    return [{"name": "f", "parameters": {"type": "dict", "properties": properties, "required": []}}]


FLOATS = {"type": "array", "items": {"type": "float"}}
TEXTS = {"type": "array", "items": {"type": "string"}}
OBJECTS = {"type": "array", "items": {"type": "dict"}}


@pytest.mark.parametrize(
    ("kind", "accepted", "value", "right"),
    [
        ("float", [5.0], 5, True),
        ("float", [5], 5.0, True),
        ("integer", [5], 5.0, False),
        ("integer", [1], True, False),
        ("boolean", [True], 1, False),
        ("number", [5], 5.0, True),
        ("number", [0.5], "0.5", False),
        ("integer", ["n_samples"], "n_samples", True),
        ("string", ["April 1, 2024"], "april 1 2024", True),
        ("string", ['it"s'], "it's", True),
        ("string", ["New York"], "New York City", False),
        ("string", ["yes", "no"], "no", True),
        ("any", [None], None, True),
        (FLOATS, [[1.0, 2.0]], [1.0, 2.0], True),
        (FLOATS, [[1.0, 2.0]], [1, 2], False),
        (FLOATS, [[1.0, 2.0]], [2.0, 1.0], False),
        (TEXTS, [["Paris, France"]], ["paris france"], True),
        (TEXTS, [["a"], ["a", "b"]], ["a", "b"], True),
        (TEXTS, [["a"]], ["a", "a"], False),
        (TEXTS, ["", ["a"]], [], True),
        ("dict", [{"min": [1], "max": [2, ""]}], {"min": 1}, True),
        ("dict", [{"min": [1], "max": [2, ""]}], {"max": 2}, False),
        ("dict", [{"min": [1]}], {"min": 1, "max": 2}, False),
        ("object", [{"name": ["Ann", "Anna"]}], {"name": "anna"}, True),
        (OBJECTS, [[{"a": [1]}, {"a": [2]}]], [{"a": 1}, {"a": 2}], True),
        (OBJECTS, [[{"a": [1]}, {"a": [2]}]], [{"a": 2}, {"a": 1}], False),
        (["string", "null"], [None], None, True),
    ],
)
def test_types_and_values_of_an_argument(kind, accepted, value, right):
    assert calls_agree([Call("f", {"x": value})], [{"f": {"x": accepted}}], declared(x=kind)) is right


def test_what_may_be_left_out_and_what_not():
    functions = declared(x="integer", y="integer")
    gold = [{"f": {"x": [1], "y": ["", 2]}}]
    assert calls_agree([Call("f", {"x": 1})], gold, functions)
    assert calls_agree([Call("f", {"x": 1, "y": 2})], gold, functions)
    assert not calls_agree([Call("f", {"x": 1, "y": 3})], gold, functions)
    assert not calls_agree([Call("f", {"y": 2})], gold, functions)
    functions[0]["parameters"]["required"] = ["y"]
    assert not calls_agree([Call("f", {"x": 1})], gold, functions)


def test_nothing_is_right_where_nothing_is_to_be_called():
    assert calls_agree([], [], declared(x="integer"))
    assert not calls_agree([Call("f", {"x": 1})], [], declared(x="integer"))


def test_a_call_accepts_itself_and_nothing_else():
    call = Call("f", {"x": {"a": [1, {"b": "c"}], "d": None}, "y": [[True]], "z": 0.5})
    assert calls_agree([call], [as_accepted(call)], [])
    for change in ({"x": {"a": [1, {"b": "e"}], "d": None}}, {"y": [[False]]}, {"z": "0.5"}, {"w": 1}):
        assert not calls_agree([Call("f", {**call.arguments, **change})], [as_accepted(call)], [])
