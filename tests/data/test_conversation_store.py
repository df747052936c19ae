"""Conversations written to Arrow and mapped again."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftx.data.conversation import Conversation, to_stored
from ftx.data.conversation_store import BATCH, BATCH_CHARACTERS, ConversationStore, ConversationWriter

COUNT = 2 * BATCH + 37


def written(path: Path, conversations: list[Conversation]) -> ConversationStore:
    with ConversationWriter(path) as writer:
        for one in conversations:
            writer.add(to_stored(one))
    assert writer.written == len(conversations)
    return ConversationStore(path)


def numbered(count: int) -> list[Conversation]:
    draw = np.random.default_rng(0)
    return [
        Conversation(
            f"chats.jsonl:{number}",
            ({"role": "user", "content": f"é{number}"}, {"role": "assistant", "content": "x" * int(draw.integers(9))}),
            group=str(draw.choice(["", "a", "b", f"own {number}", f"late {number // BATCH}"])),
            rank=float(draw.normal()),
        )
        for number in range(count)
    ]


CONVERSATIONS = numbered(COUNT)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ConversationStore:
    return written(tmp_path_factory.mktemp("store") / "conversations.arrow", CONVERSATIONS)


AWKWARD = [
    Conversation("Übung.jsonl:1", ({"role": "user", "content": '日本 👩‍💻 \u2028 \x00 "\\n" \ufdd0'},), group="Fäden"),
    Conversation("", ()),
    Conversation(
        "calls",
        (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": [1, {"b": None}]}}}],
            },
            {"role": "tool", "name": "f", "content": ""},
        ),
        tools=({"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"enum": [2.5]}}}}},),
        rank=-1e300,
    ),
]


@pytest.mark.parametrize("conversation", AWKWARD, ids=["unicode", "empty", "tools"])
def test_a_conversation_comes_back_as_it_went_in(tmp_path, conversation):
    (back,) = written(tmp_path / "conversations.arrow", [conversation])
    assert back == conversation


def test_all_come_back_in_order_over_every_batch_border(store):
    assert list(store) == CONVERSATIONS
    assert store[-1] == CONVERSATIONS[-1]
    assert store.ranks().tolist() == [one.rank for one in CONVERSATIONS]


def test_a_conversation_that_is_not_there_is_an_index_error(store):
    with pytest.raises(IndexError):
        store[COUNT]


@given(st.slices(COUNT), st.slices(COUNT))
def test_slices_of_slices_are_those_of_a_list(store, first, second):
    assert list(store[first][second][:20]) == CONVERSATIONS[first][second][:20]
    assert len(store[first][second]) == len(CONVERSATIONS[first][second])


@given(st.lists(st.integers(0, COUNT - 1), max_size=20))
def test_any_can_be_chosen_in_any_order(store, positions):
    chosen = store[:3].choose(np.array(positions, dtype=np.int64))
    assert list(chosen) == [CONVERSATIONS[at] for at in positions]


borders = st.sampled_from([0, 1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH, COUNT - 1])
scattered = st.sets(st.integers(0, COUNT - 1) | borders, max_size=30).map(sorted)
ranges = st.tuples(st.integers(0, COUNT) | borders, st.integers(0, COUNT) | borders).map(lambda ends: range(*ends))


@given(scattered | ranges)
def test_a_stream_gives_what_indexing_gives(store, positions):
    streamed = list(store.stream(np.array(positions, dtype=np.int64)))
    assert streamed == [CONVERSATIONS[at] for at in positions]


def test_groups_are_numbered_as_they_appear_and_no_group_is_one_of_its_own(store):
    numbers: dict[str, int] = {}
    expected = [numbers.setdefault(one.group or f"alone {one.id}", len(numbers)) for one in CONVERSATIONS]
    assert store.groups().tolist() == expected


def test_long_conversations_make_short_batches(tmp_path):
    """Each has a third of the characters that a batch may have, so memory stays bounded whatever is in a file."""
    long = [Conversation(f"{at}", ({"role": "user", "content": "x" * (BATCH_CHARACTERS // 3)},)) for at in range(8)]
    store = written(tmp_path / "conversations.arrow", long)
    assert list(store) == long
    with pa.memory_map(str(tmp_path / "conversations.arrow")) as file:
        reader = pa.ipc.open_file(file)
        assert [reader.get_batch(at).num_rows for at in range(reader.num_record_batches)] == [3, 3, 2]


def test_a_file_without_conversations_can_be_opened(tmp_path):
    store = written(tmp_path / "conversations.arrow", [])
    assert list(store) == list(store.stream(np.arange(0))) == []
    assert len(store.groups()) == len(store.ranks()) == 0
