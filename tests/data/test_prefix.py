"""The beginning that conversations share, against a comparison token by token."""

import json
from itertools import takewhile
from pathlib import Path

import pytest

from ftx.config.compose import compose
from ftx.data.order import order_of
from ftx.data.prefix import prefix_to_share, shared_prefix
from ftx.data.prepare import prepare

SYSTEM = "Answer with one of many words, as you were told before."


def prepared_of(folder: Path, questions: list[str], answers: list[str], *words: str):
    rows = [
        {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in zip(questions, answers, strict=True)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = compose(
        *("data=jsonl", f"data.path={folder / 'chats.jsonl'}", f"run_root={folder}", "data.holdout=0"),
        *("evaluation.tasks=[]", "model.architecture.vocabulary_size=400", *words),
    )
    return run, prepare(run)


def by_hand(rows) -> int:
    """Columns in which all conversations agree, up to the token before the first that predicts."""
    conversations, unsupervised = [], []
    for row in rows:
        at = 0
        for length in row.lengths:
            conversations.append(row.input_ids[at : at + length].tolist())
            unsupervised.append(row.supervised[at : at + length].tolist().index(True))
            at += length
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*conversations, strict=False))
    return min(len(list(alike)), min(unsupervised) - 1)


@pytest.mark.parametrize(
    ("questions", "answers"),
    [
        (["red", "blue and so on", "green"], ["a", "b", "c c c"]),
        # The whole prompt is the same: the token that predicts the answer is everybody's own.
        (["same"] * 3, ["a", "b", "a"]),
    ],
)
def test_the_shared_beginning_is_as_long_as_a_comparison_by_hand_finds(tmp_path, questions, answers):
    _, prepared = prepared_of(tmp_path, questions, answers)
    shared = shared_prefix(prepared.train)
    assert shared == by_hand(prepared.train) > 10
    assert shared_prefix(prepared.train, least=shared) == shared
    assert shared_prefix(prepared.train, least=shared + 1) == 0


COLOURS = [f"colour {at}" for at in range(12)]


@pytest.mark.parametrize(
    ("words", "micro_batches", "shares"),
    [
        ((), 3, True),
        (("data.share_prefix=never",), 3, False),
        (("method=lora", "method.lora.dropout=0.1"), 3, False),
        (("method=lora",), 3, True),
        # One conversation in a micro-batch has nobody to share with.
        ((), 12, False),
    ],
)
def test_it_is_shared_where_that_changes_nothing_and_pays(tmp_path, words, micro_batches, shares):
    run, prepared = prepared_of(tmp_path, COLOURS, ["a"] * 12, *words)
    shared = prefix_to_share(run, order_of(run, prepared), micro_batches)
    assert shared == (by_hand(prepared.train) if shares else 0)


def test_a_short_beginning_of_long_conversations_is_not_worth_it(tmp_path):
    long = [f"{colour} {' word' * 600}" for colour in COLOURS]
    run, prepared = prepared_of(tmp_path, long, ["a"] * 12, "data.max_length=4096")
    shared = by_hand(prepared.train)
    assert 0 < shared * 9 < 0.05 * sum(len(row.input_ids) for row in prepared.train)
    assert prefix_to_share(run, order_of(run, prepared), micro_batches=3) == 0
