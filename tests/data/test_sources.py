"""Sources, mixtures, filters, transforms and orders, from words to prepared rows."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow.parquet
import pytest

from ftx.config.compose import compose
from ftx.config.schema import RunConfig
from ftx.data.fingerprint import data_fingerprint
from ftx.data.prepare import Prepared, prepare
from ftx.errors import UserError
from ftx.preflight import check_data_here

TINY = ("model.architecture.vocabulary_size=320", "data.packing=false", "data.max_length=256")


def write_chats(path: Path, count: int, **columns) -> None:
    """Chats of one turn; a column's value may be a function of the row's number."""
    rows = [
        {"prompt": f"q {path.stem} {n}", "completion": f"a{n}"}
        | {name: value(n) if callable(value) else value for name, value in columns.items()}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def composed(folder: Path, *words: str) -> RunConfig:
    return compose(*TINY, f"run_root={folder / 'runs'}", *words)


def prepared(folder: Path, *words: str) -> Prepared:
    return prepare(composed(folder, *words))


def ids(conversations) -> list[str]:
    return [one.id for one in conversations]


def names(conversations) -> Counter:
    """How many conversations come from each file."""
    return Counter(one.id.partition(".")[0] for one in conversations)


@pytest.fixture
def three(tmp_path) -> list[str]:
    """Files of 40, 30 and 20 chats, and the words of a mixture of them."""
    for name, count in (("a", 40), ("b", 30), ("c", 20)):
        write_chats(tmp_path / f"{name}.jsonl", count)
    return ["data=mixture", *(f"data.sources.{name}.path={tmp_path}/{name}.jsonl" for name in "abc")]


def test_a_mixture_takes_everything_unless_told_otherwise(tmp_path, three):
    data = prepared(tmp_path, *three, "data.holdout=0.2")
    assert names([*data.train_conversations, *data.held_out]) == {"a": 40, "b": 30, "c": 20}
    assert len(data.held_out) == 18
    assert set(names(data.held_out)) == {"a", "b", "c"}


def test_exact_counts_and_a_source_with_fewer_says_so(tmp_path, three, ftx_log):
    words = ["data.sources.a.rows=5", "data.sources.b.rows=30", "data.sources.c.rows=99", "data.holdout=0"]
    data = prepared(tmp_path, *three, *words, "evaluation.tasks=[]")
    assert names(data.train_conversations) == {"a": 5, "b": 30, "c": 20}
    assert "data.sources.c.rows=99: it has 20, all of which are taken" in ftx_log.text


def test_weights_are_shares_and_no_conversation_is_taken_twice(tmp_path, three):
    words = ["data.sources.a.weight=0.5", "data.sources.b.weight=0.4", "data.sources.c.weight=0.1", "data.holdout=0"]
    data = prepared(tmp_path, *three, *words, "evaluation.tasks=[]")
    # b's 30 are four tenths of 75.
    assert names(data.train_conversations) == {"a": 38, "b": 30, "c": 8}
    assert len(set(ids(data.train_conversations))) == 76


def test_the_draw_is_a_function_of_the_seed(tmp_path, three):
    words = [*three, "data.sources.a.rows=9", "data.sources.b.rows=9", "data.sources.c.rows=9"]
    first, again, other = (
        prepared(tmp_path, *words, f"seed={seed}", f"data.cache={tmp_path}/{n}") for n, seed in enumerate((1, 1, 2))
    )
    assert ids(first.train_conversations) == ids(again.train_conversations)
    assert ids(first.held_out) == ids(again.held_out)
    assert set(ids(first.train_conversations)) != set(ids(other.train_conversations))


def test_the_order_in_which_sources_are_named_changes_nothing(tmp_path, three):
    words = ["data.sources.a.rows=9", "data.sources.b.rows=9", "data.sources.c.rows=9"]
    first = prepared(tmp_path, *three, *words)
    again = prepared(tmp_path, three[0], *reversed(three[1:]), *words, f"data.cache={tmp_path}/other")
    assert first.folder.name == again.folder.name
    assert (ids(first.train_conversations), ids(first.held_out)) == (
        ids(again.train_conversations),
        ids(again.held_out),
    )


def test_what_is_not_drawn_is_counted_and_a_share_of_nothing_is_refused(tmp_path, three):
    words = ["data.sources.a.rows=5", "data.sources.b.rows=5", "data.sources.c.rows=5", "data.limit=6"]
    data = prepared(tmp_path, *three, *words, "data.holdout=4")
    assert (data.counts.train_conversations, data.counts.not_drawn) == (6, 90 - 4 - 6)
    assert data.counts.describe().endswith("80 not drawn")
    weights = ["data.sources.a.weight=1000", "data.sources.b.weight=1", "data.sources.c.weight=1000"]
    with pytest.raises(UserError, match=r"data\.sources\.b\.weight=1: so small a share is no conversation"):
        prepared(tmp_path, *three, *weights)


def test_sources_of_a_mixture_have_shapes_of_their_own(tmp_path):
    write_chats(tmp_path / "a.jsonl", 12, score=lambda n: n)
    with (tmp_path / "news.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[1 + n % 4, f"Title {n}", "Text"] for n in range(8)])
    data = prepared(
        tmp_path,
        "data=mixture",
        f"data.sources.chats.path={tmp_path}/a.jsonl",
        'data.sources.chats.filter=["score>=4"]',
        f"data.sources.news.path={tmp_path}/news.csv",
        "data.sources.news.format=ag_news",
        "data.sources.news.columns=[class,title,description]",
        "data.holdout=3",
    )
    assert names([*data.train_conversations, *data.held_out]) == {"a": 8, "news": 8}
    assert (len(data.held_out), data.counts.filtered_out) == (3, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=mixture"], r"data\.sources is empty: data=mixture needs data\.sources\.NAME\.path"),
        (["data.sources.a.path=x.jsonl"], r"data\.sources\.a\.path: .*only data=mixture does"),
        (["data=mixture", "data.sources.a.rows=3"], r"data\.sources\.a\.path is not set"),
        (["data=mixture", "data.sources.a.pth=x"], r"data\.sources\.a\.pth: no such key \(did you mean .*a\.path"),
        (["data=mixture", "data.sources.a.path=x.csv", "data.sources.a.rows=0"], r"a\.rows=0: must be at least 1"),
        (["data=mixture", "data.sources.a.path=x.csv", "data.sources.a.rows=no"], r"a\.rows=no: must be a whole"),
        (["data=mixture", "data.sources.a.path=x.csv", "data.sources.a.weight=-1"], r"weight=-1: must be above 0"),
        (
            ["data=mixture", "data.sources.a.path=x.csv", "data.sources.a.weight=1", "data.sources.a.rows=1"],
            r"data\.sources\.a: has both weight=1 and rows=1",
        ),
        (
            ["data=mixture", "data.sources.a.path=x.csv", "data.sources.a.weight=1", "data.sources.b.path=y.csv"],
            r"data\.sources\.b: has no weight, but data\.sources\.a has",
        ),
        (
            ["data=mixture", "data.sources.a.path=x.csv", "data.sources.a.format=message"],
            r"data\.sources\.a\.format=message: no such format \(did you mean messages\?\)",
        ),
        (["data=hub"], r"data\.path is not set: data=hub needs data\.path=OWNER/NAME"),
        (["data=jsonl", "data.path=x.csv", "data.split=test"], r"data\.split=test: .*only data=hub does"),
        (["data.order=shortest"], r"data\.order=shortest: no such order \(did you mean shortest_first\?\)"),
        (["data.order=column:"], r"data\.order=column:: write column:NAME"),
        (["data.order=column:score"], r"data\.order=column:score: data=stdlib_docs has no columns"),
        (["data.packing=false", "data.packing_scope=global_batch"], r"packing_scope=global_batch: .*packs nothing"),
        (["data.packing_scope=global_batch", "data.order=source"], r"global_batch: not with data\.order=source"),
        (["data.holdout=0.95"], r"data\.holdout=0\.95: a share of at most 0\.9"),
        (["data.holdout=2.5"], r"data\.holdout=2\.5: .*a whole number"),
        (["data.holdout=500"], r"data\.holdout=500: data=stdlib_docs keeps a share aside; write one below 1"),
        (["data.order=colum:score"], r"data\.order=colum:score: no such order"),
        (["data=mixture", "data.sources.a=a.jsonl"], r"data\.sources\.a=a\.jsonl: a source has keys of its own"),
        (["data=mixture", "data.sources.a.path=a.jsonl", "data.sources.a.split=x"], r"\.a\.split: nothing"),
        (["data=hub", "data.path=./a.jsonl"], r"data\.path=\./a\.jsonl: is a file, .*data=jsonl"),
        (["data=jsonl", "data.path=a.csv", "data.holdout_path=a.csv"], r"holdout_path=a\.csv: is what is learned"),
        (["data=jsonl", "data.path=a.csv", "data.holdout_path=b.csv", "data.group_by=x"], r"group_by=x: nothing"),
    ],
)  # fmt: skip
def test_words_that_cannot_be(words, message):
    with pytest.raises(UserError, match=message):
        compose(*words)


def test_a_missing_file_of_a_mixture_is_told_of_its_own_key(tmp_path, three):
    run = composed(tmp_path, *three, f"data.sources.b.path={tmp_path}/gone.jsonl")
    with pytest.raises(UserError, match=r"^data\.sources\.b\.path: no such file: .*gone\.jsonl \(did you mean"):
        check_data_here(run)


def test_held_out_conversations_from_a_file_of_their_own(tmp_path):
    write_chats(tmp_path / "train.jsonl", 20)
    write_chats(tmp_path / "test.jsonl", 6)
    data = prepared(
        tmp_path, "data=jsonl", f"data.path={tmp_path}/train.jsonl", f"data.holdout_path={tmp_path}/test.jsonl"
    )
    assert names(data.train_conversations) == {"train": 20}
    assert ids(data.held_out) == [f"test.jsonl:{n}" for n in range(1, 7)]


def test_a_number_of_conversations_and_whole_groups_are_kept_aside(tmp_path):
    write_chats(tmp_path / "a.jsonl", 40, tree=lambda n: n // 4)
    words = ("data=jsonl", f"data.path={tmp_path}/a.jsonl")
    assert len(prepared(tmp_path, *words, "data.holdout=7").held_out) == 7
    data = prepared(tmp_path, *words, "data.holdout=7", "data.group_by=tree")
    groups = [{one.group for one in side} for side in (data.train_conversations, data.held_out)]
    assert len(data.held_out) == 8
    assert (len(groups[0]), len(groups[1]), groups[0] & groups[1]) == (8, 2, set())


def test_more_held_out_than_there_is_is_refused(tmp_path):
    write_chats(tmp_path / "a.jsonl", 6)
    with pytest.raises(UserError, match=r"data\.holdout=6: there are 6 conversations"):
        prepared(tmp_path, "data=jsonl", f"data.path={tmp_path}/a.jsonl", "data.holdout=6")


def test_times_and_decimals_of_a_parquet_file_are_texts_and_numbers(tmp_path):
    said = [
        {"role": "user", "content": "q", "at": datetime(2026, 1, 2)},
        {"role": "assistant", "content": "a", "at": None},
    ]
    pyarrow.parquet.write_table(pyarrow.table({"messages": [said] * 4}), tmp_path / "a.parquet")
    data = prepared(tmp_path, "data=jsonl", f"data.path={tmp_path}/a.parquet")
    assert data.train_conversations[0].messages[0]["at"] == "2026-01-02T00:00:00"


def test_pieces_of_one_conversation_are_one_conversation_in_any_order(tmp_path):
    write_chats(tmp_path / "a.jsonl", 12, completion=lambda n: "w " * (n * 5 + 1))
    words = ("data=jsonl", f"data.path={tmp_path}/a.jsonl", "data.too_long=split", "data.max_length=40")
    for order in ("shortest_first", "longest_first", "source", "balanced"):
        data = prepared(tmp_path, *words, f"data.order={order}")
        names = ids(data.train_conversations)
        assert len(names) == len(set(names)) == data.counts.train_conversations
        assert sorted(one.id for one in data.train_conversations.in_file_order()) == sorted(names)
        assert data.counts.split and not set(names) & set(ids(data.held_out))


def test_filters_count_what_they_leave_out(tmp_path):
    write_chats(tmp_path / "a.jsonl", 20, score=lambda n: n)
    words = ("data=jsonl", f"data.path={tmp_path}/a.jsonl", "data.holdout=0", "evaluation.tasks=[]")
    data = prepared(tmp_path, *words, 'data.filter=["score>=5","score<15"]')
    assert sorted(ids(data.train_conversations)) == sorted(f"a.jsonl:{n + 1}" for n in range(5, 15))
    assert data.counts.filtered_out == 10
    with pytest.raises(UserError, match=r"data\.path=.*not one row is left; data\.filter and transforms left 20 out"):
        prepared(tmp_path, *words, 'data.filter=["score>99"]')


@pytest.fixture
def own_code(tmp_path, monkeypatch) -> Iterator[Path]:
    """A module of the user's that can be imported by name."""
    module = tmp_path / "my_data.py"
    module.write_text(
        "def twice(row):\n    return [row, {**row, 'prompt': row['prompt'].upper()}]\n\n\n"
        "def odd_only(row):\n    return row if row['n'] % 2 else None\n\n\n"
        "def broken(row):\n    return row['gone']\n\n\n"
        "def nowhere(conversation, row):\n    return None\n\n\n"
        "def by_answer(conversation, row):\n    return -row['n']\n\n\n"
        "NUMBER = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_data", raising=False)
    yield module
    sys.modules.pop("my_data", None)


