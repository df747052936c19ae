"""Every row of the real sets is a conversation, or is refused for a reason that is known here."""

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ftx.data.conversation import Conversation
from ftx.data.files import read_rows
from ftx.data.formats import to_conversation
from ftx.data.formats.news import COLUMNS
from ftx.data.rows import BadRow, Row

SHARED = Path(os.environ.get("FTX_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))


def rows_of(name: str, columns: Sequence[str] | None = None) -> list[Row]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the real data {name} in FTX_SHARED_DATA (looked in {SHARED})")
    rows = list(read_rows(path, columns))
    assert not [row for row in rows if isinstance(row, BadRow)]
    return [row for row in rows if isinstance(row, Row)]


def conversations(name: str, format: str = "auto", columns: Sequence[str] | None = None) -> list[Conversation]:
    return [to_conversation(row, Path(name), format) for row in rows_of(name, columns)]


def answers(found: list[Conversation]) -> list[str]:
    return [conversation.messages[-1]["content"] for conversation in found]


def calls(found: list[Conversation]) -> list[dict[str, Any]]:
    return [call for c in found for message in c.messages for call in message.get("tool_calls", [])]


def test_threads_are_as_they_are_and_know_their_tree() -> None:
    rows = rows_of("oasst/threads.jsonl.gz")
    found = [to_conversation(row, Path("threads.jsonl.gz"), group_by="tree") for row in rows]
    assert len(found) == 564
    assert [list(c.messages) for c in found] == [row.value["messages"] for row in rows]
    assert [c.group for c in found] == [row.value["tree"] for row in rows]
    assert len({c.group for c in found}) == 100
    assert found[563].id == "threads.jsonl.gz:564"


def test_parsed_glaive_keeps_every_turn_tool_and_call() -> None:
    rows, found = rows_of("glaive/glaive_toolcall_en_demo.json"), conversations("glaive/glaive_toolcall_en_demo.json")
    assert len(found) == 300
    assert sum(not c.tools for c in found) == 109
    assert len(calls(found)) == 211
    roles = Counter(message["role"] for c in found for message in c.messages)
    assert roles == {"user": 746, "assistant": 746 + 211, "tool": 211}
    said = [turn["value"] for row in rows for turn in row.value["conversations"] if turn["from"] != "function_call"]
    assert said == [m["content"] for c in found for m in c.messages if "tool_calls" not in m]


def test_glaive_with_reasoning_keeps_every_part() -> None:
    found = conversations("glaive/reason_tool_use_demo_50.jsonl")
    assert len(found) == 50
    assert len(calls(found)) == 41 + 2 * 9 + 3 * 3
    assert sum("reasoning_content" in message for c in found for message in c.messages) == 59 + 41 + 9 + 3
    assert sum(not c.tools for c in found) == 2


@pytest.mark.parametrize("one_text", [False, True], ids=["columns", "text"])
def test_parsed_glaive_written_as_raw_text_is_read_back_the_same(one_text: bool) -> None:
    rows = rows_of("glaive/glaive_toolcall_en_demo.json")
    for row in rows:
        expected, raw = to_conversation(row, Path("x")), as_raw_glaive(row.value)
        again = to_conversation(
            Row(row.number, {"text": "\n\n".join(raw.values())} if one_text else raw), Path("x"), "glaive_v2"
        )
        assert again.tools == expected.tools
        # The raw form knows no blanks around a turn.
        stripped = [{**m, "content": m["content"] and m["content"].strip()} for m in expected.messages]
        assert list(again.messages)[1:] == stripped


def as_raw_glaive(row: dict[str, Any]) -> dict[str, str]:
    marks = {
        "human": "USER: ",
        "gpt": "ASSISTANT: ",
        "function_call": "ASSISTANT: ",
        "observation": "FUNCTION RESPONSE: ",
    }
    chat = ""
    for turn in row["conversations"]:
        text = turn["value"]
        if turn["from"] == "function_call":
            call = json.loads(text)
            text = f'<functioncall> {{"name": "{call["name"]}", "arguments": \'{json.dumps(call["arguments"])}\'}}'
        chat += marks[turn["from"]] + text + (" <|endoftext|>" if "ASSISTANT" in marks[turn["from"]] else "") + "\n\n\n"
    functions = "\n\n".join(json.dumps(tool, indent=4) for tool in json.loads(row["tools"] or "[]"))
    return {"system": f"SYSTEM: You may call these functions -\n{functions}\n", "chat": chat}


def test_math_solutions_end_with_their_answer_but_for_one() -> None:
    found, refused = [], []
    for row in rows_of("mathcoder/lce_solutions.jsonl.gz"):
        try:
            found.append((row.value, to_conversation(row, Path("x"), "mathcodeinstruct").messages))
        except BadRow as bad:
            refused.append(str(bad))
    assert len(found) == 2808
    # This one went on correcting itself until it was cut off.
    assert refused == ["x:605: messages must end with a text, the final answer, not with execution"]
    for value, messages in found:
        answer = messages[-1]["content"]
        assert [message["role"] for message in messages] == ["system", "user", "assistant"]
        assert answer.startswith("<think>\n")
        assert answer.split("</think>\n\n") == [answer.partition("</think>")[0], value["messages"][-1]["content"]]
        assert all(block["content"].strip() in answer for block in value["messages"][2:])


def test_science_problems() -> None:
    found = conversations("scibench/scibench.jsonl", "scibench")
    assert len(found) == 692
    assert sum(answer.startswith("<think>\n\n</think>") for answer in answers(found)) == 692 - 175
    assert sum("Give the answer in" in c.messages[0]["content"] for c in found) == 692 - 197
    assert all(re.search(r"</think>\n\n[+-]?[\d.,]+", answer) for answer in answers(found))
    assert not [message for c in found for message in c.messages if "\r" in message["content"]]


@pytest.mark.parametrize(("name", "count"), [("train", 7473), ("test", 1319)])
def test_grade_school_math(name: str, count: int) -> None:
    found = conversations(f"gsm8k/{name}.jsonl.gz")
    assert len(found) == count
    assert all(re.search(r"[^\n]\n#### -?[\d,]+(\.\d+)?$", answer) for answer in answers(found))
    assert not [answer for answer in answers(found) if "<<" in answer or ">>" in answer]


@pytest.mark.parametrize(("name", "count", "worlds"), [("test", 7600, 1900), ("train_part", 30014, 7479)])
def test_news(name: str, count: int, worlds: int) -> None:
    found = conversations(f"ag_news/{name}.csv.gz", "ag_news", COLUMNS)
    assert len(found) == count
    assert answers(found).count('{"category":"World"}') == worlds
    assert set(answers(found)) == {f'{{"category":"{c}"}}' for c in ("World", "Sports", "Business", "Sci/Tech")}
    questions = [conversation.messages[1]["content"] for conversation in found]
    assert not [text for text in questions if "\\" in text or re.search(r"#\d+;|\b(quot|amp|lt|gt|hellip);", text)]
