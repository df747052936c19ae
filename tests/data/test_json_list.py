"""Rows of a JSON file come out the same however it is cut up, and what is wrong is one clear line."""

import json
from pathlib import Path

import pytest
from row_files import read, refusal

from ftx.data import json_list


def test_elements_of_a_json_list_that_are_no_rows_are_bad_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "a.json", b'[{"a": 1}, 2, {"a": "\\udc00"}, {"a": 3}]') == [
        (1, {"a": 1}),
        "a.json:2: must be an object, not a number",
        "a.json:3: holds \\udc00, half of a surrogate pair, which is no character",
        (4, {"a": 3}),
    ]


@pytest.mark.parametrize("chunk", [*range(1, 40), 2**20])
def test_json_is_read_the_same_wherever_a_chunk_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(json_list, "_CHUNK", chunk)
    rows = [{"p": "x" * 50}, -1.25e-2, {"é": [-1.5e3, None, True, "\\n\n\u20ac"]}, 12, {}, {"n": 1}]
    expected = [
        (number, row) if isinstance(row, dict) else f"a.json:{number}: must be an object, not a number"
        for number, row in enumerate(rows, 1)
    ]
    compact = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    assert read(tmp_path, "a.json", compact.encode()) == expected
    assert read(tmp_path, "a.json", json.dumps({"a": 1.5, "rows": rows, "z": {}}, indent=1).encode()) == expected
    message = refusal(tmp_path, "a.json", (compact[:-1].replace(",", ",\n") + ",\n {3}]").encode())
    where = "Expecting property name enclosed in double quotes (line 10 column 3)"
    assert message == f"data.path: a.json is not valid JSON: {where}; correct it there"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            b'{"messages": [{"role": "user"}]}',
            "a.json holds a single row at its top; write one list of rows, or one row a line as .jsonl",
        ),
        (
            "a.json",
            b'{"a": [{}], "b": [{}]}',
            "a.json holds more than one list ('a', 'b'); write one list of rows, or one row a line as .jsonl",
        ),
        ("a.json", b'{"a": 1}', "a.json holds an object without a list; write one list of rows, or .jsonl"),
        ("a.json", b"{}", "a.json holds an object without a list; write one list of rows, or .jsonl"),
        (
            "a.json",
            b'[\n {"a": 1},\n {"a" 2}\n]',
            "a.json is not valid JSON: Expecting ':' delimiter (line 3 column 7); correct it there",
        ),
        (
            "a.json",
            b'[{"a": 1}\n',
            "a.json is not valid JSON: expected ',' or ']', found the end (line 2 column 1); correct it there",
        ),
        (
            "a.json",
            b'[{"a": "x',
            "a.json is not valid JSON: Unterminated string starting at (line 1 column 8); correct it there",
        ),
        (
            "a.json",
            b"[{}] x",
            "a.json is not valid JSON: text after the end: 'x' (line 1 column 6); correct it there",
        ),
        (
            "a.json",
            b"prompt,completion\n",
            "a.json is not valid JSON: expected a list of rows or an object that holds one, found 'p' "
            "(line 1 column 1); correct it there",
        ),
        ("a.json", b'[{},\n{"a": "\xe9"}]', "a.json is not UTF-8: byte 0xe9; save the file as UTF-8 (line 2)"),
    ],
)
def test_json_that_is_no_list_of_rows_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    assert refusal(tmp_path, name, content) == f"data.path: {message}"
