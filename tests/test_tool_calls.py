"""Calls are read back as they were meant, whichever template or habit wrote them."""

import json
import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftx.data.conversation import Conversation
from ftx.data.render import render
from ftx.templates import load_template
from ftx.tool_calls import Call, read_calls

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
NAMES = st.from_regex(r"[a-z_]{1,8}(\.[a-z_]{1,8})?", fullmatch=True).filter(
    lambda name: not any(map(keyword.iskeyword, name.split(".")))
)
CALLS = st.builds(Call, NAMES, st.dictionaries(NAMES, VALUES, max_size=3))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def written(template: str, calls, content=None) -> str:
    """What the assistant says in a conversation, without its end of turn."""
    tool_calls = [{"type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in calls]
    messages = (
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": content, "tool_calls": tool_calls},
    )
    rendered = render(Conversation("one", messages, (TOOL,)), load_template(template), SPECIAL)
    return rendered.pieces[1].removesuffix("\n").removesuffix("<|im_end|>").removesuffix("<|eot_id|>")


@pytest.mark.parametrize("template", ["qwen3", "qwen2_5", "qwen3_instruct_2507", "deepseek_r1_distill_qwen"])
@given(calls=st.lists(CALLS, min_size=1, max_size=3))
def test_what_a_template_writes_is_read_back(template, calls):
    assert read_calls(written(template, calls)) == tuple(calls)


@given(call=CALLS)
def test_what_llama_writes_is_read_back(call):
    assert read_calls(written("llama3_1", [call])) == (call,)


@given(calls=st.lists(CALLS, min_size=1, max_size=3))
def test_what_glaive_writes_is_read_back(calls):
    text = "I will look. " + " ".join(
        f'<functioncall> {{"name": "{call.name}", "arguments": \'{json.dumps(call.arguments)}\'}} ' for call in calls
    )
    assert read_calls(text) == tuple(calls)


@given(calls=st.lists(CALLS, min_size=1, max_size=3), brackets=st.booleans())
def test_what_python_writes_is_read_back(calls, brackets):
    by_keyword = [
        Call(call.name, {name.replace(".", "_"): value for name, value in call.arguments.items()}) for call in calls
    ]
    inner = ", ".join(f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})" for c in by_keyword)
    assert read_calls(f"[{inner}]" if brackets else inner) == tuple(by_keyword)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('Let me see.\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>', [Call("f", {"x": 1})]),
        ('<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>', [Call("f", {"x": 1})]),
        ('<tool_call>{"name": "f", "arguments": {"code": "a = 1\nb = 2"}}', [Call("f", {"code": "a = 1\nb = 2"})]),
        ('<|python_tag|>{"name": "f", "parameters": {}}', [Call("f", {})]),
        ('{"type": "function", "name": "f", "parameters": {"x": 1}}', [Call("f", {"x": 1})]),
        ('{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}', [Call("f", {}), Call("g", {})]),
        ('[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]', [Call("f", {}), Call("g", {})]),
        ('```json\n{"name": "f", "parameters": {"x": 1}}\n```', [Call("f", {"x": 1})]),
        ("```python\n[math.add(a=-1, b=(2, 3))]\n```", [Call("math.add", {"a": -1, "b": [2, 3]})]),
        (
            '<functioncall> {"name": "f", "arguments": \'{"q": "it\\\'s"}\'} <|endoftext|>',
            [Call("f", {"q": "it's"})],
        ),
        ('<think>\n<tool_call>{"name": "g"}\n</think>\n\n[f(x=1)]', [Call("f", {"x": 1})]),
    ],
)
def test_forms_that_models_are_known_to_write(text, calls):
    assert read_calls(text) == tuple(calls)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 3.",
        '{"category": "World"}',
        '{"name": "Ada", "born": 1815}',
        "[1, 2, 3]",
        "[note] I would call f(x=1) here.",
        "f(1)",
        "print(open('x'))",
        "I cannot do that (sorry).",
        '<think>\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
    ],
)
def test_an_answer_that_makes_no_call(text):
    assert read_calls(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        '<tool_call>{"name": "f", "arguments": {"x": </tool_call>',
        '<tool_call>{"name": "f"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"x": "\\ud800"}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}}</tool_call><tool_call>{"name": "g", ',
        '{"name": "f", "parameters": {"x": 1}',
        '{"name": "f", "parameters": {}} is what I call',
        '<functioncall> {"name": "f", "arguments": \'{"x": \'}',
        "[f(1)]",
        "[f(x=y)]",
        "[f(x=1), 2]",
        "[f(x=1",
        '[f(x="\\ud800")]',
        "[f(x={1, 2})]",
        "<tool_call>" + '{"name": "f", "arguments": ' + "[" * 100_000,
        "[f(x=" + "(" * 5000 + ")]",
    ],
)
def test_a_call_that_was_begun_and_cannot_be_read(text):
    assert read_calls(text) is None
