"""Overlap against plain sets of word tuples, and against what is known of real data."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_formats_real import conversations, rows_of

from ftx.data import overlap as overlap_module
from ftx.data.conversation import Conversation
from ftx.data.formats import to_conversation
from ftx.data.overlap import Near, Overlap, Pairs, overlap

LONG = "the quick brown fox jumps over the lazy dog while seven wise owls sit watching it quietly"


def chat(id: str, *said: str, system: str = "") -> Conversation:
    """A conversation in which user and assistant take turns."""
    roles = ("user", "assistant") * len(said)
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    return Conversation(id, tuple([{"role": "system", "content": system}] * bool(system) + messages))


def words_of(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"\W+", text.lower()) if word)


def spoken(conversation: Conversation) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((m["role"], words_of(m["content"])) for m in conversation.messages if m["role"] != "system")


def grams_of(conversation: Conversation, n: int, roles: tuple[str, ...]) -> set[tuple[str, ...]]:
    said = [words for role, words in spoken(conversation) if role in roles and len(words) >= 5]
    return {words[at : at + n] for words in said for at in range(max(1, len(words) - n + 1))}


def naive(train: list[Conversation], evaluation: list[Conversation], n: int) -> Overlap:
    """The definitions, one after the other, on sets of tuples of words."""
    earliest: dict[object, str] = {}
    repeats = []
    for one in train:
        if earliest.setdefault(spoken(one), one.id) != one.id:
            repeats.append((one.id, earliest[spoken(one)]))
    exact = [(one.id, earliest[spoken(one)]) for one in evaluation if spoken(one) in earliest]
    in_training = {gram for one in train for gram in grams_of(one, n, ("user", "assistant"))}
    holders = Counter(gram for one in evaluation for gram in grams_of(one, n, ("user",)))
    near, touched = [], 0
    for one in evaluation:
        own = {gram for gram in grams_of(one, n, ("user",)) if holders[gram] <= max(10, len(evaluation) / 100)}
        common = own & in_training
        touched += bool(common)
        if own and 2 * len(common) >= len(own):
            near.append((one.id, len(common) / len(own)))
    return Overlap(
        len(train),
        len(evaluation),
        n,
        Pairs(len(repeats), tuple(repeats[:5])),
        Pairs(len(exact), tuple(exact[:5])),
        Near(len(near), tuple(near[:5])),
        touched,
    )


texts = st.lists(st.sampled_from(["a", "b", "B,", "c ", "é", "x_1"]), max_size=9).map(" ".join) | st.just(
    "A b; a c é a b"
)
lists_of_chats = st.lists(st.lists(texts, max_size=3), max_size=25)


@given(lists_of_chats, lists_of_chats, st.integers(1, 8), st.integers(1, 40))
def test_the_same_as_with_sets_whatever_the_batches(train, evaluation, n, batch_words):
    ours, theirs = (
        [chat(f"{side}:{i}", *said) for i, said in enumerate(chats)]
        for side, chats in (("train", train), ("test", evaluation))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap_module, "_BATCH_WORDS", batch_words)
        assert overlap(iter(ours), theirs, n) == naive(ours, theirs, n)


def test_case_punctuation_and_system_do_not_count():
    found = overlap(
        [chat("t:1", "Is it far?", "No.", system="Be brief."), chat("t:2", "is it, FAR", "no", system="Be kind.")],
        [chat("e:1", "IS IT FAR", "No!"), chat("e:2", "No", "Is it far?")],
    )
    assert found.train_duplicates == Pairs(1, (("t:2", "t:1"),))
    assert found.evaluation_exact == Pairs(1, (("e:1", "t:1"),))
    # Fewer than five words give nothing away.
    assert (found.evaluation_near.count, found.evaluation_touched) == (0, 0)


@pytest.mark.parametrize(("words", "count"), [(4, 0), (5, 1), (12, 1), (13, 1)])
def test_a_short_message_is_one_gram_as_a_whole(words, count):
    text = " ".join(LONG.split()[:words])
    assert overlap([chat("t", "x", text)], [chat("e", text, "y")]).evaluation_near.count == count
    assert overlap([chat("t", "x", f"{text} indeed")], [chat("e", text, "y")]).evaluation_touched == (words == 13)


def test_near_from_half_of_the_users_grams_on():
    words = [f"w{i}" for i in range(16)]  # 4 grams of 13
    for taken, share in [(13, 0.25), (14, 0.5), (15, 0.75), (16, 1.0)]:
        found = overlap(
            [chat("t", "q", "well " + " ".join(words[:taken]))], [chat("e", " ".join(words), "other " * 40)]
        )
        assert found.evaluation_near == (Near(1, (("e", share),)) if share >= 0.5 else Near())
        assert found.evaluation_touched == 1


def test_what_only_the_assistant_says_is_not_looked_for():
    found = overlap([chat("t", LONG, LONG)], [chat("e", "What do you see?", LONG)])
    assert (found.evaluation_near.count, found.evaluation_touched) == (0, 0)


@pytest.mark.parametrize(("holders", "count"), [(10, 10), (11, 0)])
def test_what_more_than_ten_evaluation_conversations_share_is_boilerplate(holders, count):
    evaluation = [chat(f"e:{i}", LONG, "a") for i in range(holders)] + [chat("other", "own " * 9, "a")] * 3
    found = overlap([chat("t", LONG, "b")], evaluation)
    assert (found.evaluation_near.count, found.evaluation_touched) == (count, count)


@pytest.mark.parametrize(("others", "count"), [(1189, 12), (1187, 0)])
def test_in_a_large_set_boilerplate_begins_above_one_percent(others, count):
    """12 of 1,201 are less than one percent, 12 of 1,199 are more."""
    evaluation = [chat(f"e:{i}", LONG, "a") for i in range(12)] + [chat(str(i), f"q {i}", "a") for i in range(others)]
    assert overlap([chat("t", LONG, "b")], evaluation).evaluation_near.count == count


def test_a_question_behind_a_fixed_instruction_is_still_found():
    questions = [" ".join(f"q{i}w{j}" for j in range(8)) for i in range(30)]
    evaluation = [chat(f"e:{i}", f"{LONG}: {question}", "a") for i, question in enumerate(questions)]
    train = [chat("t:0", f"{LONG}: {questions[7]}", "b"), chat("t:1", f"{LONG}: something else", "b")]
    found = overlap(train, evaluation)
    assert found.evaluation_near == Near(1, (("e:7", 1.0),))
    assert found.evaluation_touched == 1


def test_calls_and_thoughts_tell_conversations_apart_but_not_the_number_of_a_call():
    def calling(id, city, number, thought, said=None):
        function = {"name": "weather", "arguments": {"city": city}}
        call = {"role": "assistant", "content": said, "tool_calls": [{"id": number, "function": function}]}
        answer = {"role": "assistant", "content": "Rain.", "reasoning_content": thought}
        return Conversation(id, ({"role": "user", "content": "Rain?"}, call, answer))

    found = overlap(
        [calling("1", "Oslo", "a", "so"), calling("2", "Bern", "a", "so"), calling("3", "Oslo", "a", "or")],
        [calling("4", "Oslo", "b", "so"), calling("5", "Rome", "a", "so"), calling("6", "Oslo", "a", "so", "Look:")],
    )
    assert found.train_duplicates == Pairs()
    assert found.evaluation_exact == Pairs(1, (("4", "1"),))


def test_nothing_overlaps_with_nothing():
    empty = overlap([], [])
    assert empty == Overlap(0, 0, 13, Pairs(), Pairs(), Near(), 0)
    assert overlap([], [chat("e", LONG, LONG)]).evaluation_touched == 0
    assert overlap([chat("t", LONG, LONG)] * 3, []).train_duplicates == Pairs(2, (("t", "t"), ("t", "t")))
    with pytest.raises(ValueError, match="at least one word, not 0"):
        overlap([], [], n=0)


def test_training_is_read_once_and_on_the_way_it_is_told_how_far(monkeypatch):
    monkeypatch.setattr(overlap_module, "_BATCH_WORDS", 100)
    said: list[int] = []
    overlap((chat(str(i), LONG, LONG) for i in range(20)), [], on_done=said.append)
    assert said == sorted(set(said))
    assert len(said) > 2
    assert said[-1] == 20


def test_hashes_are_the_same_in_every_process():
    code = (
        "from ftx.data.overlap import _WordHashes, _digest, _grams, _Spoken\n"
        "words = 'one two three four five six'.split()\n"
        "print(_digest(_Spoken('', (('user', words),))), _grams([words], 3, _WordHashes())[0].tolist())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def question(conversation: Conversation) -> str:
    """Compared as letters and digits alone, blanks and the rest left out."""
    asked = next(m["content"] for m in conversation.messages if m["role"] == "user")
    return re.sub(r"[\W_]+", "", asked).lower()


def solutions() -> list[Conversation]:
    """All but the one that was cut off and is refused."""
    name = "mathcoder/lce_solutions.jsonl.gz"
    rows = [row for row in rows_of(name) if row.number != 605]
    return [to_conversation(row, Path(name), "mathcodeinstruct") for row in rows]


def test_solutions_of_test_problems_are_found():
    """mathcoder solves 1,086 problems of the test set of GSM8K, in its own words."""
    train, evaluation = solutions(), conversations("gsm8k/test.jsonl.gz")
    asked = {question(one) for one in train}
    leaked = [one.id for one in evaluation if question(one) in asked]
    assert len(leaked) == 1086
    found = overlap(train, evaluation)
    assert found == naive(train, evaluation, 13)
    assert found.evaluation_near == Near(1086, tuple((id, 1.0) for id in leaked[:5]))
    assert found.evaluation_touched == 1086
    assert found.evaluation_exact == found.train_duplicates == Pairs()


def test_the_two_sides_of_a_published_split_hardly_overlap():
    train, evaluation = conversations("gsm8k/train.jsonl.gz"), conversations("gsm8k/test.jsonl.gz")
    found = overlap(train, evaluation)
    assert found == naive(train, evaluation, 13)
    assert found.evaluation_near == Near(1, (("test.jsonl.gz:603", 7 / 13),))
    assert found.evaluation_touched == 3
    assert found.evaluation_exact == found.train_duplicates == Pairs()
