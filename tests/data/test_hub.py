"""Data sets from a hub on loopback: the rows that were written, no bytes too many, and one line for each mistake."""

import gzip
import io
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import Hub, Repository
from row_files import as_jsonl

from ftx.data.hub_names import check_hub_name, hub_commit
from ftx.errors import UserError

# One process for many questions, as importing ``datasets`` takes longer than all of them.
PROBE = """
import json, sys
from pathlib import Path
from ftx.data.hub import Columns, HubSplit, read_hub_rows
from ftx.data.hub_names import hub_commit
from ftx.data.rows import Row
from ftx.errors import UserError

def answer(what, *given):
    if what == "download":
        from huggingface_hub import snapshot_download
        return snapshot_download(given[0], repo_type="dataset", revision=given[1], allow_patterns=given[2])
    if what == "commit":
        name, revision, kind, cache = given
        word = {"model": "model.name", "dataset": "data.path"}[kind]
        return hub_commit(name, revision, kind=kind, word=word, cache=Path(cache))
    *split, columns = given
    rows = read_hub_rows(HubSplit(*split), columns and Columns(tuple(columns)))
    return [[row.number, row.value] if isinstance(row, Row) else str(row) for row in rows]

answers = []
for question in json.load(sys.stdin):
    try:
        answers.append(answer(*question))
    except UserError as error:
        answers.append(f"UserError: {error}")
print(json.dumps(answers))
"""


def talk(n: int) -> dict[str, Any]:
    """A row with a list of objects, and None among them."""
    said = [{"role": "user", "content": f"{n}?", "name": None}, {"role": "assistant", "content": "é" * n, "name": "a"}]
    return {"id": n, "messages": said, "score": n / 8}


def as_parquet(rows: list[dict[str, Any]], group: int = 3) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink, row_group_size=group, compression="none")
    return sink.getvalue()


TALKS = [talk(n) for n in range(20)]
RAGGED = [{"prompt": "2024-01-02", "n": 1}, {"prompt": "a\u2028b", "tags": ["x", {"y": 1}], "n": "two"}, {"n": None}]
LONG = [{**talk(n), "trace": random.Random(n).randbytes(2**18).hex()} for n in range(64)]

SUBSETS = b"""---
configs:
- config_name: main
  data_files: [{split: train, path: main/part-*}, {split: check, path: held_out.parquet}]
- config_name: socratic
  data_files: [{split: train, path: socratic.parquet}]
---
"""
DATA_SETS = {
    "team/talks": {
        "README.md": b"# Talks\n",
        "data/train-00000-of-00003.parquet": as_parquet(TALKS[:8]),
        "data/train-00001-of-00003.parquet": as_parquet(TALKS[8:9]),
        "data/train-00002-of-00003.parquet": as_parquet(TALKS[9:]),
        "data/test-00000-of-00001.parquet": as_parquet(TALKS[:2]),
    },
    "team/subsets": {
        "README.md": SUBSETS,
        "main/part-1.parquet": as_parquet(TALKS[:3]),
        "main/part-2.parquet": as_parquet(TALKS[3:5]),
        "held_out.parquet": as_parquet(TALKS[5:6]),
        "socratic.parquet": as_parquet(TALKS[6:7]),
    },
    "team/long": {
        "data/train-00000-of-00002.parquet": as_parquet(LONG[:32], group=8),
        "data/train-00001-of-00002.parquet": as_parquet(LONG[32:], group=8),
    },
    "team/lines": {
        "train-1.jsonl": as_jsonl(RAGGED) + b'\n{"n": \n',
        "train-2.jsonl": as_jsonl(RAGGED[:1]),
        "test.jsonl": as_jsonl(RAGGED[1:]),
    },
    "team/list": {"train.json": json.dumps(RAGGED, indent=1).encode()},
    "team/packed": {"train.jsonl.gz": gzip.compress(as_jsonl(RAGGED), mtime=0)},
    "team/table": {"train.csv": b"id,text\n1,one\n2,\n"},
    "team/dropped": {"dropped.jsonl": as_jsonl(TALKS)},
    "team/closed": {"train.jsonl": as_jsonl(TALKS)},
    "team/bare": {"README.md": b"# Nothing yet\n"},
}
COMMITS = {name: Repository(files).commit for name, files in DATA_SETS.items()}


