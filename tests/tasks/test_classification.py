"""What counts as an answer, and the scores of a model whose answer is known beforehand."""

import json

import pytest
import torch
from scored_alone import scored_alone
from transformers import Qwen3Config, Qwen3ForCausalLM

from ftx.attention import PACKED_CPU, register
from ftx.config.schema import EvaluationConfig
from ftx.data.conversation import Conversation, to_stored
from ftx.data.conversation_store import ConversationStore, ConversationWriter
from ftx.data.cost import Cost
from ftx.data.prepare import Counts, Prepared
from ftx.data.store import RowStore, TokenStore, TokenWriter, write_members
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.errors import UserError
from ftx.tasks import classification
from ftx.tasks.classification import gold_label, read_label
from ftx.templates import load_template

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


def model_that_says(tokens: list[int]) -> Qwen3ForCausalLM:
    """Says ``tokens`` after a line end: each token alone decides what follows, as nothing is added to its embedding."""
    size = len(TOKENIZER)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=size,
            hidden_size=size,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=4,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()
        line_end = TOKENIZER.encode("\n")[0]
        for before, after in zip([line_end, *tokens[:-1]], tokens, strict=True):
            model.lm_head.weight[after, before] = 1.0
    register()
    model.set_attn_implementation(PACKED_CPU)
    return model


def scored(tmp_path, model: Qwen3ForCausalLM, gold: list[str], limit: int | None = None):
    with TokenWriter(tmp_path / "tokens.arrow"), ConversationWriter(tmp_path / "conversations.arrow") as writer:
        for number, label in enumerate(gold):
            writer.add(to_stored(asked(number, json.dumps({"area": label}, separators=(",", ":")))))
    write_members(tmp_path / "none.arrow", [])
    nothing = RowStore.open(TokenStore(tmp_path / "tokens.arrow"), tmp_path / "none.arrow")
    held_out = ConversationStore(tmp_path / "conversations.arrow")
    prepared = Prepared(
        train=nothing,
        evaluation=nothing,
        train_conversations=held_out[:0],
        held_out=held_out,
        tokenizer=TOKENIZER,
        template=load_template("chatml"),
        counts=Counts(0, len(gold), 0, 0, 0, 0, 0, 0),
        cost=Cost(),
        folder=tmp_path,
    )
    return scored_alone(classification, model, prepared, EvaluationConfig(batch_size=2, limit=limit))


def tokens_of(text: str) -> list[int]:
    tokens = TOKENIZER.encode(text)
    assert len(set(tokens)) == len(tokens)
    return tokens


GOLD = ["os", "net", "os", "os", "net"]


def test_a_model_that_always_says_os_is_right_where_os_is_right(tmp_path):
    result = scored(tmp_path, model_that_says(tokens_of('{"area":"os"}<|im_end|>')), GOLD)
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
    result = scored(tmp_path, model_that_says(tokens_of('{"area":"os"}<|im_end|>')), GOLD, limit=3)
    assert result.scores["accuracy"] == {**result.scores["accuracy"], "value": pytest.approx(2 / 3), "n": 3}
    assert len(result.predictions) == 3


def test_an_answer_that_does_not_end_is_wrong_and_counted_as_invalid(tmp_path):
    answer = tokens_of('{"area":"os"}')
    model = model_that_says([*answer, answer[0]])
    result = scored(tmp_path, model, GOLD)
    assert result.scores["accuracy"]["value"] == 0
    assert result.scores["invalid_rate"]["value"] == 1
    assert all(one["text"].startswith('{"area":"os"}{"') and one["predicted"] is None for one in result.predictions)