def test_transforms_of_the_users_change_leave_out_and_multiply_rows(tmp_path, own_code):
    write_chats(tmp_path / "a.jsonl", 20, n=lambda n: n)
    words = ("data=jsonl", f"data.path={tmp_path}/a.jsonl", "data.holdout=0.3")
    data = prepared(tmp_path, *words, "data.transforms=[my_data:odd_only,my_data:twice]")
    both = [*data.train_conversations, *data.held_out]
    assert sorted(ids(both)) == sorted(f"a.jsonl:{n + 1}.{version}" for n in range(1, 20, 2) for version in (1, 2))
    by_id = {one.id: one for one in both}
    assert by_id["a.jsonl:2.2"].messages[0]["content"] == "Q A 1"
    assert data.counts.filtered_out == 10
    held_out = {name.partition(".jsonl:")[2].partition(".")[0] for name in ids(data.held_out)}
    trained = {name.partition(".jsonl:")[2].partition(".")[0] for name in ids(data.train_conversations)}
    assert held_out and not held_out & trained, "versions of one row stay on one side"


def test_transforms_and_orders_come_in_by_entry_point(tmp_path, own_code):
    info = tmp_path / "my_data-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-data\nVersion: 1.0\n")
    points = "[ftx.transforms]\nodd = my_data:odd_only\n\n[ftx.orders]\nlast_first = my_data:by_answer\n"
    (info / "entry_points.txt").write_text(points)
    write_chats(tmp_path / "a.jsonl", 10, n=lambda n: n)
    words = ("data=jsonl", f"data.path={tmp_path}/a.jsonl", "data.holdout=0", "evaluation.tasks=[]")
    data = prepared(tmp_path, *words, "data.transforms=[odd]", "data.order=last_first")
    assert [row.ids[0] for row in data.train] == [f"a.jsonl:{n + 1}" for n in (9, 7, 5, 3, 1)]
    with pytest.raises(
        UserError, match=r"data\.transforms=od: no such entry point .* \(did you mean odd\?\); there are odd"
    ):
        check_data_here(composed(tmp_path, *words, "data.transforms=[od]"))


