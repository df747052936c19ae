"""Conversations with tools: ShareGPT turns, Glaive's raw text and the notebook agent's traces."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ftx.data.conversation import Conversation
from ftx.data.files import read_rows
from ftx.data.formats import to_conversation
from ftx.data.rows import BadRow, Row

PATH = Path("calls.jsonl")
FUNCTION = {"name": "weather", "description": 'Say it\'s "cold"', "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
HELPER = "You are a helpful assistant with access to the following functions. Use them if required"


def read(format: str, row: dict[str, Any]) -> Conversation:
    return to_conversation(Row(1, row), PATH, format=format)


def refused(format: str, row: dict[str, Any]) -> str:
    with pytest.raises(BadRow) as caught:
        read(format, row)
    return caught.value.reason


def called(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": speaker, "value": value} for speaker, value in pairs]


def test_sharegpt_turns_with_calls() -> None:
    call = '{"name": "weather", "arguments": {"city": "Ulm"}}'
    two = '[{"name": "weather", "arguments": "{}"}, {"name": "time", "arguments": {}}]'
    found = read(
        "sharegpt",
        {
            "system": "Be brief.",
            "tools": json.dumps([FUNCTION, TOOL]),
            "conversations": turns(
                ("human", "Cold?"),
                ("function_call", call),
                ("observation", '{"degrees": 3}'),
                ("gpt", "Yes. And here:"),
                ("function_call", two),
                ("tool", "1"),
                ("observation", ""),
                ("gpt", "Also."),
            ),
        },
    )
    assert found.tools == (TOOL, TOOL)
    assert found.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Cold?"},
        {"role": "assistant", "content": None, "tool_calls": [called("weather", city="Ulm")]},
        {"role": "tool", "content": '{"degrees": 3}'},
        {"role": "assistant", "content": "Yes. And here:", "tool_calls": [called("weather"), called("time")]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": ""},
        {"role": "assistant", "content": "Also."},
    )


@pytest.mark.parametrize(
    ("conversations", "reason"),
    [
        ("hello", "conversations is not valid JSON: Expecting value (column 1)"),
        ([], "messages has no assistant message; there is nothing to learn from"),
        (turns(("human", "x")), "messages has no assistant message; there is nothing to learn from"),
        ([{"from": "human"}], "conversations[0]: has no value; it has the keys 'from'"),
        ([{"value": "x"}], "conversations[0]: has no from; it has the keys 'value'"),
        ([{"from": "gpt", "value": None}], "conversations[0]: value must be a string, not null"),
        (
            turns(("bing", "x")),
            "conversations[0]: from must be one of system, human, user, gpt, assistant, function_call, observation, "
            "tool, not 'bing'",
        ),
        (turns(("gpt", "x"), ("tool", "x")), "conversations[1]: tool comes without a function_call before it"),
        (turns(("observation", "x")), "conversations[0]: observation comes without a function_call before it"),
        (turns(("function_call", "f(x)")), "conversations[0]: value is not valid JSON: Expecting value (column 1)"),
        (turns(("function_call", "[]")), "conversations[0]: value is an empty list; it needs at least one call"),
        (
            turns(("function_call", '{"name": "f"}')),
            "conversations[0]: value must hold name and arguments, not the keys 'name'",
        ),
        (
            turns(("function_call", '{"name": "f", "arguments": [1]}')),
            "conversations[0]: value.arguments must be an object, not a list",
        ),
        (
            turns(("function_call", '{"name": "", "arguments": {}}')),
            "conversations[0]: value.name must be the name of a function, not ''",
        ),
    ],
)
def test_sharegpt_turns_that_cannot_be_used_say_why(conversations: Any, reason: str) -> None:
    assert refused("sharegpt", {"conversations": conversations}) == reason


def test_a_function_without_name_is_no_tool() -> None:
    row = {"conversations": turns(("gpt", "x")), "tools": [{"description": "?"}]}
    assert refused("sharegpt", row) == "tools[0] has no name; it has the keys 'description'"


CHAT = """USER: Is it cold
in Ulm?


ASSISTANT: Let me look. <functioncall> {"name": "weather", "arguments": '{"city": "Ulm"}'} <|endoftext|>


FUNCTION RESPONSE: {"degrees": 3}


ASSISTANT: Yes, it's 3 degrees. <|endoftext|>


USER: Thanks!


