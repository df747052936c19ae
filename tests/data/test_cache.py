"""The cache of prepared data: what makes a set, what an interrupted build leaves, what prune removes."""

import os
import shutil
import time
from pathlib import Path

import pytest

from ftx.config.compose import compose
from ftx.config.schema import RunConfig
from ftx.data import cache
from ftx.data.cache import is_complete, prune
from ftx.data.prepare import prepare, prepare_on_disk
from ftx.errors import UserError
from ftx.lock import lock

DAY = 86400.0
WORDS = ("model.architecture.vocabulary_size=320", "data=jsonl", "data.holdout=0.2")


@pytest.fixture
def chats(tmp_path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(f'{{"prompt": "q{n}", "completion": "a{n}"}}\n' for n in range(20)))
    return path


def run_of(chats: Path, *words: str) -> RunConfig:
    return compose(*WORDS, f"data.path={chats}", f"run_root={chats.parent}/runs", *words)


def unused_for(folder: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(folder / cache.USED, (then, then))


def sets(chats: Path) -> dict[str, int]:
    root = chats.parent / "runs" / ".cache"
    return {kind: len(list((root / kind).glob("*/"))) for kind in (cache.GATHERED, cache.PREPARED)}


def test_the_source_is_read_once_for_all_models_and_options(chats):
    for words in ([], ["data.max_length=64"], ["model.template=plain"], ["data.order=source"], ["data.limit=3"]):
        prepare_on_disk(run_of(chats, *words))
    assert sets(chats) == {cache.GATHERED: 1, cache.PREPARED: 5}
    prepare_on_disk(run_of(chats, 'data.filter=["prompt~q1"]'))
    assert sets(chats) == {cache.GATHERED: 2, cache.PREPARED: 6}


def test_prepared_data_without_its_conversations_is_built_again(chats):
    folder = prepare_on_disk(run_of(chats))
    shutil.rmtree(cache.conversations_of(folder))
    assert not is_complete(folder)
    assert len(prepare(run_of(chats)).held_out) == 4
    assert is_complete(folder)


def test_a_build_that_fails_leaves_nothing(chats):
    chats.write_text(chats.read_text() + "no json\n")
    with pytest.raises(UserError, match=r"chats\.jsonl:21"):
        prepare_on_disk(run_of(chats))
    left = [file.name for file in (chats.parent / "runs" / ".cache").rglob("*") if file.suffix == ".writing"]
    assert left == []


def test_prune_removes_what_was_not_used_for_so_long_and_what_it_alone_needed(chats):
    recent = prepare_on_disk(run_of(chats))
    old = prepare_on_disk(run_of(chats, 'data.filter=["prompt~q1"]'))
    for folder in (old, cache.conversations_of(old), cache.conversations_of(recent)):
        unused_for(folder, 40)
    root = chats.parent / "runs" / ".cache"
    expected = {old, cache.conversations_of(old)}
    planned = prune(root, unused_days=30, dry_run=True)
    assert {one.folder for one in planned} == expected
    assert sets(chats) == {cache.GATHERED: 2, cache.PREPARED: 2}
    sizes = {folder: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in expected}
    removed = prune(root, unused_days=30, dry_run=False)
    assert {one.folder: one.size for one in removed} == sizes
    assert all(39.9 < one.days_unused < 40.1 for one in removed)
    assert is_complete(recent)
    assert sets(chats) == {cache.GATHERED: 1, cache.PREPARED: 1}


def test_using_a_set_keeps_it(chats):
    folder = prepare_on_disk(run_of(chats))
    unused_for(folder, 40)
    prepare_on_disk(run_of(chats))
    assert prune(chats.parent / "runs" / ".cache", unused_days=30, dry_run=False) == []


def test_what_is_open_stays_readable_when_it_is_pruned(chats):
    data = prepare(run_of(chats))
    expected = ([row.ids for row in data.train], list(data.held_out), list(data.train_conversations.in_file_order()))
    assert len(prune(data.folder.parent.parent, unused_days=0, dry_run=False)) == 2
    found = ([row.ids for row in data.train], list(data.held_out[:99]), list(data.train_conversations.in_file_order()))
    assert found == expected


def test_conversations_that_a_build_reads_are_not_pruned_away(chats):
    folder = prepare_on_disk(run_of(chats))
    building = folder.with_name("live.writing")
    folder.rename(building)
    unused_for(cache.conversations_of(building), 40)
    with lock(folder.with_name("live.lock")):
        assert prune(folder.parent.parent, unused_days=30, dry_run=False) == []


def test_prune_removes_what_an_interrupted_build_left_but_not_what_is_being_built(chats):
    folder = prepare_on_disk(run_of(chats))
    left, being_built = folder.with_name("dead.writing"), folder.with_name("live.writing")
    for one in (left, being_built):
        one.mkdir()
        (one / "tokens.arrow").write_bytes(b"half")
    with lock(folder.with_name("live.lock")):
        removed = prune(folder.parent.parent, unused_days=30, dry_run=False)
    assert [one.folder for one in removed] == [left]
    assert being_built.is_dir()
    assert not left.exists()


def test_zero_days_removes_everything_and_the_next_run_builds_it_again(chats):
    first = prepare(run_of(chats))
    kept = [(row.ids, row.input_ids.tolist()) for row in first.train]
    assert len(prune(first.folder.parent.parent, unused_days=0, dry_run=False)) == 2
    assert sets(chats) == {cache.GATHERED: 0, cache.PREPARED: 0}
    assert [(row.ids, row.input_ids.tolist()) for row in prepare(run_of(chats)).train] == kept
