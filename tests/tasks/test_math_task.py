"""The task math: what is asked, and the scores of a model whose answer is known beforehand."""

import json

import pytest
from known_answer import holding_out, model_that_says, tokens_of
from real_data import real_path
from scored_alone import scored_alone

from ftx.config.compose import compose
from ftx.config.evaluation_schema import EvaluationConfig, MathConfig
from ftx.data.conversation import Conversation
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.errors import UserError
from ftx.preflight import check_tasks
from ftx.statistics import wilson
from ftx.tasks import math
from ftx.tasks.task import Item

TOKENIZER = train_tokenizer(["#### 18\n", "How many eggs are there in box ?", "assistant\n"] * 9, 400)


def problem(number: int, answer: str, where: str = "eggs.jsonl") -> Conversation:
    question = {"role": "user", "content": f"How many eggs are there in box {number}?"}
    return Conversation(f"{where}:{number}", (question, {"role": "assistant", "content": answer}))


def scored(prepared, says: str, **keys):
    model = model_that_says(TOKENIZER, tokens_of(TOKENIZER, says))
    evaluation = EvaluationConfig(batch_size=2, max_new_tokens=8, **keys)
    math.check(prepared, evaluation)
    return scored_alone(math, model, prepared, evaluation)


def test_a_model_that_always_says_18_is_right_where_18_is_right(tmp_path, ftx_log):
    golds = [
        "9 + 9 = 18\n#### 18",
        "#### 18.5",
        "#### 3",
        "I do not know.\nSorry.",
        "<think>\nHm.\n</think>\n\n18 eggs",
    ]
    prepared = holding_out(tmp_path, [problem(at, gold) for at, gold in enumerate(golds)], TOKENIZER)
    result = scored(prepared, "18<|im_end|>")
    assert result.scores == {
        "accuracy": {"value": 0.75, "n": 4, "ci95": pytest.approx(list(wilson(3, 4)))},
        "no_answer_rate": {"value": 0, "n": 4, "ci95": pytest.approx(list(wilson(0, 4)))},
        "unmarked_rate": {"value": 0, "n": 4, "ci95": pytest.approx(list(wilson(0, 4)))},
    }
    assert [one["correct"] for one in result.predictions] == [True, True, False, True]
    assert result.predictions[1] == {
        "id": "eggs.jsonl:1",
        "gold": "18.5",
        "predicted": "18",
        "marked": True,
        "correct": True,
        "kind": "eggs.jsonl",
        "text": "18",
    }
    assert ftx_log.text == "math: 1 of 5 problems are left out, their answers say no result"
    exact = scored(prepared, "18<|im_end|>", math=MathConfig(relative_tolerance=0))
    assert [one["correct"] for one in exact.predictions] == [True, False, False, True]


def test_held_out_problems_are_counted_by_where_they_are_from(tmp_path):
    golds = [("a.jsonl", "#### 18"), ("a.jsonl", "#### 2"), ("b.jsonl", "#### 18")]
    prepared = holding_out(tmp_path, [problem(at, gold, where) for at, (where, gold) in enumerate(golds)], TOKENIZER)
    scores = scored(prepared, "18<|im_end|>").scores
    assert (scores["accuracy.a.jsonl"]["value"], scores["accuracy.a.jsonl"]["n"]) == (0.5, 2)
    assert (scores["accuracy.b.jsonl"]["value"], scores["accuracy.b.jsonl"]["n"]) == (1, 1)


@pytest.mark.parametrize(
    ("text", "finish", "opens_thoughts", "predicted", "marked"),
    [
        ("18", "stop", False, "18", True),
        ("She has 18.\nOr so.", "stop", False, "18", False),
        ("She has 18.\nThen she", "length", False, None, False),
        (r"It is \boxed{18}, and", "length", False, "18", True),
        (r"Is it \boxed{18}?", "stop", True, None, False),
        ("It is 3.\n</think>\n\n18", "stop", True, "18", True),
        ("", "failed", False, None, False),
    ],
)
def test_what_of_an_answer_counts(text, finish, opens_thoughts, predicted, marked):
    item = Item("one", gold={"answer": "18", "kind": "", "opens_thoughts": opens_thoughts})
    (one,) = math.score([item], [{"id": "one", "text": text, "finish": finish}], EvaluationConfig()).predictions
    assert (one["predicted"], one["marked"], one["correct"]) == (predicted, marked, predicted is not None)


