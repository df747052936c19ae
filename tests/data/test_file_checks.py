"""Files that are missing, mislabelled or damaged are refused in one clear line."""

import gzip
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from row_files import FORMATS, PAIRS, as_jsonl, as_parquet, refusal, written

from ftx.data.files import read_rows
from ftx.errors import UserError

KNOWN = ".json, .jsonl, .ndjson, .csv, .tsv, .parquet; all but .parquet also with .gz"
WEB_PAGE = b"<!DOCTYPE html><p>404"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
CUT_GZIP = gzip.compress(as_jsonl(PAIRS), mtime=0)[:-12]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "a.jsonl is empty; give a file with at least one row"),
        ("a.jsonl.gz", b"", "a.jsonl.gz is empty; give a file with at least one row"),
        (
            "a.csv.gz",
            gzip.compress(b"", mtime=0),
            "a.csv.gz is empty inside the gzip; give a file with at least one row",
        ),
        ("a.txt", b"x", f"a.txt: unknown suffix .txt (known: {KNOWN})"),
        ("a.txt.gz", b"x", f"a.txt.gz: unknown suffix .txt.gz (known: {KNOWN})"),
        ("a.parquet.gz", b"x", f"a.parquet.gz: unknown suffix .parquet.gz (known: {KNOWN})"),
        ("chats", b"x", f"chats: a name without a suffix (known: {KNOWN})"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "a.jsonl is gzip; rename it to a.jsonl.gz"),
        ("a.csv", gzip.compress(b"a,b", mtime=0), "a.csv is gzip; rename it to a.csv.gz"),
        ("a.jsonl.gz", b'{"a": 1}', "a.jsonl.gz is not gzip, though its name says so; rename it to a.jsonl"),
        ("a.jsonl.gz", CUT_GZIP, "a.jsonl.gz is a gzip that is cut off; download or write it again"),
        ("a.jsonl", PNG, f"a.jsonl holds a PNG image, not .jsonl; give a file in one of: {KNOWN}"),
        (
            "a.json.gz",
            gzip.compress(PNG, mtime=0),
            f"a.json.gz holds a PNG image, not .json; give a file in one of: {KNOWN}",
        ),
        ("a.csv", b"PK\x03\x04", f"a.csv holds a zip archive, not .csv; give a file in one of: {KNOWN}"),
        ("a.csv", "a,b".encode("utf-16"), f"a.csv holds UTF-16 text, not .csv; give a file in one of: {KNOWN}"),
        ("a.jsonl", WEB_PAGE, f"a.jsonl holds a web page, not .jsonl; give a file in one of: {KNOWN}"),
        (
            "a.jsonl",
            LFS,
            f"a.jsonl holds a Git LFS pointer (run git lfs pull), not .jsonl; give a file in one of: {KNOWN}",
        ),
        ("a.jsonl", as_parquet(PAIRS), "a.jsonl holds parquet, not .jsonl; rename it to end in .parquet"),
        ("a.json", as_jsonl(PAIRS), "a.json holds JSON Lines, not .json; rename it to end in .jsonl"),
        ("a.csv", as_jsonl(PAIRS), "a.csv holds JSON Lines, not .csv; rename it to end in .jsonl"),
        ("a.jsonl", FORMATS["chats.json"], "a.jsonl holds a JSON list, not .jsonl; rename it to end in .json"),
        ("a.jsonl", FORMATS["pretty.json"], "a.jsonl holds a JSON list, not .jsonl; rename it to end in .json"),
        (
            "a.parquet",
            as_jsonl(PAIRS),
            "a.parquet holds JSON Lines, not .parquet; rename it to end in .jsonl",
        ),
        (
            "a.parquet",
            b"junk",
            f"a.parquet is not parquet, though its name says so; give a file in one of: {KNOWN}",
        ),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    assert refusal(tmp_path, name, content) == f"data.path: {message}"


def test_a_damaged_gzip_is_refused_where_the_damage_is(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(as_jsonl(PAIRS), mtime=0))
    content[-5] ^= 0xFF
    message = refusal(tmp_path, "a.jsonl.gz", bytes(content))
    assert message.startswith("data.path: a.jsonl.gz is a damaged gzip (")


def test_a_missing_file_names_the_one_that_was_probably_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "chats.jsonl", b"{}\n")
    written(tmp_path, "notes.txt", b"")
    assert refusal(tmp_path, "chats.jsnl") == "data.path: no such file: chats.jsnl (did you mean chats.jsonl?)"
    assert refusal(tmp_path, "zzz") == "data.path: no such file: zzz (FOLDER holds chats.jsonl)"
    assert refusal(tmp_path, "no/a.csv") == "data.path: no such file: no/a.csv (there is no folder no)"
    (tmp_path / "empty").mkdir()
    assert (
        refusal(tmp_path / "empty", "a.csv")
        == f"data.path: no such file: a.csv (FOLDER holds no file in one of: {KNOWN})"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^data\.path: no such file: chats\.jsnl \(did you mean chats\.jsonl\?\)$"):
        read_rows(Path("chats.jsnl"))


def test_a_folder_names_the_files_in_it(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.csv.gz", "c.txt"):
        written(tmp_path, name, b"x")
    assert refusal(tmp_path, "") == "data.path: FOLDER is a folder, not a file (FOLDER holds a.jsonl, b.csv.gz)"


def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    expected = f"data.path: pipe.jsonl is not a regular file; write the rows to a file ({KNOWN}) first"
    assert refusal(tmp_path, "pipe.jsonl") == expected
    assert refusal(tmp_path, "a" * 300).endswith("File name too long; give the path of a file")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, unlike ``tmp_path``."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_file_without_permission_says_so(open_folder: Path) -> None:
    written(open_folder, "a.jsonl", b"{}\n").chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        message = refusal(open_folder, "a.jsonl")
    finally:
        os.seteuid(user)
    assert message == "data.path: no permission to read a.jsonl; give yourself the right to, or use a copy"
