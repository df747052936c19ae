"""Reading rows: every format gives the same rows, every damage one clear line, any size the same memory."""

import csv
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from row_files import FORMATS, PAIRS, as_csv, as_parquet, read, refusal, written

from ftx.data.files import fingerprint, read_rows
from ftx.data.rows import BadRow, Row
from ftx.errors import UserError

REPOSITORY = Path(__file__).parents[2]
SHARED = Path(os.environ.get("FTX_SHARED_DATA", REPOSITORY / "../shared/data"))


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the real data {name} in FTX_SHARED_DATA (looked in {SHARED})")
    return path


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
def test_every_format_and_its_gz_give_the_same_rows(tmp_path: Path, name: str, bom: bytes) -> None:
    content = bom + FORMATS[name]
    plain = read(tmp_path, name, content)
    assert [row[1] for row in plain] == PAIRS
    assert read(tmp_path, f"{name}.gz", gzip.compress(content)) == plain


def test_parquet_gives_the_rows_that_went_in(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": str(i)}, {"role": "assistant", "content": "é"}]} for i in range(700)
    ]
    assert read(tmp_path, "chats.parquet", as_parquet(rows)) == list(enumerate(rows, 1))


def test_parquet_with_undecodable_text_marks_only_that_row(tmp_path: Path) -> None:
    latin = pyarrow.StringArray.from_buffers(
        3, pyarrow.py_buffer(bytes([0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])), pyarrow.py_buffer(b"a\xe9b")
    )
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"prompt": latin}), sink)
    assert read(tmp_path, "a.parquet", sink.getvalue()) == [
        (1, {"prompt": "a"}),
        "a.parquet:2: not UTF-8: byte 0xe9; save the file as UTF-8",
        (3, {"prompt": "b"}),
    ]


def test_line_numbers_are_the_physical_lines_where_the_record_starts(tmp_path: Path) -> None:
    assert read(tmp_path, "a.jsonl", b'\n{"a": 1}\n\n  \n{"a": 2}') == [(2, {"a": 1}), (5, {"a": 2})]
    assert read(tmp_path, "a.csv", b'a,b\n\n"1\n1",2\r\n3,4\n') == [
        (3, {"a": "1\n1", "b": "2"}),
        (5, {"a": "3", "b": "4"}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": "x" "b": "y"}', "not valid JSON: Expecting ',' delimiter (column 11)"),
        (b'{"a": 1', "not valid JSON: Expecting ',' delimiter (column 8)"),
        (b'{"a": "caf\xe9"}', "not UTF-8: byte 0xe9; save the file as UTF-8"),
        (b"[1, 2]", "must be an object, not a list"),
        (b'"text"', "must be an object, not a string"),
        (b"3", "must be an object, not a number"),
        (b"true", "must be an object, not a boolean"),
        (b"null", "must be an object, not null"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
        (b'{"a": "\\ud83d"}', "holds \\ud83d, half of a surrogate pair, which is no character"),
    ],
)
def test_a_bad_jsonl_line_is_handed_out_and_reading_goes_on(tmp_path: Path, line: bytes, reason: str) -> None:
    rows = read(tmp_path, "a.jsonl", b'{"a": 0}\n' + line + b'\n{"a": "\\ud83d\\ude00"}\n')
    assert rows == [(1, {"a": 0}), f"a.jsonl:2: {reason}", (3, {"a": "😀"})]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"1,2,3\n", "has 3 cells, but the header names 2 columns"),
        (b"1\n", "has 1 cells, but the header names 2 columns"),
        (b"caf\xe9,2\n", "not UTF-8: byte 0xe9; save the file as UTF-8"),
        (b'"1"x,2\n', "not valid CSV: ',' expected after '\"'"),
    ],
)
def test_a_bad_csv_record_is_handed_out_and_reading_goes_on(tmp_path: Path, record: bytes, reason: str) -> None:
    rows = read(tmp_path, "a.csv", b"a,b\n0,0\n" + record + b"9,9\n")
    assert rows == [(2, {"a": "0", "b": "0"}), f"a.csv:3: {reason}", (4, {"a": "9", "b": "9"})]


def test_a_quote_that_is_never_closed_is_a_bad_row_at_its_first_line(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", b'a,b\n0,0\n1,"2\n3,4\n') == [
        (2, {"a": "0", "b": "0"}),
        "a.csv:3: not valid CSV: unexpected end of data",
    ]


