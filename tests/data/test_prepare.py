"""Prepared data: built once, mapped by everyone else, and nothing left out without being counted."""

import json
import logging
import multiprocessing
import random
import shutil
from pathlib import Path

import pytest

from ftx.config.compose import compose
from ftx.config.schema import RunConfig
from ftx.data.files import read_rows
from ftx.data.formats import to_conversation
from ftx.data.prepare import Prepared, prepare
from ftx.data.tokenize import tokenize
from ftx.errors import UserError

WORDS = ("data=jsonl", "model.architecture.vocabulary_size=320", "data.holdout=0.2", "data.on_bad_row=skip")


def chats(count: int = 40) -> list[dict]:
    """Answers of one word after questions of 1 to 60."""
    draw = random.Random(3)
    return [
        {"prompt": " ".join(f"w{draw.randrange(90)}" for _ in range(1 + at * 37 % 60)), "completion": f"a{at}"}
        for at in range(count)
    ]


def write(folder: Path, lines: list) -> Path:
    path = folder / "chats.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def composed(folder: Path, *words: str) -> RunConfig:
    return compose(*WORDS, f"data.path={folder}/chats.jsonl", f"run_root={folder}/runs", *words)


def ids(store) -> list[str]:
    return [name for row in store for name in row.ids]


def contents(prepared: Prepared) -> list:
    rows = [*prepared.train, None, *prepared.evaluation]
    return [row and (row.ids, row.input_ids.tolist(), row.supervised.tolist(), row.lengths.tolist()) for row in rows]


def prepare_and_tell(run: RunConfig, number: int, answers) -> None:
    """In a process of its own: which file it got, and how often it built, as each build warns of the bad row."""
    log = Path(run.run_root) / f"log-{number}.txt"
    handler = logging.FileHandler(log)
    logging.getLogger("ftx").addHandler(handler)
    prepared = prepare(run)
    stat = (prepared.folder / "train.arrow").stat()
    answers.put((stat.st_ino, stat.st_mtime_ns, len(prepared.train), log.read_text().count("skipped: ")))


