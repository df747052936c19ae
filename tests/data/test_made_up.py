"""Rows that are made up: in every format, the same everywhere, read by what reads the real ones."""

import json
from dataclasses import replace

import pytest

from ftx.config.compose import compose
from ftx.config.made_up import MADE_UP, ROWS
from ftx.config.schema import SourceConfig
from ftx.config.schema_keys import FORMATS
from ftx.data.fingerprint import data_fingerprint
from ftx.data.formats import FORMAT_COLUMNS, detect, to_conversation
from ftx.data.made_up import MAKERS, made_up_rows
from ftx.data.prepare import prepare
from ftx.data.rows import Row
from ftx.errors import UserError
from ftx.tasks.function_calling import turns_of
from ftx.tasks.math import _gold_answer


def source(kind: str, split: str = "train") -> SourceConfig:
    return SourceConfig(path=MADE_UP + kind, split=split, format=kind)


def conversations(kind: str, split: str = "train"):
    return [to_conversation(Row(n, row), "made up", kind) for n, row in enumerate(made_up_rows(source(kind, split)), 1)]


def test_every_format_can_be_made_up():
    assert set(MAKERS) == set(FORMATS)


@pytest.mark.parametrize("kind", MAKERS)
def test_each_row_is_one_of_its_format(kind):
    rows = made_up_rows(source(kind))
    assert len(rows) == ROWS == len(conversations(kind))
    assert any(set(FORMAT_COLUMNS[kind]) & set(row) for row in rows)
    assert len({json.dumps(row) for row in rows}) > ROWS / 2
    recognised = ("messages", "prompt_completion", "sharegpt", "alpaca", "gsm8k")
    if kind in recognised:
        assert {detect(row) for row in rows} == {kind}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_split_is_the_same_rows_and_no_others(kind):
    assert made_up_rows(source(kind)) == made_up_rows(source(kind))
    assert made_up_rows(source(kind)) != made_up_rows(source(kind, "test"))


@pytest.mark.parametrize("kind", ["mathcodeinstruct", "scibench", "gsm8k"])
def test_problems_have_answers_to_compare_with(kind):
    assert None not in {_gold_answer(one) for one in conversations(kind)}


def test_news_are_of_all_classes():
    answers = {one.messages[-1]["content"] for one in conversations("ag_news")}
    assert answers == {f'{{"category":"{name}"}}' for name in ("World", "Sports", "Business", "Sci/Tech")}


def test_functions_are_called_and_not_called():
    categories = {turn.category for one in conversations("glaive_v2") for turn in turns_of(one)}
    assert categories == {"simple", "no_call"}


def test_notebook_traces_call_their_tools():
    for one in conversations("jupyter_agent"):
        called = [call["function"]["name"] for message in one.messages for call in message.get("tool_calls", ())]
        assert called == [tool["function"]["name"] for tool in one.tools]


@pytest.mark.parametrize(
    ("words", "held_out"),
    [
        (["experiment=ag_news", "debug=tiny"], 160),
        (["experiment=deepseek_r1_math_science", "debug=tiny"], 27),
        (["data=hub", "data.path=OWNER/NAME", "debug=tiny"], 16),
    ],
)
def test_they_are_prepared_as_real_rows_are(words, held_out, tmp_path):
    run = compose(*words, f"run_root={tmp_path}")
    prepared = prepare(run)
    assert len(prepared.train_conversations) == 64
    assert prepared.counts.evaluation_conversations == held_out
    assert prepared.counts.train_supervised_tokens > 64
    assert (prepared.counts.skipped_rows, prepared.counts.truncated) == (0, 0)


def test_content_tells_data_apart(tmp_path):
    run = compose("data=hub", "data.path=OWNER/NAME", "debug=tiny", f"run_root={tmp_path}")
    other = replace(run, data=replace(run.data, split="test"))
    assert data_fingerprint(run) != data_fingerprint(other)


def test_nothing_is_made_up_under_another_name():
    with pytest.raises(UserError, match=r"made-up:glaive: nothing is made up .*did you mean made-up:glaive_v2\?"):
        made_up_rows(source("glaive"))
