"""Tasks as conversations: instructions, problems with worked answers, and news to classify."""

from pathlib import Path
from typing import Any

import pytest

from ftx.data.files import read_rows
from ftx.data.formats import to_conversation
from ftx.data.formats.news import COLUMNS, SYSTEM, repaired
from ftx.data.rows import BadRow, Row
from ftx.errors import UserError

PATH = Path("tasks.jsonl")


def read(format: str, row: dict[str, Any]) -> list[tuple[str, str]]:
    found = to_conversation(Row(1, row), PATH, format=format)
    assert all(set(message) == {"role", "content"} for message in found.messages)
    return [(message["role"], message["content"]) for message in found.messages]


def refused(format: str, row: dict[str, Any]) -> str:
    with pytest.raises(BadRow) as caught:
        read(format, row)
    return caught.value.reason


def test_alpaca() -> None:
    row = {"instruction": "Add.", "input": "2 and 2", "output": "4"}
    assert read("alpaca", row) == [("user", "Add.\n\n2 and 2"), ("assistant", "4")]
    assert read("auto", {**row, "input": "", "system": " ", "history": []}) == [("user", "Add."), ("assistant", "4")]
    before = [("user", "Hi"), ("assistant", "Hello")]
    expected = [("system", "Be brief."), *before, ("user", "Add.\n\n2 and 2"), ("assistant", "4")]
    for history in ([["Hi", "Hello"]], '[["Hi", "Hello"]]'):
        assert read("alpaca", {**row, "system": "Be brief.", "history": history}) == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"output": " "}, "output is empty"),
        ({"output": 4}, "output must be a string, not a number"),
        ({"instruction": ""}, "instruction is empty"),
        ({"input": ["2"]}, "input must be a string, not a list"),
        ({"history": {"a": 1}}, "history must be a list of pairs, not an object"),
        ({"history": [["a", "b"], ["c"]]}, "history[1] must be a pair of question and answer, two strings"),
    ],
)
def test_alpaca_rows_that_cannot_be_used_say_why(change: dict[str, Any], reason: str) -> None:
    assert refused("alpaca", {"instruction": "Add.", "output": "4", **change}) == reason


def test_gsm8k_loses_its_calculator_marks_and_nothing_else() -> None:
    row = {
        "question": "How many?",
        "answer": "12/60 = $<<12/60=0.2>>0.2 a minute.\nSo <<0.2*50=10>>10 < 11.\n#### 1,010 ",
    }
    assert read("auto", row) == [
        ("user", "How many?"),
        ("assistant", "12/60 = $0.2 a minute.\nSo 10 < 11.\n#### 1,010"),
    ]
    assert read("gsm8k", {"question": "How many?", "answer": "#### 3"})[1] == ("assistant", "#### 3")


@pytest.mark.parametrize("answer", ["3", "so ####", "#### 3 #### 4"])
def test_gsm8k_needs_one_final_answer(answer: str) -> None:
    reason = "answer must hold #### and the final answer after it, once"
    assert refused("gsm8k", {"question": "x", "answer": answer}) == reason


def test_scibench_asks_in_the_unit_and_answers_with_it() -> None:
    row = {"problem_text": " Pressure? ", "unit": " $\\mathrm{atm}$ ", "answer_number": " 50.7"}
    question = ("user", "Pressure?\n\nGive the answer in $\\mathrm{atm}$.")
    assert read("scibench", row) == [question, ("assistant", "<think>\n\n</think>\n\n50.7 $\\mathrm{atm}$")]
    solved = {**row, "solution": "It is\r\n$p$.\n"}
    assert read("scibench", solved) == [
        question,
        ("assistant", "<think>\nIt is\n$p$.\n</think>\n\n50.7 $\\mathrm{atm}$"),
    ]
    assert read("scibench", {**row, "unit": " "}) == [
        ("user", "Pressure?"),
        ("assistant", "<think>\n\n</think>\n\n50.7"),
    ]
    assert read("scibench", {**row, "unit": "", "answer_number": "\u22122"})[1][1].endswith("\n\n-2")
    assert refused("scibench", {**row, "answer_number": " "}) == "answer_number is empty"
    bad = "holds </think>, which ends the thoughts, within its text"
    assert refused("scibench", {**row, "solution": "a </think> b"}) == bad


BLOCKS = [("text", "We add.\n"), ("code", "2+{}\n2"), ("execution", "4"), ("text", "It is 4.")]
THOUGHT = "<think>\nWe add.\n\n```python\n2+{}\n2\n```\n\n```output\n4\n```\n</think>\n\nIt is 4."