def test_a_changed_transform_is_other_data(tmp_path, own_code):
    write_chats(tmp_path / "a.jsonl", 4, n=lambda n: n)
    run = composed(tmp_path, "data=jsonl", f"data.path={tmp_path}/a.jsonl", "data.transforms=[my_data:twice]")
    before = data_fingerprint(run)
    own_code.write_text(own_code.read_text() + "# changed\n")
    assert data_fingerprint(run) != before


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.transforms=[gone]", r"data\.transforms=gone: no such entry point of ftx\.transforms; .*MODULE:FUNCTION"),
        ("data.transforms=[my_data:gone]", r"data\.transforms=my_data:gone: cannot be loaded"),
        ("data.transforms=[no_module:f]", r"data\.transforms=no_module:f: cannot be loaded"),
        ("data.transforms=[my_data:NUMBER]", r"data\.transforms=my_data:NUMBER: is no function"),
        ("data.order=my_data:gone", r"data\.order=my_data:gone: cannot be loaded"),
        ("data.transforms=[my_data:broken]", r"a\.jsonl:1: data\.transforms=my_data:broken raised KeyError: 'gone'"),
        ("data.order=my_data:nowhere", r"a\.jsonl:1: data\.order=my_data:nowhere raised TypeError"),
        ('data.filter=["promt==1"]', r"a\.jsonl:1: has no promt \(did you mean prompt\?\)"),
        ("data.order=column:missing", r"a\.jsonl:1: has no missing, which data\.order asks for"),
        ("data.order=column:prompt", r"a\.jsonl:1: prompt is 'q a 0', no number to order by"),
    ],
)
def test_functions_and_columns_that_are_not_there(tmp_path, own_code, word, message):
    write_chats(tmp_path / "a.jsonl", 4, n=lambda n: n)
    with pytest.raises(UserError, match=message):
        check_data_here(composed(tmp_path, "data=jsonl", f"data.path={tmp_path}/a.jsonl", word))


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("source", lambda n: n),
        ("column:n", lambda n: n * 7 % 20),
        ("column:-n", lambda n: -(n * 7 % 20)),
        ("my_data:by_answer", lambda n: -(n * 7 % 20)),
        ("shortest_first", lambda n: n * 3 % 20),
        ("longest_first", lambda n: -(n * 3 % 20)),
    ],
)
def test_a_curriculum(tmp_path, own_code, order, key):
    write_chats(tmp_path / "a.jsonl", 20, n=lambda n: n * 7 % 20, prompt=lambda n: "w " * (n * 3 % 20 + 1))
    words = ("data=jsonl", f"data.path={tmp_path}/a.jsonl", "data.holdout=0", "evaluation.tasks=[]")
    data = prepared(tmp_path, *words, f"data.order={order}")
    expected = [f"a.jsonl:{n + 1}" for n in sorted(range(20), key=key)]
    assert [row.ids[0] for row in data.train] == expected
    packed = prepared(tmp_path, *words, f"data.order={order}", "data.packing=true", "data.max_length=64")
    firsts = [min(expected.index(name) for name in row.ids) for row in packed.train]
    assert len(firsts) < 20
    assert firsts == sorted(firsts)