ASSISTANT: USER: is what I call you. <|endoftext|>"""

CHAT_MESSAGES = (
    {"role": "system", "content": HELPER},
    {"role": "user", "content": "Is it cold\nin Ulm?"},
    {"role": "assistant", "content": "Let me look.", "tool_calls": [called("weather", city="Ulm")]},
    {"role": "tool", "content": '{"degrees": 3}'},
    {"role": "assistant", "content": "Yes, it's 3 degrees."},
    {"role": "user", "content": "Thanks!"},
    {"role": "assistant", "content": "USER: is what I call you."},
)


def test_glaive_text_in_two_columns_or_one() -> None:
    other = {"name": "time", "parameters": {}}
    system = f"SYSTEM: {HELPER} -\n{json.dumps(FUNCTION, indent=4)}\n\n{json.dumps(other)}\n"
    expected = Conversation(
        id="calls.jsonl:1", messages=CHAT_MESSAGES, tools=(TOOL, {"type": "function", "function": other})
    )
    assert read("glaive_v2", {"system": system, "chat": CHAT}) == expected
    assert read("glaive_v2", {"text": f"{system}\n\n{CHAT}"}) == expected


@pytest.mark.parametrize("end", ["", "<|endoftext|>", " <|endoftext|>\n\n\n"])
def test_glaive_text_without_functions(end: str) -> None:
    system = "SYSTEM: You are a helpful assistant, with no access to external functions.\n"
    found = read("glaive_v2", {"system": system, "chat": f"USER: Hi\nASSISTANT: Hello{end}"})
    assert [m["content"] for m in found.messages] == [system[8:].strip(), "Hi", "Hello"]
    assert found.tools == ()
    assert len(read("glaive_v2", {"text": f"USER: Hi\n\nASSISTANT: Hello{end}"}).messages) == 2


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("""{"name": "f", "arguments": '{}'}""", {}),
        ("""{"name": "f", "arguments": '{"x": 1, "y": [true, null]}'}""", {"x": 1, "y": [True, None]}),
        ("""{"arguments": '{"x": 1}', "name": "f"}""", {"x": 1}),
        ("""{"name": "f",\n "arguments":'{\n "x": {"y": "}\\'"}\n}' }""", {"x": {"y": "}'"}}),
        ("""{"name": "f", "arguments": '{"x": "it's Ann's"}'}""", {"x": "it's Ann's"}),
        ("""{"name": "f", "arguments": '{"x": "it\\'s"}'}""", {"x": "it's"}),
        ("""{"name": "f", "arguments": '{"x": "say \\"it's\\" now"}'}""", {"x": 'say "it\'s" now'}),
        ("""{"name": "f", "arguments": '{"x": "a \\\\\\'b"}'}""", {"x": "a \\'b"}),
        ("""{"name": "f", "arguments": '{"x": "', '"}'}""", {"x": "', '"}),
        ("""{"name": "f", "arguments": '{"x": "two\nlines"}'}""", {"x": "two\nlines"}),
        ("""{"name": "f", "arguments": '{"arguments": '1'}'}""", None),
        ("""{"name": "f", "arguments": {"x": "it's '1'"}}""", {"x": "it's '1'"}),
        ("""{"name": "f", "arguments": "{\\"x\\": 1}"}""", {"x": 1}),
    ],
)
def test_glaive_arguments_are_read_through_their_quotes(call: str, arguments: dict[str, Any] | None) -> None:
    row = {"chat": f"USER: x\n\n\nASSISTANT: <functioncall> {call} <|endoftext|>"}
    if arguments is None:
        assert refused("glaive_v2", row).startswith("turn 2 (ASSISTANT): cannot read <functioncall> ")
    else:
        message = {"role": "assistant", "content": None, "tool_calls": [called("f", **arguments)]}
        assert read("glaive_v2", row).messages[1] == message


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chat": " "}, "chat is empty"),
        ({"system": 3, "chat": "USER: x"}, "system must be a string, not a number"),
        ({"chat": "Hello"}, "chat must begin with SYSTEM:, USER: or ASSISTANT:, not 'Hello'"),
        ({"chat": "USER: x"}, "messages has no assistant message; there is nothing to learn from"),
        ({"chat": "USER: x\n\nASSISTANT: <|endoftext|>"}, "turn 2 (ASSISTANT): is empty"),
        (
            {"chat": "USER: x\n\nASSISTANT: y <|endoftext|> z"},
            "turn 2 (ASSISTANT): text after <|endoftext|> belongs to nobody: 'z'",
        ),
        (
            {"chat": "USER: x\n\nFUNCTION RESPONSE: y"},
            "turn 2 (FUNCTION RESPONSE): comes without a <functioncall> before it",
        ),
        ({"chat": "USER: x\n\nSYSTEM: y"}, "turn 2 (SYSTEM): only the first turn may be the system's"),
        (
            {"system": 'SYSTEM: Use -\n{"name": }', "chat": "USER: x"},
            "the functions in the system text are not JSON at '{\"name\": }'",
        ),
        (
            {"system": 'SYSTEM: Use -\n{"name": "f"} or none', "chat": "USER: x"},
            "the functions in the system text are not JSON at 'or none'",
        ),
        (
            {"chat": "USER: x\n\nASSISTANT: <functioncall> f(1)"},
            "turn 2 (ASSISTANT): cannot read <functioncall> 'f(1)': not valid JSON: Expecting value (column 1)",
        ),
    ],
)
def test_glaive_text_that_cannot_be_used_says_why(row: dict[str, Any], reason: str) -> None:
    assert refused("glaive_v2", row) == reason


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("""{"name": "f", "arguments": '{"x": }'}""", "arguments is not valid JSON: Expecting value (column 7)"),
        ("""{"name": "f", "arguments": '{}'} Done.""", "not valid JSON: Extra data (column 34)"),
        ("""{"name": "f", "arguments": '["x", 2]'}""", "call.arguments must be an object, not a list"),
        ("""{"arguments": '{}'}""", "call must hold name and arguments, not the keys 'arguments'"),
        ("""{"name": "f"}""", "call must hold name and arguments, not the keys 'name'"),
        ("""['f']""", "not valid JSON: Expecting value (column 2)"),
        ("""["f"]""", "call must be an object with name and arguments, not a list"),
    ],
)
def test_a_glaive_call_that_cannot_be_read_is_shown_with_the_reason(call: str, reason: str) -> None:
    said = refused("glaive_v2", {"chat": f"USER: x\n\n\nASSISTANT: <functioncall> {call} <|endoftext|>"})
    assert said.startswith(f"turn 2 (ASSISTANT): cannot read <functioncall> {call!r}"[:70])
    assert said.endswith(f": {reason}")


