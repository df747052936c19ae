"""Models by their dimensions: the published ones to the parameter, and small ones of each family."""

import pytest
import torch

from ftx.architectures import FAMILIES, model_config, random_model
from ftx.config.compose import compose
from ftx.config.model_schema import ArchitectureConfig
from ftx.data.cost import cost_of_model
from ftx.data.model_parts import cost_for
from ftx.environment import CHECKOUT

# As the models' pages on the hub count their safetensors.
PARAMETERS = {
    "qwen3_0_6b": 596_049_920,
    "qwen3_4b": 4_022_468_096,
    "qwen3_4b_thinking": 4_022_468_096,
    "qwen2_5_7b": 7_615_616_512,
    "deepseek_r1_distill_qwen_1_5b": 1_777_088_000,
    "nemotron_nano_4b": 4_512_746_496,
    "llama3_1_8b": 8_030_261_248,
    "olmo2_7b": 7_298_617_344,
    "olmo2_13b": 13_716_198_400,
    "olmo2_32b": 32_234_279_936,
}
SMALL = {"hidden_size": 64, "intermediate_size": 96, "layers": 2, "heads": 4, "vocabulary_size": 320}


def parameters(architecture: ArchitectureConfig) -> int:
    with torch.device("meta"):
        return sum(weights.numel() for weights in random_model(architecture).parameters())


def by_hand(architecture: ArchitectureConfig) -> int:
    """Matrix by matrix, as the families' papers draw them."""
    a = architecture
    queries, keys = a.heads * a.head_dim, a.key_value_heads * a.head_dim
    attention = a.hidden_size * (2 * queries + 2 * keys)
    biases = {"qwen2": queries + 2 * keys}.get(a.family, 0)
    norms = 2 * a.hidden_size + {"qwen3": 2 * a.head_dim, "olmo2": queries + keys}.get(a.family, 0)
    layer = attention + biases + norms + 3 * a.hidden_size * a.intermediate_size
    tables = a.vocabulary_size * a.hidden_size * (1 if a.tied_embeddings else 2)
    return tables + a.layers * layer + a.hidden_size


def test_every_published_model_is_counted():
    choices = {file.stem for file in (CHECKOUT / "conf/model").glob("*.yaml")}
    assert choices == {*PARAMETERS, "tiny", "small", "hub"}


@pytest.mark.parametrize("choice", PARAMETERS)
def test_parameters_are_those_of_the_published_model(choice):
    architecture = compose(f"model={choice}").model.architecture
    assert parameters(architecture) == by_hand(architecture) == PARAMETERS[choice]


@pytest.mark.parametrize("choice", PARAMETERS)
def test_the_first_line_says_its_licence_and_whether_it_is_gated(choice):
    first, *_ = (CHECKOUT / f"conf/model/{choice}.yaml").read_text().splitlines()
    assert "gated" in first
    assert any(name in first for name in ("Apache-2.0", "MIT", "License"))
    if choice != "qwen3_4b_thinking":
        assert f"{PARAMETERS[choice]:,} parameters" in first


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_random_model_of_each_family(family, tied):
    """A head of its own size, whatever the hidden size, and grouped keys."""
    architecture = ArchitectureConfig(family=family, key_value_heads=2, head_dim=24, tied_embeddings=tied, **SMALL)
    model = random_model(architecture)
    assert model.config.model_type == family
    assert sum(weights.numel() for weights in model.parameters()) == by_hand(architecture)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert model(input_ids=torch.arange(6)[None]).logits.shape == (1, 6, 320)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_cost_what_the_familys_own_configuration_says(family):
    run = compose(f"model.architecture.family={family}")
    assert cost_for(run) == cost_of_model(model_config(run.model.architecture))
