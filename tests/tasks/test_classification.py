"""What counts as an answer, and the scores of a model whose answer is known beforehand."""

import json

import pytest
from known_answer import holding_out, model_that_says, tokens_of
from scored_alone import scored_alone
from transformers import Qwen3ForCausalLM

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.data.conversation import Conversation
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.errors import UserError
from ftx.tasks import classification
from ftx.tasks.classification import gold_label, read_label

LABELS = ("os", "net", "7")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"area": "os"}', "os"),
        ('{"area":"net"}', "net"),
        (' \n{"area": "os"}\n', "os"),
        ('{"area": 7}', "7"),
        ('{"area": "OS"}', None),
        ('{"area": "disk"}', None),
        ('{"area": "os", "why": "x"}', None),
        ('{"Area": "os"}', None),
        ('{"area": "net", "area": "os"}', None),
        ('[["area", "os"]]', None),
        ("{}", None),
        ('{"area": ["os"]}', None),
        ('{"area": null}', None),
        ('{"area": "os"} or so', None),
        ('{"area": "os"}{"area": "os"}', None),
        ('```{"area": "os"}```', None),
        ('{"area": "os"', None),
        ("os", None),
        ('"os"', None),
        ('["os"]', None),
        ("", None),
        ("[" * 100_000, None),
        ('{"area": ' + "9" * 5000 + "}", None),
    ],
)
def test_only_exactly_the_asked_for_json_is_an_answer(text, label):
    assert read_label(text, "area", LABELS) == label


def asked(number: int, answer: str) -> Conversation:
    question = {"role": "user", "content": f"Which area is module {number} of?"}
    return Conversation(f"areas.jsonl:{number}", (question, {"role": "assistant", "content": answer}))


def test_the_gold_label_is_the_only_value_of_the_answer():
    assert gold_label(asked(1, '{"area": "os"}')) == "os"
    assert gold_label(asked(1, '{"grade": 7}')) == "7"


@pytest.mark.parametrize("answer", ["os", '"os"', "[1]", "7", "{}", '{"area": "os", "why": "x"}', '{"area": "os"'])
def test_an_answer_that_is_no_classification_is_refused_by_its_conversation(answer):
    with pytest.raises(UserError, match=r"the answer of areas\.jsonl:3 is not a JSON object with one key; use"):
        gold_label(asked(3, answer))


TOKENIZER = train_tokenizer(['{"area":"os"}', '{"area":"net"}', "assistant\n", "Which area is module of?"] * 9, 400)


def scored(tmp_path, model: Qwen3ForCausalLM, gold: list[str], limit: int | None = None):
    answers = [json.dumps({"area": label}, separators=(",", ":")) for label in gold]
    prepared = holding_out(tmp_path, [asked(number, answer) for number, answer in enumerate(answers)], TOKENIZER)
    return scored_alone(classification, model, prepared, EvaluationConfig(batch_size=2, limit=limit))


GOLD = ["os", "net", "os", "os", "net"]
SAYS_OS = '{"area":"os"}<|im_end|>'


def test_a_model_that_always_says_os_is_right_where_os_is_right(tmp_path):
    result = scored(tmp_path, model_that_says(TOKENIZER, tokens_of(TOKENIZER, SAYS_OS)), GOLD)
    assert result.scores["accuracy"]["value"] == pytest.approx(3 / 5)
    assert result.scores["accuracy"]["n"] == 5
    assert result.scores["f1.os"]["value"] == pytest.approx(2 * 3 / (3 + 5))
    assert result.scores["f1.net"]["value"] == 0
    assert result.scores["macro_f1"]["value"] == pytest.approx(0.375)
    assert result.scores["invalid_rate"]["value"] == 0
    assert result.predictions == [
        {
            "id": f"areas.jsonl:{number}",
            "gold": label,
            "predicted": "os",
            "correct": label == "os",
            "text": '{"area":"os"}',
        }
        for number, label in enumerate(GOLD)
    ]


def test_a_limit_scores_only_the_first_ones(tmp_path):
    result = scored(tmp_path, model_that_says(TOKENIZER, tokens_of(TOKENIZER, SAYS_OS)), GOLD, limit=3)
    assert result.scores["accuracy"] == {**result.scores["accuracy"], "value": pytest.approx(2 / 3), "n": 3}
    assert len(result.predictions) == 3


def test_an_answer_that_does_not_end_is_wrong_and_counted_as_invalid(tmp_path):
    answer = tokens_of(TOKENIZER, '{"area":"os"}')
    model = model_that_says(TOKENIZER, [*answer, answer[0]])
    result = scored(tmp_path, model, GOLD)
    assert result.scores["accuracy"]["value"] == 0
    assert result.scores["invalid_rate"]["value"] == 1
    assert all(one["text"].startswith('{"area":"os"}{"') and one["predicted"] is None for one in result.predictions)