def notebook_row() -> dict[str, Any]:
    def call(name: str, **arguments: str) -> dict[str, Any]:
        return {"id": name, "type": "function", "function": {"name": name, "arguments": arguments}}

    def tool(name: str, parameter: str) -> dict[str, Any]:
        properties = {parameter: {"type": "string"}}
        return {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}

    return {
        "messages": [
            {"role": "user", "content": "How many rows?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [call("run_cell", code="len(x)")]},
            {"role": "tool", "content": "3", "tool_call_id": "run_cell"},
            {"role": "assistant", "content": "", "tool_calls": [call("final_answer", answer="3")]},
        ],
        "tools": [tool("run_cell", "code"), tool("final_answer", "answer")],
        "question": "How many rows?",
        "answer": "3",
        "original_notebook": "{}",
    }


def test_notebook_traces_are_the_same_as_lists_text_and_parquet(tmp_path: Path) -> None:
    row = notebook_row()
    as_text = {**row, "messages": json.dumps(row["messages"]), "tools": json.dumps(row["tools"])}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "x.parquet")
    (stored,) = read_rows(tmp_path / "x.parquet")
    assert isinstance(stored, Row)
    arguments = stored.value["messages"][3]["tool_calls"][0]["function"]["arguments"]
    assert arguments == {"code": None, "answer": "3"}, "parquet gives both calls both keys"

    for found in (read("jupyter_agent", row), read("jupyter_agent", as_text), read("jupyter_agent", stored.value)):
        assert (list(found.messages), list(found.tools)) == (row["messages"], row["tools"])


def test_notebook_calls_have_objects_for_arguments() -> None:
    row = notebook_row()
    row["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"code": "len(x)"}'
    row["messages"][0]["tool_calls"] = []
    assert list(read("jupyter_agent", row).messages) == notebook_row()["messages"]
    row["messages"][1]["tool_calls"][0]["function"]["arguments"] = "len(x)"
    reason = "messages[1].tool_calls[0].function.arguments is not valid JSON: Expecting value (column 1)"
    assert refused("jupyter_agent", row) == reason
    row["messages"][1]["tool_calls"] = ["len(x)"]
    assert refused("jupyter_agent", row) == "messages[1].tool_calls[0] must be an object, not a string"


def test_what_a_tool_of_a_notebook_agent_says_may_be_nothing():
    row = notebook_row()
    (at,) = [at for at, message in enumerate(row["messages"]) if message["role"] == "tool"][:1]
    row["messages"][at] = {**row["messages"][at], "content": None}
    assert read("jupyter_agent", row).messages[at]["content"] == ""