def test_a_template_that_opens_thoughts_is_known_by_what_it_renders(tmp_path):
    for template, opens in (("deepseek_r1_distill_qwen", True), ("chatml", False)):
        (tmp_path / template).mkdir()
        prepared = holding_out(tmp_path / template, [problem(0, "#### 18")], TOKENIZER, template)
        (item,) = math.items(prepared, EvaluationConfig())
        assert item.gold["opens_thoughts"] is opens
        assert item.messages == problem(0, "").messages[:1]


def test_data_without_results_is_refused_before_training(tmp_path):
    prepared = holding_out(tmp_path, [problem(0, "There are 12 and then\nsome more.")], TOKENIZER)
    with pytest.raises(UserError, match=r"evaluation\.tasks=\[math\]: no answer in data says what it comes to"):
        math.check(prepared, EvaluationConfig())


@pytest.mark.parametrize(
    ("file", "format", "count", "kinds"),
    [("gsm8k/test.jsonl.gz", "auto", 1319, {""}), ("scibench/scibench.jsonl", "scibench", 692, {"atkins", "fund"})],
)
def test_gold_answers_of_a_file_score_100_per_cent(tmp_path, file, format, count, kinds):
    prepared = holding_out(tmp_path, [], TOKENIZER)
    evaluation = EvaluationConfig(math=MathConfig(path=str(real_path(file)), format=format))
    math.check(prepared, evaluation)
    items = math.items(prepared, evaluation)
    assert len(items) == len({item.id for item in items}) == count
    assert kinds <= {item.gold["kind"] for item in items}

    def accuracy(answers: list[str]) -> float:
        records = [
            {"id": item.id, "text": f"#### {text}", "finish": "stop"} for item, text in zip(items, answers, strict=True)
        ]
        return math.score(items, records, evaluation).scores["accuracy"]["value"]

    assert accuracy([item.gold["answer"] for item in items]) == 1
    assert accuracy([f"7{item.gold['answer'].lstrip('+-−')}" for item in items]) == 0


def words(*more: str) -> list[str]:
    return ["data=tulu3_sft_mixture", "evaluation=math", *more]


def test_problems_of_a_file_need_no_held_out_data(tmp_path):
    (tmp_path / "mine.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "#### 2"}) + "\n")
    run = compose(*words(f"evaluation.math.path={tmp_path}/mine.jsonl"))
    check_tasks(run)
    assert run.evaluation.tasks == ["math"]
    with pytest.raises(UserError, match=r"data\.holdout=0: nothing is kept aside"):
        compose(*words())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.jsonl", r"evaluation\.math\.path: no such file"),
        ("row.jsonl", r"evaluation\.math\.path: .*row\.jsonl:1: unknown shape of row"),
        ("OWNER", r"evaluation\.math\.path=OWNER: not a name on the hub"),
    ],
)
def test_a_file_of_problems_that_cannot_be_read_is_told_at_once(tmp_path, path, message):
    (tmp_path / "row.jsonl").write_text('{"x": 1}\n')
    given = path if path == "OWNER" else tmp_path / path
    with pytest.raises(UserError, match=message):
        check_tasks(compose(*words(f"evaluation.math.path={given}")))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("evaluation.math.split=train", r"only an evaluation\.math\.path on the hub does"),
        ("evaluation.math.format=gsm8k", r"held-out problems have data\.format"),
        ("evaluation.math.relative_tolerance=2", "must be at most 1"),
    ],
)
def test_keys_that_nothing_would_read(word, message):
    with pytest.raises(UserError, match=message):
        compose("evaluation=math", word)
