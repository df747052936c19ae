"""The records of a task on disk, whoever was killed while he wrote."""

import pytest

from ftx.environment import Rank
from ftx.tasks.records import Records
from ftx.tasks.task import Item

ITEMS = [Item(str(number), ({"role": "user", "content": f"question {number}"},)) for number in range(5)]


def record(item: Item) -> dict:
    return {"id": item.id, "text": f"answer {item.id}"}


def in_vain(done: int) -> None:
    raise TimeoutError(f"{done} are there")


def test_a_line_that_was_not_ended_costs_no_other(tmp_path):
    """Half a line, as a killed process leaves it, and the next record behind it: only the half one is asked again."""
    records = Records(tmp_path, {})
    for item in ITEMS[:2]:
        records.keep(item, record(item))
    (file,) = tmp_path.glob("records-*")
    file.write_bytes(file.read_bytes()[:-9])
    assert [item.id for item in records.share(ITEMS)] == ["1", "2", "3", "4"]
    for item in ITEMS[1:]:
        records.keep(item, record(item))
    assert records.all_of(ITEMS, in_vain) == [record(item) for item in ITEMS]


def test_ranks_have_all_items_among_them_and_each_once(tmp_path):
    shares = [Records(tmp_path, {}, Rank(index, 3, index)).share(ITEMS) for index in range(3)]
    assert sorted(item.id for share in shares for item in share) == [item.id for item in ITEMS]


def test_what_was_asked_otherwise_does_not_count(tmp_path):
    Records(tmp_path, {"temperature": 1.0}).keep(ITEMS[0], record(ITEMS[0]))
    Records(tmp_path, {}).keep(Item("1", ({"role": "user", "content": "another question"},)), record(ITEMS[1]))
    assert Records(tmp_path, {}).of(ITEMS) == {}


def test_waiting_looks_whether_it_is_in_vain(tmp_path):
    records = Records(tmp_path, {})
    records.keep(ITEMS[0], record(ITEMS[0]))
    with pytest.raises(TimeoutError, match="1 are there"):
        records.all_of(ITEMS, in_vain)