def test_four_processes_at_once_build_it_once(tmp_path):
    write(tmp_path, [*chats(), "no json"])
    run = composed(tmp_path)
    (tmp_path / "runs").mkdir()
    context = multiprocessing.get_context("forkserver")
    answers = context.Queue()
    processes = [context.Process(target=prepare_and_tell, args=(run, number, answers)) for number in range(4)]
    for process in processes:
        process.start()
    told = [answers.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    assert len({(inode, changed, rows) for inode, changed, rows, _ in told}) == 1
    assert sorted(builds for *_, builds in told) == [0, 0, 0, 1]


@pytest.fixture
def skipped():
    """What was said about skipped rows, once for each build."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    handler.addFilter(lambda record: record.getMessage().startswith("skipped: "))
    logging.getLogger("ftx").addHandler(handler)
    yield said
    logging.getLogger("ftx").removeHandler(handler)


def test_the_second_time_it_is_mapped_and_other_options_are_other_data(tmp_path, skipped):
    write(tmp_path, [*chats(), "no json"])
    first = prepare(composed(tmp_path))
    again = prepare(composed(tmp_path, "schedule.epochs=7", "hardware.micro_batch=1"))
    assert again.folder == first.folder
    assert contents(again) == contents(first)
    assert (list(again.held_out), again.template, again.counts) == (list(first.held_out), first.template, first.counts)
    text = "w1 é a17\n"
    assert again.tokenizer(text)["input_ids"] == first.tokenizer(text)["input_ids"]
    folders = {first.folder}
    for word in ("data.packing=false", "seed=1", "model.template=plain", "data.limit=9"):
        other = prepare(composed(tmp_path, word))
        assert contents(other) != contents(first)
        folders.add(other.folder)
    assert len(folders) == 5
    assert len(skipped) == 1, "the source is read once for all of them"
    write(tmp_path, [*chats(39), "no json"])
    assert len(ids(prepare(composed(tmp_path)).train)) < len(ids(first.train)) + 1
    assert len(skipped) == 2


def test_what_an_interrupted_build_left_is_not_used(tmp_path):
    write(tmp_path, chats())
    run = composed(tmp_path)
    expected = contents(prepare(run))
    (folder,) = (tmp_path / "runs/.cache/prepared").glob("*/")
    shutil.rmtree(folder)
    writing = folder.with_suffix(".writing")
    writing.mkdir()
    (writing / "train.arrow").write_bytes(b"half a")
    (writing / "leftover.txt").touch()
    assert contents(prepare(run)) == expected
    assert not writing.exists()
    assert not (folder / "leftover.txt").exists()


def test_rows_hold_the_tokens_of_their_conversations_packed_or_not(tmp_path):
    write(tmp_path, chats())
    single = prepare(composed(tmp_path, "data.packing=false"))
    packed = prepare(composed(tmp_path, "data.max_length=256"))
    rows = read_rows(tmp_path / "chats.jsonl")
    conversations = [to_conversation(row, tmp_path / "chats.jsonl") for row in rows]
    expected = {
        one.id: (one.input_ids.tolist(), one.supervised.tolist())
        for one in tokenize(conversations, single.tokenizer, single.template)
    }
    assert sorted(ids(single.train) + ids(single.evaluation)) == sorted(one.id for one in conversations)
    assert ids(single.train) == [one.id for one in single.train_conversations]
    assert ids(single.evaluation) == [one.id for one in single.held_out]
    for prepared in (single, packed):
        found = {}
        for row in [*prepared.train, *prepared.evaluation]:
            ends = row.lengths.cumsum()
            for name, end, length in zip(row.ids, ends, row.lengths, strict=True):
                piece = slice(end - length, end)
                found[name] = (row.input_ids[piece].tolist(), row.supervised[piece].tolist())
        assert found == expected
        counts = prepared.counts
        tokens = [expected[name] for name in ids(prepared.train)]
        assert counts.train_conversations == len(tokens) == 32
        assert counts.evaluation_conversations == 8
        assert counts.train_rows == len(prepared.train)
        assert counts.train_tokens == sum(len(one) for one, _ in tokens)
        assert counts.train_supervised_tokens == sum(sum(supervised) for _, supervised in tokens)
    assert len(packed.train) < len(single.train)
    assert max(len(row.input_ids) for row in packed.train) <= 256


def test_too_long_is_an_error_or_dropped_or_truncated_and_counted(tmp_path):
    rows = [*chats(), {"prompt": "q", "completion": " ".join(f"w{at % 90}" for at in range(200))}]
    write(tmp_path, rows)
    whole = prepare(composed(tmp_path, "data.packing=false", "data.max_length=4096"))
    longest = 60
    by_id = {row.ids[0]: row for row in [*whole.train, *whole.evaluation]}
    long = {name for name, row in by_id.items() if len(row.input_ids) > longest}
    learnable = {name for name in long if by_id[name].supervised[:longest].any()}
    assert learnable == {"chats.jsonl:41"} < long < set(by_id)

    words = ("data.packing=false", f"data.max_length={longest}")
    with pytest.raises(UserError, match=rf"chats\.jsonl:\d+ has \d+ tokens, more than data\.max_length={longest}"):
        prepare(composed(tmp_path, *words))

    dropped = prepare(composed(tmp_path, *words, "data.too_long=drop"))
    assert {*ids(dropped.train), *ids(dropped.evaluation)} == set(by_id) - long
    assert (dropped.counts.dropped_too_long, dropped.counts.truncated) == (len(long), 0)
    assert [one.id for one in dropped.held_out] == ids(dropped.evaluation)

    cut = prepare(composed(tmp_path, *words, "data.too_long=truncate"))
    assert {*ids(cut.train), *ids(cut.evaluation)} == set(by_id) - long | learnable
    assert (cut.counts.dropped_unsupervised, cut.counts.truncated) == (len(long) - 1, 1)
    for row in [*cut.train, *cut.evaluation]:
        assert row.input_ids.tolist() == by_id[row.ids[0]].input_ids[:longest].tolist()
        assert row.supervised.tolist() == by_id[row.ids[0]].supervised[:longest].tolist()
        assert row.supervised[1:].any()


def test_nothing_left_to_learn_from_or_to_score_on_is_said(tmp_path):
    write(tmp_path, chats())
    with pytest.raises(UserError, match=r"is left to train on \(0 bad rows skipped, 0 refused by the template, 40"):
        prepare(composed(tmp_path, "data.max_length=8", "data.too_long=drop"))
    write(tmp_path, [{"prompt": "a " * 99, "completion": "b"}] * 2 + [{"prompt": "a", "completion": "b"}] * 8)
    words = ("data.max_length=30", "data.too_long=drop", "data.holdout=0.1")
    left = {}
    for seed in range(12):
        try:
            left[seed] = len(prepare(composed(tmp_path, *words, f"seed={seed}")).held_out)
            assert left[seed] > 0
        except UserError as error:
            assert str(error).startswith("evaluation.tasks=[loss]: no conversation is left to score on")
            left[seed] = 0
    assert set(left.values()) == {0, 1}
    unscored = min(seed for seed, count in left.items() if count == 0)
    assert prepare(composed(tmp_path, *words, f"seed={unscored}", "evaluation.tasks=[]")).counts.train_conversations > 0


def test_bad_rows_are_an_error_with_their_line_or_skipped_and_listed(tmp_path):
    good = chats(10)
    path = write(tmp_path, [*good[:2], "{", *good[2:], {"prompt": "no answer"}])
    with pytest.raises(UserError, match=rf"^{path}:3: not valid JSON.*data\.on_bad_row=skip"):
        prepare(composed(tmp_path, "data.on_bad_row=error"))
    prepared = prepare(composed(tmp_path))
    assert prepared.counts.skipped_rows == 2
    assert prepared.counts.train_conversations + prepared.counts.evaluation_conversations == 10
    (folder,) = (tmp_path / "runs/.cache/conversations").glob("*/")
    listed = (folder / "skipped.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in listed] == [f"{path}:3", f"{path}:12"]


def test_what_a_template_cannot_render_is_an_error_or_skipped_listed_and_counted(tmp_path):
    """The family has no place for tools."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    write(tmp_path, [*chats(10), {"prompt": "q", "completion": "a", "tools": tools}, *chats(3)])
    words = ("model.template=plain", "data.holdout=0", "evaluation.tasks=[]")
    with pytest.raises(UserError, match=r"chats\.jsonl:11: template 'plain' cannot render it: .*data\.on_bad_row=skip"):
        prepare(composed(tmp_path, *words, "data.on_bad_row=error"))
    prepared = prepare(composed(tmp_path, *words))
    assert (prepared.counts.refused, prepared.counts.train_conversations) == (1, 13)
    assert sorted(ids(prepared.train)) == sorted(f"chats.jsonl:{n}" for n in range(1, 15) if n != 11)
    assert (prepared.folder / "refused.txt").read_text().startswith("chats.jsonl:11: template 'plain'")


def test_a_file_with_only_bad_rows_says_what_is_wrong_with_the_first(tmp_path):
    path = write(tmp_path, ["{", "["])
    with pytest.raises(UserError, match=rf"not one usable row; the first was refused with: {path}:1"):
        prepare(composed(tmp_path))


def test_a_limit_takes_the_first_ones_in_the_seeded_order_and_leaves_the_held_out_alone(tmp_path):
    write(tmp_path, chats())
    everything = prepare(composed(tmp_path, "data.packing=false"))
    limited = prepare(composed(tmp_path, "data.packing=false", "data.limit=7"))
    assert ids(limited.train) == ids(everything.train)[:7]
    assert list(limited.held_out) == list(everything.held_out)
    assert limited.counts.train_conversations == 7