def test_csv_cells_may_be_larger_than_the_csv_modules_own_limit(tmp_path: Path) -> None:
    cell = "x" * 1_000_000
    assert read(tmp_path, "a.csv", f"a,b\n{cell},2\n".encode()) == [(2, {"a": cell, "b": "2"})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"\n \n", "a.jsonl has no rows; give a file with at least one"),
        ("a.json", b"[]", "a.json has no rows; give a file with at least one"),
        ("a.json", b" \n", "a.json has no rows; give a file with at least one"),
        ("a.json", b'{"rows": []}', "a.json has no rows; give a file with at least one"),
        ("a.csv", b"prompt,completion\n", "a.csv has no rows; give a file with at least one"),
        ("a.csv", b"a,b,a\n1,2,3\n", "a.csv: the header names column 'a' more than once; rename one of them"),
        (
            "a.csv",
            b"caf\xe9,b\n1,2\n",
            "a.csv: the header, its first line, is not UTF-8: byte 0xe9; save the file as UTF-8",
        ),
    ],
)
def test_a_file_without_rows_or_with_a_bad_header_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    assert refusal(tmp_path, name, content) == f"data.path: {message}"


def test_a_cut_off_parquet_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "a.parquet", as_parquet(PAIRS)[:-20])
    assert message.startswith("data.path: a.parquet is not whole parquet: ")
    assert message.endswith("; download or write it again")


def test_a_gzip_cut_off_late_gives_the_rows_before_the_cut(tmp_path: Path) -> None:
    content = gzip.compress(
        b"".join(hashlib.sha256(b"%d" % i).hexdigest().join('""').encode() + b"\n" for i in range(9999))
    )
    path = written(tmp_path, "a.jsonl.gz", content[:-2000])
    assert str(next(read_rows(path))) == f"{path}:1: must be an object, not a string"
    count = 0
    with pytest.raises(UserError, match=r"a\.jsonl\.gz is a gzip that is cut off"):
        for _ in read_rows(path):
            count += 1
    assert 5000 < count < 9999


def test_the_first_row_is_checked_without_the_rest(tmp_path: Path) -> None:
    assert next(read_rows(written(tmp_path, "a.jsonl", b'\n{"a": 1}\nbroken'))) == Row(2, {"a": 1})
    bad = next(read_rows(written(tmp_path, "b.jsonl", b'broken\n{"a": 1}')))
    assert isinstance(bad, BadRow)
    assert (bad.where.name, bad.number) == ("b.jsonl", 1)
    assert bad.reason == "not valid JSON: Expecting value (column 1)"


def test_the_fingerprint_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    assert fingerprint(written(tmp_path, "a.jsonl", b'{"a": 1}')) == hashlib.sha256(b'{"a": 1}').hexdigest()
    with pytest.raises(UserError, match="no such file"):
        fingerprint(tmp_path / "b.jsonl")


@pytest.mark.parametrize("name", ["big.jsonl", "big.json", "big.csv", "big.jsonl.gz"])
def test_a_large_file_streams_in_bounded_memory(tmp_path: Path, name: str) -> None:
    count, row = 1200, {"prompt": "question " * 2500, "completion": "answer " * 2500}
    lines = (json.dumps(row) for _ in range(count))
    path = tmp_path / name
    with gzip.open(path, "wt", compresslevel=1) if name.endswith(".gz") else path.open("w") as file:
        if name == "big.csv":
            file.write("prompt,completion\n" + f"{row['prompt']},{row['completion']}\n" * count)
        elif name == "big.json":
            file.write("[" + ",\n".join(lines) + "]")
        else:
            file.writelines(f"{line}\n" for line in lines)
    tracemalloc.start()
    try:
        assert sum(isinstance(found, Row) and found.value == row for found in read_rows(path)) == count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count * len(json.dumps(row)) > 45e6
    assert peak < 8e6


def test_importing_the_module_brings_in_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'pyarrow', 'datasets', 'numpy'}"
    code = f"import sys, ftx.data.formats; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_ag_news_survives_the_way_through_csv_gz(tmp_path: Path) -> None:
    with gzip.open(shared("ag_news/test.csv.gz"), "rt", newline="") as file:
        pairs = [{"prompt": f"{title} {text}", "completion": label} for label, title, text in csv.reader(file)]
    rows = read(tmp_path, "news.csv.gz", gzip.compress(as_csv(pairs), compresslevel=1))
    assert len(rows) == 7600
    assert rows == list(enumerate(pairs, 2))


def test_the_real_jsonl_gz_and_json_files_are_read_whole() -> None:
    threads = list(read_rows(shared("oasst/threads.jsonl.gz")))
    assert len(threads) == 564
    assert all(isinstance(row, Row) and row.value["messages"] for row in threads)
    assert sum(isinstance(row, Row) for row in read_rows(shared("glaive/glaive_toolcall_en_demo.json"))) == 300
    assert sum(isinstance(row, Row) for row in read_rows(shared("glaive/reason_tool_use_demo_50.jsonl"))) == 50
