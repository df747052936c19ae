"""The loss inside models of several families, beside the same models' own logits."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, Qwen3ForCausalLM

from ftx import chunked_loss
from ftx.errors import UserError
from ftx.head import PLAIN_UP_TO, choose, loss_in_head, losses_of

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
FAMILIES = {
    "qwen3": {"tie_word_embeddings": True},
    "llama": {"tie_word_embeddings": False},
    "phi": {"tie_word_embeddings": False, "num_key_value_heads": 2},
    "gemma2": {"final_logit_softcapping": 0.5, "query_pre_attn_scalar": 8},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0},
}


def model_of(family: str, **changes: object) -> PreTrainedModel:
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **{**SIZES, **FAMILIES.get(family, {}), **changes})
    model = AutoModelForCausalLM.from_config(config).double()
    for weight in model.parameters():
        weight.data.normal_(0, 0.3)
    return model.train()


def batch_of(model: torch.nn.Module, tokens: int = 20) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(tokens)
    ids = torch.randint(1, 61, (1, tokens), generator=draw)
    keep = torch.arange(0, tokens - 1, 2)
    return {"input_ids": ids, "logits_to_keep": keep, "shift_labels": ids[0, keep + 1]}


def expected_losses(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[0, batch["logits_to_keep"]]
    return cross_entropy(logits, batch["shift_labels"], reduction="none")


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.fixture
def small_chunks(monkeypatch):
    """Of three tokens each at most."""
    monkeypatch.setattr(chunked_loss, "CHUNK_BYTES", 3 * 4 * 61)


def same_as_alone(model: torch.nn.Module, way: str = "chunked") -> None:
    """With the loss in its head a model gives what it gave without."""
    alone = copy.deepcopy(model)
    loss_in_head(model, way)
    batch = batch_of(model)
    outputs, expected = model(**batch, use_cache=False), expected_losses(alone, batch)
    assert (outputs.logits is None) == (way != "plain")
    loss = losses_of(outputs, batch["shift_labels"], "sum")
    assert float(loss.detach()) == pytest.approx(float(expected.sum().detach()), rel=1e-6)
    (loss / 7).backward()
    (expected.sum() / 7).backward()
    found, right = gradients(model), gradients(alone)
    assert set(found) == set(right)
    for name, gradient in right.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-8, msg=name)
    with torch.no_grad():
        outputs = model(**batch, use_cache=False)
        torch.testing.assert_close(losses_of(outputs, batch["shift_labels"], "none").double(), expected.detach())
        ids = {"input_ids": batch["input_ids"]}
        torch.testing.assert_close(model(**ids).logits, alone(**ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_the_models_own_logits(family, small_chunks):
    model = model_of(family)
    before = copy.deepcopy(model.config.to_dict())
    same_as_alone(model)
    assert model.config.to_dict() == before


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "lm_head"]])
def test_adapters(targets, small_chunks):
    """All linear modules leave the head out; an adapter in the head itself is no plain matrix."""
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    in_head = targets != "all-linear"
    model = get_peft_model(model_of("llama"), config)
    if in_head:
        with pytest.raises(UserError, match=r"model\.loss=chunked: not with this model, its head is no plain matrix"):
            loss_in_head(model, "chunked")
    same_as_alone(model, "plain" if in_head else "chunked")
    trained = [name for name in gradients(model) if "lora_" in name]
    assert len(trained) == len(gradients(model)) == (4 if in_head else 14)


def test_what_a_model_does_to_its_logits_is_never_lost():
    class Doubling(Qwen3ForCausalLM):
        def forward(self, **inputs):
            outputs = super().forward(**inputs)
            outputs.logits = outputs.logits * 2
            return outputs

    model = Doubling(model_of("qwen3").config)
    loss_in_head(model, "chunked")
    with pytest.raises(UserError, match="Doubling changes its logits behind the head"):
        model(**batch_of(model))
    model = model_of("qwen3")
    model.config.lm_head_multiplier = 0.5
    with pytest.raises(UserError, match=r"model\.loss=chunked: not with this model, it does something of its own"):
        loss_in_head(model, "chunked")


def test_auto_says_so_where_it_has_to_hold_all_logits(ftx_log):
    model = model_of("qwen3")
    model.config.lm_head_multiplier = 0.5
    loss_in_head(model)
    assert "will be in memory at once" in ftx_log.text
    assert model(**batch_of(model)).logits.shape == (1, 10, 61)


def test_an_error_in_the_forward_leaves_nothing_behind(small_chunks):
    model = model_of("gemma2")
    loss_in_head(model, "chunked")
    with pytest.raises(ValueError, match="9 targets, but the head got 10 positions"):
        model(**{**batch_of(model), "shift_labels": torch.ones(9, dtype=torch.long)})
    assert model(input_ids=batch_of(model)["input_ids"]).logits.shape == (1, 20, 61)
    assert model.config.final_logit_softcapping == FAMILIES["gemma2"]["final_logit_softcapping"]


def test_a_micro_batch_without_targets_gives_zero_gradients():
    model = model_of("qwen3")
    loss_in_head(model, "chunked")
    batch = batch_of(model)
    none = torch.zeros(0, dtype=torch.long)
    outputs = model(**{**batch, "logits_to_keep": none, "shift_labels": none})
    loss = losses_of(outputs, none, "sum")
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(not gradient.any() for gradient in gradients(model).values())
    assert model.lm_head.weight.grad is not None


def test_a_copy_has_a_loss_of_its_own(small_chunks):
    model = model_of("qwen3")
    loss_in_head(model, "chunked")
    loss_in_head(model, "plain")  # the first one stays
    other = copy.deepcopy(model)
    other.lm_head.weight.data.mul_(2)
    batch = batch_of(model)
    assert float(model(**batch).loss.detach()) != float(other(**batch).loss.detach())
    alone = model_of("qwen3")
    alone.lm_head.weight.data.mul_(2)
    assert float(other(**batch).loss.detach()) == pytest.approx(float(expected_losses(alone, batch).sum().detach()))


@pytest.mark.parametrize(
    ("wanted", "targets", "on_gpu", "liger", "way"),
    [
        ("auto", 10, False, True, "plain"),
        ("auto", 1000, False, True, "chunked"),
        ("auto", 1000, True, False, "chunked"),
        ("auto", 1000, True, True, "liger"),
        ("chunked", 10, True, True, "chunked"),
        ("plain", 100_000, True, True, "plain"),
        ("liger", 10, True, True, "liger"),
        ("liger", 0, True, True, "plain"),
    ],
)
def test_the_way_follows_from_the_size_of_the_logits(wanted, targets, on_gpu, liger, way):
    vocabulary = PLAIN_UP_TO // 4 // 100
    assert choose(wanted, targets=targets, vocabulary=vocabulary, on_gpu=on_gpu, liger=liger) == way


def test_liger_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr("ftx.head.has_liger", lambda: False)
    with pytest.raises(UserError, match=r"model\.loss=liger: liger-kernel is not installed; install ftx\[gpu\]"):
        loss_in_head(model_of("qwen3"), "liger")