def test_mathcodeinstruct_blocks_are_thought_but_for_the_last_text() -> None:
    as_messages = [{"role": role, "content": text} for role, text in [("system", ""), ("user", "2+2?"), *BLOCKS]]
    parts = [{"type": kind, "content": text} for kind, text in BLOCKS]
    as_parts = [
        {"role": "system", "content": [{"type": "text", "content": ""}]},
        {"role": "user", "content": [{"type": "text", "content": "2+2?"}]},
        {"role": "assistant", "content": parts},
    ]
    for messages in (as_messages, as_parts):
        assert read("mathcodeinstruct", {"messages": messages}) == [("user", "2+2?"), ("assistant", THOUGHT)]
    as_messages[0]["content"] = "Solve."
    assert read("mathcodeinstruct", {"messages": as_messages})[0] == ("system", "Solve.")
    assert read("mathcodeinstruct", {"messages": [as_messages[1], {"role": "text", "content": "4"}]})[1] == (
        "assistant",
        "<think>\n\n</think>\n\n4",
    )


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (
            [("user", "x"), ("code", "1"), ("execution", "1")],
            "messages must end with a text, the final answer, not with execution",
        ),
        ([("user", "x"), ("text", " ")], "messages must end with a text, the final answer, not with a blank one"),
        ([("user", "x")], "messages must end with a text, the final answer, not with user"),
        ([("text", "x")], "messages has no problem: no text of the user"),
        (
            [("user", "x"), ("text", "1"), ("user", "y")],
            "the user speaks after the solution has begun; one problem a row",
        ),
        (
            [("gpt", "x")],
            "messages[0].role must be one of system, user, assistant, code, execution, text, not 'gpt'",
        ),
        (
            [("user", [{"type": "code", "content": "x"}])],
            "messages[0].content[0].type must be text, not 'code'",
        ),
        (
            [("user", "x"), ("assistant", [{"type": "text", "content": None}])],
            "messages[1].content[0].content must be a string, not null",
        ),
    ],
)
def test_mathcodeinstruct_rows_that_cannot_be_used_say_why(pairs: list[tuple[str, Any]], reason: str) -> None:
    messages = [{"role": role, "content": content} for role, content in pairs]
    assert refused("mathcodeinstruct", {"messages": messages}) == reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the bank #39;s boss", "the bank's boss"),
        ("In  quot;helping, quot; he", 'In "helping," he'),
        ("the  #36;10 million", "the $10 million"),
        ("\\$3.2bn", "$3.2bn"),
        ("a second\\team", "a second\nteam"),
        ("Inc. &lt;DELL.O&gt;, the", "Inc. <DELL.O>, the"),
        ("late #151; very", "late— very"),
        ("AT &amp;T and &#38;", "AT &T and &"),
        ("Netscape  #038; Google", "Netscape & Google"),
        ("a&amp;lt;b", "a<b"),
        ("Western  amp;amp;amp; Southern", "Western & Southern"),
        ("C#39; xlt;", "C#39; xlt;"),
        ("Stocks Up; the race; not image;", "Stocks Up; the race; not image;"),
        ("swamp; AT&T; ?a=1&copy=2", "swamp; AT&T; ?a=1&copy=2"),
        ("of 3 caf eacute;s", "of 3 cafés"),
    ],
)
def test_broken_entities_of_the_news_are_repaired(text: str, expected: str) -> None:
    assert repaired(text) == expected


def test_news_of_both_published_shapes_are_the_same_conversation() -> None:
    expected = [
        ("system", SYSTEM),
        ("user", "Classify the following news article: The bank's end It $10."),
        ("assistant", '{"category":"Sci/Tech"}'),
    ]
    as_csv = {"class": "4", "title": "The bank #39;s end", "description": "It \\$10."}
    assert read("ag_news", as_csv) == read("ag_news", {**as_csv, "class": 4}) == expected
    assert read("ag_news", {"text": "The bank #39;s end It \\$10.", "label": 3}) == expected
    assert refused("ag_news", {**as_csv, "class": "0"}) == "class must be one of 1, 2, 3, 4, not '0'"
    assert refused("ag_news", {"text": "x", "label": 4}) == "label must be one of 0, 1, 2, 3, not 4"
    assert refused("ag_news", {"text": "x", "label": True}) == "label must be one of 0, 1, 2, 3, not True"
    assert refused("ag_news", {**as_csv, "title": " "}) == "title is empty"


def test_columns_of_a_file_without_header_are_given_their_names(tmp_path: Path) -> None:
    path = tmp_path / "news.csv"
    path.write_text('"3","A ""title""","Text\nof two lines"\n"1","B"\n')
    first, second = read_rows(path, COLUMNS)
    assert first == Row(1, {"class": "3", "title": 'A "title"', "description": "Text\nof two lines"})
    assert str(second) == f"{path}:3: has 2 cells, but the header names 3 columns"
    (tmp_path / "x.tsv").write_text("3\tA\tB\n")
    assert list(read_rows(tmp_path / "x.tsv", COLUMNS)) == [Row(1, {"class": "3", "title": "A", "description": "B"})]
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"x.jsonl is no csv or tsv, so its columns cannot be named$"):
        read_rows(tmp_path / "x.jsonl", COLUMNS)