@dataclass(frozen=True)
class Place:
    """A hub, and a home of its own for what is fetched from it."""

    hub: Hub
    home: Path

    def ask(self, *questions: list[Any], offline: bool = False, warns: str = "") -> list[Any]:
        process = subprocess.run(
            [sys.executable, "-c", PROBE],
            input=json.dumps(questions),
            env=self.hub.environment(self.home, offline),
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        assert warns in process.stderr if warns else process.stderr == ""
        answers: list[Any] = json.loads(process.stdout)
        return answers


def rows_of(name: str, split: str = "train", subset: str | None = None, columns: list[str] | None = None) -> list[Any]:
    return ["rows", name, subset, split, COMMITS.get(name, "1" * 40), columns]


def numbered(rows: list[dict[str, Any]]) -> list[Any]:
    return [[number, row] for number, row in enumerate(rows, 1)]


def only(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{name: row[name] for name in names if name in row} for row in rows]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    datasets = {name: Repository(files, gated=name == "team/closed") for name, files in DATA_SETS.items()}
    models = {"team/model": Repository({"config.json": b"{}"})}
    with Hub(datasets, models, drop={"dropped.jsonl"}) as hub:
        yield Place(hub, tmp_path_factory.mktemp("home"))


BAD_LINE = "team/lines/train:4: not valid JSON: Expecting value (column 6) (team/lines/train-1.jsonl:5)"
READ: dict[str, tuple[list[Any], Any]] = {
    "shards and row groups": (rows_of("team/talks"), numbered(TALKS)),
    "a split by file name": (rows_of("team/talks", "test"), numbered(TALKS[:2])),
    "columns": (rows_of("team/talks", columns=["score", "messages"]), numbered(only(TALKS, "messages", "score"))),
    "a subset of many files": (rows_of("team/subsets", subset="main"), numbered(TALKS[:5])),
    "its other split": (rows_of("team/subsets", "check", "main"), numbered(TALKS[5:6])),
    "another subset": (rows_of("team/subsets", subset="socratic"), numbered(TALKS[6:7])),
    "lines": (rows_of("team/lines", "test"), numbered(RAGGED[1:])),
    "a bad line": (rows_of("team/lines"), [*numbered(RAGGED), BAD_LINE, [5, RAGGED[0]]]),
    "columns of lines": (rows_of("team/lines", "test", None, ["tags"]), numbered(only(RAGGED[1:], "tags"))),
    "a list": (rows_of("team/list"), numbered(RAGGED)),
    "gzip": (rows_of("team/packed"), numbered(RAGGED)),
    "csv": (rows_of("team/table", columns=["text"]), numbered([{"text": "one"}, {"text": None}])),
    "a connection that is lost": (rows_of("team/dropped"), numbered(TALKS)),
}
MISTAKES: dict[str, tuple[list[Any], str]] = {
    "split": (
        rows_of("team/talks", "tran"),
        "data.split=tran: team/talks has no such split (did you mean train?); there are train, test",
    ),
    "no subset": (
        rows_of("team/subsets"),
        "data.subset is not set: team/subsets has several and no default; there are main, socratic",
    ),
    "subset": (
        rows_of("team/subsets", subset="mian"),
        "data.subset=mian: team/subsets has no such subset (did you mean main?); there are main, socratic",
    ),
    "column": (
        rows_of("team/talks", columns=["id", "mesages"]),
        "data.columns=mesages: team/talks has no such column (did you mean messages?); there are id, messages, score",
    ),
    "column of lines": (
        rows_of("team/lines", "test", None, ["prompts"]),
        "data.columns=prompts: team/lines has no such column (did you mean prompt?); there are n, prompt, tags",
    ),
    "name": (
        rows_of("team/gone"),
        "data.path=team/gone: not on the hub, or private; mend the name, or log in with hf auth login",
    ),
    "gated": (
        rows_of("team/closed"),
        "data.path=team/closed: gated; log in with hf auth login, and accept the terms on its page on the hub",
    ),
    "nothing to read": (rows_of("team/bare"), "data.path=team/bare: cannot be read at revision"),
    "revision": (
        ["commit", "team/talks", "v7", "dataset", "/nowhere"],
        "data.revision=v7: team/talks has no such revision on the hub; write main, or a tag or commit of it",
    ),
    "name for a commit": (
        ["commit", "team/gone", "main", "model", "/nowhere"],
        "model.name=team/gone: not on the hub, or private; mend the name, or log in with hf auth login",
    ),
}
CACHED = [READ[name] for name in ("shards and row groups", "columns", "its other split", "another subset", "lines")]


@pytest.fixture(scope="module")
def online(place) -> dict[str, Any]:
    """All questions in one process, by name, after them the downloads that the offline tests read."""
    cache = str(place.home / "cache")
    questions = {name: question for name, (question, _) in [*READ.items(), *MISTAKES.items()]}
    questions["only columns"] = rows_of("team/long", columns=["id", "messages"])
    questions["commit"] = ["commit", "team/talks", "main", "dataset", cache]
    questions["commit of a model"] = ["commit", "team/model", "main", "model", cache]
    for name, pattern in {"team/talks": "*", "team/subsets": "*", "team/lines": "test*"}.items():
        questions[f"download {name}"] = ["download", name, COMMITS[name], pattern]
    return dict(zip(questions, place.ask(*questions.values()), strict=True))


@pytest.mark.parametrize("name", READ)
def test_the_rows_that_were_written_come_out_in_their_order(name, place, online):
    assert online[name] == READ[name][1]
    assert place.hub.drop == set()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, online):
    assert online[name].startswith(f"UserError: {MISTAKES[name][1]}")
    assert "\n" not in online[name]


