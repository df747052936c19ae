"""Parameters counted by a plan against those that transformers and peft make."""

import pytest
import torch

from ftx.adapters import add_adapter
from ftx.architectures import random_model
from ftx.config.compose import compose
from ftx.config.model_schema import ArchitectureConfig
from ftx.errors import UserError
from ftx.planning.model_facts import read_architecture
from ftx.planning.parameters import adapter_weights, weights_of
from ftx.planning.states import count

# As the models' own pages state them.
PUBLISHED = {
    "qwen3_0_6b": 596_049_920,
    "qwen3_4b": 4_022_468_096,
    "qwen2_5_7b": 7_615_616_512,
    "deepseek_r1_distill_qwen_1_5b": 1_777_088_000,
    "llama3_1_8b": 8_030_261_248,
    "olmo2_7b": 7_298_617_344,
}
FAMILIES = ("qwen3", "qwen2", "llama", "olmo2")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_names_and_shapes_are_those_of_transformers(family, tied):
    architecture = ArchitectureConfig(family=family, layers=3, heads=6, head_dim=8, tied_embeddings=tied)
    with torch.device("meta"):
        model = random_model(architecture)
    expected = {name: tuple(weights.shape) for name, weights in model.named_parameters()}
    assert {one.name: one.shape for one in weights_of(architecture)} == expected


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_numbers_to_the_unit(model):
    assert count(weights_of(compose(f"model={model}").model.architecture)) == PUBLISHED[model]


@pytest.mark.parametrize("targets", ["[all-linear]", "[q_proj,v_proj]", "[down_proj,lm_head]"])
@pytest.mark.parametrize("dora", ["true", "false"])
def test_adapters_are_those_of_peft(targets, dora):
    run = compose(
        "method=lora", f"method.lora.targets={targets}", f"method.lora.dora={dora}", "method.lora.rank=5",
        "model.architecture.tied_embeddings=false", "model.architecture.layers=2",
    )  # fmt: skip
    with torch.device("meta"):
        model = add_adapter(random_model(run.model.architecture), run)
    expected = {
        name.removeprefix("base_model.model."): tuple(weights.shape)
        for name, weights in model.named_parameters()
        if weights.requires_grad
    }
    lora = run.method.lora
    found = adapter_weights(run.model.architecture, lora.rank, list(lora.targets), dora=lora.dora)
    assert {one.name: one.shape for one in found} == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_dimensions_are_read_from_a_models_own_config(family, tmp_path):
    architecture = ArchitectureConfig(family=family, heads=4, head_dim=48)
    with torch.device("meta"):
        random_model(architecture).config.save_pretrained(tmp_path)
    assert read_architecture(tmp_path / "config.json", "it") == architecture


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "it is no JSON object"),
        ('{"model_type": "qwen3", "num_attention_heads": null}', "num_attention_heads is null"),
        ('{"model_type": "qwen3", "num_attention_heads": 4, "hidden_size": "64"}', 'hidden_size is "64"'),
        ("{", "Expecting property name"),
        ('{"model_type": ["qwen3"]}', "a plan knows the layers of"),
        ("{}", "and this is None"),
    ],
)
def test_a_configuration_that_describes_no_model_is_one_line(tmp_path, text, reason):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read_architecture(tmp_path / "config.json", "it")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("model.name=it: ")
    assert "\n" not in str(caught.value)
