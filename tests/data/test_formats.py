"""Conversations out of rows: the plain formats, and one clear reason for each row that holds none."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ftx.config import schema
from ftx.data.conversation import Conversation
from ftx.data.files import read_rows
from ftx.data.formats import FORMATS, detect, to_conversation
from ftx.data.rows import BadRow, Row
from ftx.errors import UserError

CHATS = Path("folder/chats.jsonl")
USER = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
ROLES = "system, developer, user, assistant, tool"
ACCEPTED = (
    "recognised without data.format: messages, prompt + completion, conversations of from + value, "
    "instruction + output, question + answer with ####; with it: messages, prompt_completion, sharegpt, alpaca, "
    "glaive_v2, jupyter_agent, mathcodeinstruct, scibench, ag_news, gsm8k"
)


def conversation(value: dict[str, Any], number: int = 12) -> Conversation:
    return to_conversation(Row(number, value), CHATS)


def test_messages_and_tools_are_taken_as_they_are() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": ""},
        {**USER, "name": "ada"},
        {"role": "assistant", "reasoning_content": "use the tool", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
        ANSWER,
    ]
    assert conversation({"messages": messages, "tools": [TOOL], "source": "x"}) == Conversation(
        id="chats.jsonl:12", messages=tuple(messages), tools=(TOOL,), group=""
    )


def test_the_row_is_left_as_it_was() -> None:
    row = {"messages": [{**USER, "name": None}, ANSWER], "tools": None}
    before = json.dumps(row)
    assert conversation(row).messages == (USER, ANSWER)
    assert json.dumps(row) == before


@pytest.mark.parametrize("call", [{"content": None}, {}], ids=["null", "absent"])
def test_an_assistant_that_calls_tools_may_have_no_content(call: dict[str, Any]) -> None:
    found = conversation({"messages": [USER, {"role": "assistant", "tool_calls": [CALL], **call}]})
    assert found.messages[1] == {"role": "assistant", "tool_calls": [CALL], "content": None}


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ([TOOL], (TOOL,)),
        (json.dumps([TOOL]), (TOOL,)),
        ([], ()),
        ("[]", ()),
        ("", ()),
        (" ", ()),
        ("null", ()),
        (None, ()),
    ],
)
def test_tools_may_be_a_list_its_json_text_or_nothing(tools: Any, expected: tuple[dict[str, Any], ...]) -> None:
    assert conversation({"messages": [USER, ANSWER], "tools": tools}).tools == expected
    assert conversation({"prompt": "2+2?", "completion": "4", "tools": tools}).tools == expected


def test_prompt_and_completion_become_a_user_and_an_assistant_message() -> None:
    assert conversation({"prompt": "2+2?", "completion": " 4\n", "id": 3}, number=1) == Conversation(
        id="chats.jsonl:1", messages=(USER, {"role": "assistant", "content": " 4\n"})
    )


def test_prompt_and_completion_may_be_lists_of_messages() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert conversation({"prompt": [system, USER], "completion": [ANSWER]}).messages == (system, USER, ANSWER)
    assert conversation({"prompt": [], "completion": [ANSWER]}).messages == (ANSWER,)


def test_a_row_with_both_shapes_is_read_by_its_messages_unless_they_are_null() -> None:
    both = {"messages": [USER, ANSWER], "prompt": "other", "completion": "text"}
    assert conversation(both).messages == (USER, ANSWER)
    assert conversation({**both, "messages": None}).messages[0] == {"role": "user", "content": "other"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "x", "label": 1}, f"unknown shape of row: it has the keys 'text', 'label'; {ACCEPTED}"),
        ({"prompt": "x"}, f"unknown shape of row: it has the keys 'prompt'; {ACCEPTED}"),
        ({"prompt": "x", "completion": None}, f"unknown shape of row: it has the keys 'prompt'; {ACCEPTED}"),
        ({}, f"unknown shape of row: it has no keys; {ACCEPTED}"),
        (
            dict.fromkeys("abcdefghij", 1),
            f"unknown shape of row: it has the keys 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', ...; {ACCEPTED}",
        ),
        ({"k" * 60: 1}, f"unknown shape of row: it has the keys '{'k' * 39}...; {ACCEPTED}"),
        ({"messages": []}, "messages is an empty list; it needs at least one message"),
        ({"messages": {"role": "user"}}, "messages must be a list of objects, not an object"),
        ({"messages": "hello"}, "messages is not valid JSON: Expecting value (column 1)"),
        ({"messages": '"hello"'}, "messages must be a list of objects, not a string"),
        ({"messages": ["hello"]}, "messages[0] must be an object, not a string"),
        ({"messages": [USER, {"content": "4"}]}, "messages[1] has no role; it has the keys 'content'"),
        ({"messages": [{"from": "gpt", "value": "4"}]}, "messages[0] has no role; it has the keys 'from', 'value'"),
        (
            {"messages": [USER, {"role": "gpt", "content": "4"}]},
            f"messages[1].role must be one of {ROLES}, not 'gpt'",
        ),
        ({"messages": [{"role": ["user"], "content": "4"}]}, f"messages[0].role must be one of {ROLES}, not ['user']"),
        (
            {"messages": [USER, {"role": "assistant", "content": [{"type": "text"}]}]},
            "text or value of messages[1].content[0] must be a string, not null",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER]},
            "messages[0].content[0].type must be text, not 'image_url'",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": [{"type": "reasoning", "value": "hm"}]}]},
            "messages[1] has no content; only an assistant message with tool_calls may go without",
        ),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content must be a string, not a number"),
        (
            {"messages": [USER, {"role": "assistant", "content": None}]},
            "messages[1] has no content; only an assistant message with tool_calls may go without",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": []}]},
            "messages[1] has no content; only an assistant message with tool_calls may go without",
        ),
        (
            {"messages": [{"role": "user", "tool_calls": [CALL]}, ANSWER]},
            "messages[0] has no content; only an assistant message with tool_calls may go without",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": "add(2, 2)"}]},
            "messages[1].tool_calls must be a list of objects, not a string",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": ["add"]}]},
            "messages[1].tool_calls[0] must be an object, not a string",
        ),
        ({"messages": [USER]}, "messages has no assistant message; there is nothing to learn from"),
        ({"prompt": "2+2?", "completion": ""}, "completion is empty; there is nothing to learn from"),
        ({"prompt": "2+2?", "completion": " \n"}, "completion is empty; there is nothing to learn from"),
        ({"prompt": [USER], "completion": []}, "completion is an empty list; it needs at least one message"),
        (
            {"prompt": [ANSWER], "completion": [USER]},
            "completion has no assistant message; there is nothing to learn from",
        ),
        (
            {"prompt": [{"role": "user"}], "completion": [ANSWER]},
            "prompt[0] has no content; only an assistant message with tool_calls may go without",
        ),
        (
            {"prompt": [USER], "completion": "4"},
            "prompt and completion must be two strings or two lists of messages, not a list and a string",
        ),
        (
            {"prompt": 2, "completion": 4.5},
            "prompt and completion must be two strings or two lists of messages, not a number and a number",
        ),
        ({"messages": [USER, ANSWER], "tools": "add"}, "tools is not valid JSON: Expecting value (column 1)"),
        (
            {"messages": [USER, ANSWER], "tools": '[\n{"a": }]'},
            "tools is not valid JSON: Expecting value (line 2 column 7)",
        ),
        ({"messages": [USER, ANSWER], "tools": TOOL}, "tools must be a list of objects, not an object"),
        ({"messages": [USER, ANSWER], "tools": [TOOL, "add"]}, "tools[1] must be an object, not a string"),
        ({"messages": [USER, ANSWER], "tools": 3}, "tools must be a list of objects, not a number"),
    ],
)
def test_a_row_that_cannot_be_learned_from_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        conversation(row)
    assert str(caught.value) == f"folder/chats.jsonl:12: {reason}"
    assert (caught.value.where, caught.value.number, caught.value.reason) == (CHATS, 12, reason)


def test_jsonl_csv_and_parquet_of_the_same_chats_give_the_same_conversations(tmp_path: Path) -> None:
    chats: list[dict[str, Any]] = [
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}], "tools": [TOOL]},
        {"messages": [USER, ANSWER], "tools": None},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, chats)))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["messages", "tools"])
    writer.writerows((json.dumps(c["messages"], indent=1), c["tools"] and json.dumps(c["tools"])) for c in chats)
    (tmp_path / "a.csv").write_text(text.getvalue())
    flat_tool = {"type": "function", "function": {"name": "add"}}
    table = pyarrow.Table.from_pylist([{**c, "tools": c["tools"] and [flat_tool]} for c in chats])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")

    def all_of(name: str) -> list[Conversation]:
        return [to_conversation(row, tmp_path / name) for row in read_rows(tmp_path / name) if isinstance(row, Row)]

    expected = [(tuple(chats[0]["messages"]), (TOOL,)), ((USER, ANSWER), ())]
    assert [(c.messages, c.tools) for c in all_of("a.jsonl")] == expected
    assert [(c.messages, c.tools) for c in all_of("a.csv")] == expected
    assert [c.messages for c in all_of("a.parquet")] == [messages for messages, _ in expected]
    assert [c.tools for c in all_of("a.parquet")] == [(flat_tool,), ()]
    assert [c.id for c in all_of("a.jsonl")] == ["a.jsonl:1", "a.jsonl:2"]


def test_content_parts_become_the_keys_they_stand_for() -> None:
    call = '{"name": "add", "arguments": {"a": 2, "b": 2}}'
    parts = [{"type": "reasoning", "value": "use it"}, {"type": "tool_call", "value": call}]
    messages = conversation(
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "2"}, {"type": "text", "text": "+2?"}]},
                {"role": "assistant", "content": parts},
                {"role": "tool", "content": [{"type": "text", "value": "4"}]},
                {"role": "assistant", "content": [{"type": "text", "value": "4"}]},
            ]
        }
    ).messages
    assert messages == (
        USER,
        {"role": "assistant", "content": None, "reasoning_content": "use it", "tool_calls": [CALL]},
        {"role": "tool", "content": "4"},
        ANSWER,
    )


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"messages": [], "prompt": "", "completion": "", "conversations": []}, "messages"),
        ({"prompt": "", "completion": ""}, "prompt_completion"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "sharegpt"),
        ({"conversations": ' [{"from": "human", "value": "x"}]'}, "sharegpt"),
        ({"instruction": "x", "output": "y"}, "alpaca"),
        ({"question": "x", "answer": "y\n#### 3"}, "gsm8k"),
    ],
)
def test_a_format_is_recognised_where_the_shape_leaves_no_doubt(row: dict[str, Any], name: str) -> None:
    assert detect(row) == name


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "x", "answer": "3"}, "^unknown shape"),
        ({"question": "x", "answer": 3}, "^unknown shape"),
        ({"conversations": [{"role": "user", "content": "x"}]}, "^unknown shape"),
        ({"system": "x", "chat": "USER: x"}, "^unknown shape"),
        ({"text": "x", "label": 1}, "^unknown shape"),
        (
            {"instruction": "x", "output": "y", "prompt": "x", "completion": "y"},
            "^fits more than one format; say data.format=prompt_completion or data.format=alpaca$",
        ),
    ],
)
def test_a_format_is_not_guessed(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        detect(row)


def test_a_format_given_by_name_is_not_guessed_from_the_row() -> None:
    row = Row(1, {"messages": [USER, ANSWER], "prompt": "p", "completion": "c"})
    assert to_conversation(row, CHATS, format="prompt_completion").messages[0]["content"] == "p"
    with pytest.raises(BadRow, match=r":1: has no conversations; it has the keys 'messages', 'prompt', 'completion'$"):
        to_conversation(row, CHATS, format="sharegpt")
    with pytest.raises(UserError, match=r"^data.format=openai: must be one of auto, messages, .*, gsm8k$"):
        to_conversation(row, CHATS, format="openai")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_what_an_empty_row_lacks(name: str) -> None:
    with pytest.raises(BadRow, match=r"^folder/chats.jsonl:1: (has no \w+; it has no keys|must have class, )"):
        to_conversation(Row(1, {}), CHATS, format=name)


def test_rows_are_grouped_by_a_column() -> None:
    row = {"messages": [USER, ANSWER], "tree": "t1", "number": 7, "blank": " ", "null": None}
    assert to_conversation(Row(1, row), CHATS, group_by="tree").group == "t1"
    assert to_conversation(Row(1, row), CHATS, group_by="number").group == "7"
    with pytest.raises(BadRow, match=r":1: blank, the column to group by, is empty$"):
        to_conversation(Row(1, row), CHATS, group_by="blank")
    for absent in ("null", "branch"):
        with pytest.raises(
            BadRow, match=rf":1: has no {absent}; it has the keys 'messages', 'tree', 'number', 'blank'$"
        ):
            to_conversation(Row(1, row), CHATS, group_by=absent)


def test_the_schema_knows_every_format():
    assert tuple(FORMATS) == schema.FORMATS