def test_only_the_columns_that_are_asked_for_are_sent(place, online):
    assert online["only columns"] == numbered(only(LONG, "id", "messages"))
    for path, data in DATA_SETS["team/long"].items():
        assert 0 < place.hub.sent(f"{COMMITS['team/long']}/{path}") < 0.05 * len(data)


def test_a_revision_is_the_hubs_commit(online):
    assert online["commit"] == COMMITS["team/talks"]
    assert online["commit of a model"] == Repository({"config.json": b"{}"}).commit


def test_offline_what_is_cached_is_read_without_a_request(place, online):
    before = len(place.hub.requests)
    cache = str(place.home / "cache")
    *rows, known, unknown, missing, incomplete = place.ask(
        *(question for question, _ in CACHED),
        ["commit", "team/talks", "main", "dataset", cache],
        ["commit", "team/talks", "v1", "dataset", cache],
        rows_of("team/packed"),
        rows_of("team/lines"),
        offline=True,
    )
    assert rows == [expected for _, expected in CACHED]
    assert known == COMMITS["team/talks"]
    assert "data.path=team/talks: revision v1 is not in the local hub cache, and HF_HUB_OFFLINE" in unknown
    assert "data.path=team/packed: the data set is not in the local hub cache" in missing
    assert "data.path=team/lines: train-1.jsonl is not in the local hub cache" in incomplete
    assert f"hf download --repo-type dataset --revision {COMMITS['team/lines']} team/lines" in incomplete
    assert len(place.hub.requests) == before


def test_what_is_cached_is_not_sent_again(place, online):
    before = place.hub.sent(".parquet")
    (rows,) = place.ask(rows_of("team/talks"))
    assert rows == numbered(TALKS)
    assert place.hub.sent(".parquet") == before


def test_without_a_network_what_is_known_serves(place, online):
    with Hub() as gone:
        pass
    cache = str(place.home / "cache")
    questions = ["commit", "team/talks", "main", "dataset", cache], rows_of("team/talks"), rows_of("team/list")
    warning = f"data.path=team/talks: the hub cannot be reached; {COMMITS['team/talks']} is the last commit known"
    known, rows, unknown = Place(gone, place.home).ask(*questions, warns=warning)
    assert known == COMMITS["team/talks"]
    assert rows == numbered(TALKS)
    assert unknown.startswith("UserError: data.path=team/list: the hub cannot be reached")


def test_a_full_commit_needs_no_look_up(tmp_path):
    assert hub_commit("team/any", "a" * 40, kind="model", word="model.name", cache=tmp_path / "none") == "a" * 40


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("glue", "write OWNER/NAME"),
        ("team/talks/data", "write OWNER/NAME"),
        ("./chats.jsonl", "write OWNER/NAME"),
        ("https://huggingface.co/datasets/openai/gsm8k/tree/main", "write openai/gsm8k"),
    ],
)
def test_what_is_no_name_on_the_hub(name, way):
    with pytest.raises(UserError) as caught:
        check_hub_name("data.path", name)
    assert str(caught.value).startswith(f"data.path={name}: not a name on the hub; {way}")
