"""Merged weights beside what was trained, for every kind of adapter; shards, types, and what cannot be merged."""

import json
from pathlib import Path

import pytest
import torch
from export_models import SIZES, adapted, save_model, tiny_tokenizer, write_chats
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen3Config

from ftx.adapters import as_quantised
from ftx.errors import UserError
from ftx.exports.comparison import bound_of
from ftx.exports.merging import plan_merge, write_merged
from ftx.exports.sides import in_32_bits, merge_by_peft, on_a_processor
from ftx.exports.tensors import tensors_in, tensors_of, write_tensors
from ftx.models import load_trained
from ftx.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = torch.tensor([[3, 80, 300, 17, 45, 261, 90, 400, 5, 77, 123, 222]])
# Sizes that NF4's blocks of 64 fit into.
CONFIG = Qwen3Config(**{**SIZES, "intermediate_size": 128}, head_dim=32, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("merging")
    save_model(place / "base", CONFIG, tiny_tokenizer())
    write_chats(place / "chats.jsonl")
    return place


def merged(place: Path, folder: Path, *words: str) -> tuple[RunFolder, torch.Tensor, torch.Tensor]:
    """The run's folder, and logits of the trained and of the merged model, both computed in 32 bits."""
    described, run = adapted(folder / "run", place / "base", place / "chats.jsonl", *words)
    write_merged(plan_merge(described, run), described.exports / "merged")
    trained = in_32_bits(load_trained(described.model, on_a_processor(run), tokenizer(place)))
    model = AutoModelForCausalLM.from_pretrained(described.exports / "merged", dtype=torch.float32).eval()
    with torch.no_grad():
        return described, trained(input_ids=IDS, use_cache=False).logits[0], model(input_ids=IDS).logits[0]


def tokenizer(place: Path):
    return AutoTokenizer.from_pretrained(place / "base")


KINDS = pytest.mark.parametrize(
    "words",
    [
        ("method.lora.rslora=true",),
        ("method.lora.dora=true",),
        ("method.lora.dora=true", "method.lora.rslora=true", "method.lora.targets=[q_proj,down_proj]"),
        ("method.lora.targets=[lm_head,q_proj]",),
        ("method.lora.targets=[embed_tokens,v_proj]",),
        ("method=qlora",),
    ],
    ids=" ".join,
)


@KINDS
def test_merged_logits_are_those_of_base_and_adapter(words, place, tmp_path):
    _, trained, found = merged(place, tmp_path, *words)
    assert float((found - trained).abs().max()) <= 1e-5 * float(trained.abs().max())


@KINDS
def test_peft_comes_to_the_same_16_bit_weights(words, place, tmp_path):
    """What the check of a merge compares with."""
    described, trained, found = merged(place, tmp_path, *words, "hardware.precision=bf16")
    run = described.read_run()
    model = in_32_bits(load_trained(described.model, on_a_processor(run), tokenizer(place)))
    merge_by_peft(model, torch.bfloat16)
    with torch.no_grad():
        sound = model(input_ids=IDS, use_cache=False).logits[0]
    bound = bound_of("merge", "bf16").relative
    assert float((found - sound).norm() / sound.norm()) < bound < float((found - trained).norm() / trained.norm())


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_16_bit_weights_are_the_sum_rounded_once(method, place, tmp_path):
    words = (f"method={method}", "hardware.precision=bf16")
    folder, trained, found = merged(place, tmp_path, *words)
    weights, base = (
        load_file(folder.exports / "merged" / "model.safetensors"),
        load_file(place / "base" / "model.safetensors"),
    )
    adapter = load_file(folder.model / "adapter_model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    start = base[f"{name}.weight"].bfloat16()
    held = as_quantised(start) if method == "qlora" else start
    assert (method == "qlora") == (not torch.equal(held, start))
    down, up = (adapter[f"base_model.model.{name}.lora_{part}.weight"].float() for part in "AB")
    expected = (held.float() + (up @ down) * (12 / 4)).bfloat16()
    assert torch.equal(weights[f"{name}.weight"], expected)
    assert {one.dtype for one in weights.values()} == {torch.bfloat16}
    assert 1e-5 < float((found - trained).norm() / trained.norm()) < 3e-2


def test_a_head_with_an_adapter_of_its_own_is_tied_no_longer(place, tmp_path):
    folder, _, _ = merged(place, tmp_path, "method.lora.targets=[lm_head]")
    weights = load_file(folder.exports / "merged" / "model.safetensors")
    config = json.loads((folder.exports / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    base = load_file(place / "base" / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(weights["model.embed_tokens.weight"], base)
    assert not torch.equal(weights["lm_head.weight"], base)


def test_the_folder_has_all_that_the_model_needs(place, tmp_path):
    folder, _, _ = merged(place, tmp_path)
    made = folder.exports / "merged"
    ours = AutoTokenizer.from_pretrained(made)
    assert ours.chat_template == tokenizer(place).chat_template
    assert ours.get_vocab() == tokenizer(place).get_vocab()
    # eos of the base, and the token that ends a turn of the template.
    generation = GenerationConfig.from_pretrained(made)
    assert generation.eos_token_id == ours.convert_tokens_to_ids("<|im_end|>") == 2
    assert generation.pad_token_id == ours.pad_token_id
    assert not list(made.glob("adapter*"))


def test_shards_hold_all_weights_and_none_is_larger_than_asked(tmp_path):
    weights = {f"part.{at}": torch.randn(at + 1, 8) for at in range(9)} | {"one": torch.tensor(3)}
    write_tensors(tmp_path, tensors_of(weights).values(), shard_bytes=400)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 3
    read = {name: one for file in files for name, one in load_file(file).items()}
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert set(read) == set(weights)
    assert all(sum(one.nbytes for one in load_file(file).values()) <= 400 for file in files)
    again = tensors_in(tmp_path)
    assert all(torch.equal(again[name].read(), weights[name]) for name in weights)
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text())["metadata"]["total_size"] == sum(
        one.nbytes for one in weights.values()
    )


def test_another_base_than_the_one_trained_on_is_refused(place, tmp_path):
    base = save_model(tmp_path / "base", CONFIG, tiny_tokenizer())
    folder, run = adapted(tmp_path / "run", base, place / "chats.jsonl")
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.norm.weight.mul_(1.01)
    model.save_pretrained(base)
    with pytest.raises(UserError, match="is not the model any more that run was trained on"):
        plan_merge(folder, run)
