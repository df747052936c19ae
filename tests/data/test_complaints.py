"""What users of other trainers complain about, where it concerns data: each a test under the complaint's own name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from ftx.attention import PACKED_CPU, register
from ftx.config.compose import compose
from ftx.data.collate import collate
from ftx.data.conversation import Conversation
from ftx.data.order import MicroBatches, order_of
from ftx.data.prepare import Prepared, prepare
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.data.tokenize import tokenize
from ftx.errors import UserError
from ftx.templates import Template, choose_template, load_template
from ftx.trainer import micro_batches_in_step, training_length

WORDS = ("model.architecture.vocabulary_size=320", "data=jsonl", "data.holdout=0", "evaluation.tasks=[]")
QUESTION, ANSWER = (" ".join(f"{word}{n}" for n in range(60)) for word in ("why", "so"))


@pytest.fixture
def prepared(tmp_path):
    """Prepares rows under words."""

    def make(rows: list[dict], *words: str) -> Prepared:
        path = tmp_path / "chats.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return prepare(compose(*WORDS, f"data.path={path}", f"run_root={tmp_path}/runs", *words))

    return make


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["system user assistant why? because <think> </think>"] * 4
    return train_tokenizer(texts, 320)


def chat(*turns: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation("x:1", tuple({"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)))


def short(count: int) -> list[dict]:
    return [{"prompt": f"q{n}", "completion": "a" * (n % 7 + 1)} for n in range(count)]


def test_truncation_with_assistant_only_loss_trains_on_nothing_trl_3927(prepared):
    rows = [{"prompt": QUESTION, "completion": "short"}, {"prompt": "why?", "completion": ANSWER}, *short(3)]
    data = prepared(rows, "data.max_length=64", "data.too_long=truncate")
    assert (data.counts.truncated, data.counts.dropped_unsupervised) == (1, 1)
    assert all(row.supervised.any() for row in data.train)
    assert data.train.tokens.supervised.min() > 0


def test_stock_templates_give_all_zero_masks_trl_4879(tokenizer):
    stock = "{% for message in messages %}{{ message.role + ':' + message.content }}{% endfor %}"
    with pytest.raises(UserError, match=r"x:1: template 'stock' leaves no token of it to learn from"):
        tokenize([chat("Why?", "So.")], tokenizer, Template("stock", stock))
    own = train_tokenizer(["a"], 300)
    own.chat_template = stock
    with pytest.raises(UserError, match=r"the tokenizer's own template has no generation marks"):
        choose_template("auto", own)


def test_silent_truncation_unsloth_2904(prepared, ftx_log):
    rows = [{"prompt": "why?", "completion": ANSWER}, *short(3)]
    with pytest.raises(UserError, match=r"chats\.jsonl:1 has \d+ tokens, more than data\.max_length=64; raise it"):
        prepared(rows, "data.max_length=64")
    whole = prepared(rows, "data.max_length=1024").counts.train_tokens
    cut = prepared(rows, "data.max_length=64", "data.too_long=truncate").counts
    assert cut.train_tokens + cut.cut_tokens == whole
    assert (
        f"1 truncated, 0 split, 0 dropped because nothing supervised was left; {cut.cut_tokens} tokens" in ftx_log.text
    )
    split = prepared(rows, "data.max_length=64", "data.too_long=split").counts
    assert (split.split, split.cut_tokens) == (1, 0)
    assert split.train_supervised_tokens == prepared(rows, "data.max_length=1024").counts.train_supervised_tokens


def test_packed_samples_attend_to_each_other_trl_1230_3910(prepared):
    data = prepared(short(12), "data.max_length=128")
    (row,) = [row for row in data.train if len(row.lengths) > 3][:1]
    register()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    config = Qwen3Config(vocab_size=320, num_attention_heads=2, num_key_value_heads=1, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    model.set_attn_implementation(PACKED_CPU)
    logits = [forward(model, row.input_ids, row.lengths)]
    changed = row.input_ids.copy()
    changed[: row.lengths[0]] = 7
    logits.append(forward(model, changed, row.lengths))
    first = int(row.lengths[0])
    assert not torch.equal(logits[0][:first], logits[1][:first])
    assert torch.equal(logits[0][first:], logits[1][first:])


def forward(model, input_ids: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
    from ftx.data.store import Row

    batch = collate([Row(input_ids, np.ones(len(input_ids), dtype=bool), lengths)])
    batch.pop("labels"), batch.pop("logits_to_keep")
    with torch.no_grad():
        return model(**batch).logits[0]


def test_resume_replays_the_wrong_data_order_ms_swift_10050_accelerate_4071(prepared):
    """A trainer that resumes in the middle of epoch 2 asks for these items, never having asked for the ones before."""
    data = prepared(short(40), "data.packing=false")
    run = compose(*WORDS, "data.path=x.jsonl", "data.packing=false", "schedule.global_batch_size=4")

    def items(epoch: int, begin: int) -> list[tuple[str, ...]]:
        loader = MicroBatches(order_of(run, data), size=2, accumulation=2)
        loader.set_epoch(epoch)
        return [tuple(name for row in loader[at] for name in row.ids) for at in range(begin, len(loader))]

    undisturbed = MicroBatches(order_of(run, data), size=2, accumulation=2)
    for epoch in range(3):
        undisturbed.set_epoch(epoch)
        seen = [tuple(name for row in undisturbed[at] for name in row.ids) for at in range(len(undisturbed))]
    assert items(2, 7) == seen[7:]
    assert items(1, 0) != seen


@pytest.mark.parametrize("scope", ["dataset", "global_batch"])
def test_step_counts_are_wrong_under_packing_axolotl_3152(prepared, scope):
    words = ("data.max_length=64", f"data.packing_scope={scope}", "schedule.global_batch_size=4", "schedule.epochs=3")
    data = prepared(short(90), *words)
    run = compose(*WORDS, "data.path=x.jsonl", *words)
    order = order_of(run, data)
    length = training_length(run, order)
    steps = -(-(len(data.train) if scope == "dataset" else 90) // 4)
    assert (length.steps_per_epoch, length.steps) == (steps, 3 * steps)
    loader = MicroBatches(order, size=2, accumulation=micro_batches_in_step(run, order))
    for epoch in range(3):
        loader.set_epoch(epoch)
        names = [name for at in range(len(loader)) for row in loader[at] for name in row.ids]
        assert sorted(names) == sorted(f"chats.jsonl:{n + 1}" for n in range(90))
    assert order.seen(length.steps).total == 3 * data.counts.train_tokens


@pytest.mark.parametrize("family", ["qwen3", "deepseek_r1_distill_qwen"])
def test_templates_strip_thoughts_of_earlier_turns_ms_swift_4939(prepared, ftx_log, family):
    thoughtful = [
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "<think>\nfirst thought\n</think>\n\nso"},
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "<think>\nlast thought\n</think>\n\nso"},
    ]
    rows = [{"messages": thoughtful}] * 2
    kept = prepared(rows, f"model.template={family}", "data.thinking=keep")
    learned = kept.tokenizer.decode(kept.train[0].input_ids[kept.train[0].supervised])
    assert "first thought" in learned and "last thought" in learned
    assert kept.counts.lost_reasoning == 0
    as_the_model = prepared(rows, f"model.template={family}")
    text = as_the_model.tokenizer.decode(as_the_model.train[0].input_ids)
    assert "first thought" not in text
    assert as_the_model.counts.lost_reasoning == 2
    assert f"2 conversations lose reasoning in <think>, as template '{family}' renders them" in ftx_log.text


def test_a_family_template_without_marks_is_refused_by_name(tmp_path, monkeypatch):
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "plain.jinja").write_text("{{ messages[0].content }}")
    monkeypatch.setattr("ftx.templates.CHECKOUT", Path(tmp_path))
    with pytest.raises(UserError, match=r"templates/plain\.jinja has no \{% generation %\} marks"):
        load_template("plain")
