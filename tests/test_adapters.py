"""LoRA and QLoRA: what is quantised and how, gradients beside those of the dequantised weights, saving and loading."""

import math

import pytest
import torch
from tiny_training import column, on, start, train_in, write_chats
from tiny_training import tiny as tiny_run

from ftx.config.compose import compose
from ftx.data.collate import collate
from ftx.data.prepare import prepare
from ftx.errors import UserError
from ftx.loss import TokenLoss, evaluate_loss
from ftx.models import load_model, load_trained, trainable
from ftx.precision import computing

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
# Sizes that NF4's blocks of 64 fit into.
SIZES = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
BF16 = "hardware.precision=bf16"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_chats(tmp_path_factory.mktemp("data"))


def tiny(data, *words):
    return tiny_run(data, *(f"model.architecture.{name}={size}" for name, size in SIZES.items()), *words)


# The 16 values of NF4 (Dettmers et al., 2023, appendix E).
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


def quantised_linears(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    return {name: module for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"}


def dequantised(module: torch.nn.Module) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(module.weight.data, module.weight.quant_state).float()


def test_all_linear_layers_but_the_head_hold_nf4_of_the_starting_weights(data):
    full = load_model(tiny(data), prepare(tiny(data)).tokenizer)
    run = tiny(data, "method=qlora")
    model = load_model(run, prepare(run).tokenizer)
    linears = quantised_linears(model)
    assert len(linears) == 2 * 7
    for name, module in linears.items():
        state = module.weight.quant_state
        assert (state.quant_type, state.nested, state.blocksize) == ("nf4", True, 64)
        blocks = full.get_submodule(name).weight.detach().reshape(-1, 64)
        most = blocks.abs().amax(dim=1, keepdim=True)
        code = torch.tensor(NF4)
        nearest = code[(blocks / most)[..., None].sub(code).abs().argmin(dim=-1)] * most
        # Double quantisation keeps each block's largest value in 8 bits.
        error = (dequantised(module).reshape(-1, 64) - nearest).abs() / most
        assert float(error.max()) < 0.01
    assert torch.equal(model.get_input_embeddings().weight, full.get_input_embeddings().weight)


@pytest.mark.parametrize(
    ("words", "base", "norms", "adapters"),
    [
        (("method=lora",), torch.float32, torch.float32, torch.float32),
        (("method=lora", BF16), torch.bfloat16, torch.float32, torch.float32),
        (("method=qlora", BF16), torch.bfloat16, torch.float32, torch.float32),
        (("method=qlora", BF16, "method.master_weights=none"), torch.bfloat16, torch.bfloat16, torch.bfloat16),
    ],
)
def test_only_adapters_are_trained_and_each_part_has_its_type(data, words, base, norms, adapters):
    _, model = start(tiny(data, *words))
    for name, weights in model.named_parameters():
        assert weights.requires_grad == ("lora_" in name), name
        if "lora_" in name:
            assert weights.dtype == adapters, name
        elif "norm" in name:
            assert weights.dtype == norms, name
        elif weights.dtype != torch.uint8:
            assert weights.dtype == base, name


def test_a_stored_model_is_quantised_as_a_random_one(data, tmp_path):
    run = tiny(data)
    tokenizer = prepare(run).tokenizer
    load_model(run, tokenizer).save_pretrained(tmp_path / "stored")
    tokenizer.save_pretrained(tmp_path / "stored")
    words = ("model=hub", f"model.name={tmp_path / 'stored'}", "model.template=chatml", "method=qlora")
    stored = load_model(compose(*on(data), *words), tokenizer)
    random = load_model(tiny(data, "method=qlora"), tokenizer)
    for (name, module), other in zip(
        quantised_linears(stored).items(), quantised_linears(random).values(), strict=True
    ):
        assert torch.equal(module.weight.data, other.weight.data), name
        assert torch.equal(dequantised(module), dequantised(other)), name


def test_sizes_that_bitsandbytes_computes_wrongly_on_a_cpu_are_refused(data):
    run = tiny(data, "method=qlora", "model.architecture.hidden_size=96")
    with pytest.raises(UserError, match="multiple of 64 inputs, and q_proj has 96"):
        start(run)


def loss_and_gradients(model: torch.nn.Module, rows) -> tuple[float, dict[str, torch.Tensor]]:
    batch = collate(rows)
    labels = batch.pop("labels")
    loss = TokenLoss()(model(**batch), labels, num_items_in_batch=torch.tensor(17))
    loss.backward()
    gradients = {name: weights.grad.clone() for name, weights in model.named_parameters() if weights.grad is not None}
    model.zero_grad()
    return float(loss.detach()), gradients


def with_moved_adapters(model: torch.nn.Module) -> torch.nn.Module:
    """B starts at zero, where A has no gradient."""
    torch.manual_seed(1)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.02)
    return model.train()


def test_qlora_has_the_gradients_of_lora_on_the_dequantised_weights(data):
    prepared, model = start(tiny(data, "method=qlora"))
    run = tiny(data, "method=lora")
    plain = load_model(run, prepared.tokenizer)
    for name, module in quantised_linears(model).items():
        inner = name.removeprefix("base_model.model.").removesuffix(".base_layer")
        plain.get_submodule(inner).weight.data = dequantised(module)
    expected = loss_and_gradients(with_moved_adapters(trainable(plain, run)), list(prepared.train)[:3])
    found = loss_and_gradients(with_moved_adapters(model), list(prepared.train)[:3])
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e-4, atol=1e-7)


def test_an_evaluation_in_between_leaves_the_gradients_as_they_are(data):
    """bitsandbytes would repack weights for a CPU's inference then, and has no gradient through these."""
    run = tiny(data, "method=qlora", BF16)
    prepared, model = start(run)
    with_moved_adapters(model)
    rows = list(prepared.train)[:3]
    with computing(run):
        before = loss_and_gradients(model, rows)
        evaluate_loss(model, prepared.evaluation, CPU)
        after = loss_and_gradients(model, rows)
    assert after[0] == before[0]
    for name, gradient in after[1].items():
        assert torch.equal(gradient, before[1][name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_it_learns_and_the_saved_adapter_gives_the_same_model_again(data, tmp_path, method, precision):
    run = tiny(data, f"method={method}", f"hardware.precision={precision}", "schedule.learning_rate=1e-2")
    model, rows = train_in(tmp_path / "run", run)
    losses = column(rows, "train_loss")
    assert losses[-1] < losses[0] - 0.1
    folder = tmp_path / "run" / "model"
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {file.name for file in folder.iterdir()}
    assert not (folder / "model.safetensors").exists()
    prepared = prepare(run)
    again = load_trained(folder, run, prepared.tokenizer)
    with computing(run):
        expected = evaluate_loss(model, prepared.evaluation, CPU)
        assert evaluate_loss(again, prepared.evaluation, CPU).sums == pytest.approx(expected.sums, rel=1e-6)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_rslora_scales_by_the_root_of_the_rank(data, method):
    for words, scale in ((("method.lora.rslora=true",), 24 / math.sqrt(4)), ((), 24 / 4)):
        _, model = start(tiny(data, f"method={method}", "method.lora.rank=4", "method.lora.alpha=24", *words))
        scales = {module.scaling["default"] for module in model.modules() if hasattr(module, "lora_A")}
        assert scales == {scale}


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_dora_trains_lengths_and_directions(data, method):
    """W' = m · (W + s·BA) / ‖W + s·BA‖, by rows; at the start that is W."""
    run = tiny(data, f"method={method}", "method.lora.dora=true", "method.lora.targets=[q_proj]")
    prepared, model = start(run)
    rows = list(prepared.train)[:2]
    undisturbed = loss_and_gradients(start(tiny(data, f"method={method}"))[1].train(), rows)[0]
    assert loss_and_gradients(model.train(), rows)[0] == pytest.approx(undisturbed, rel=1e-5)
    layer = with_moved_adapters(model).base_model.model.model.layers[0].self_attn.q_proj
    base = layer.base_layer
    weights = dequantised(base) if method == "qlora" else base.weight
    lengths = layer.lora_magnitude_vector["default"].weight.data.mul_(1.3)
    moved = weights + 32 / 16 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = lengths[:, None] * moved / moved.norm(dim=1, keepdim=True)
    given = torch.randn(5, SIZES["hidden_size"])
    torch.testing.assert_close(layer(given), given @ expected.T, rtol=1e-4, atol=1e-5)
    _, gradients = loss_and_gradients(model, rows)
    assert any("magnitude" in name and float(gradient.abs().sum()) > 0 for name, gradient in gradients.items())


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_unknown_targets_are_named_with_those_there_are(data, method):
    run = tiny(data, f"method={method}", "method.lora.targets=[no_such]")
    with pytest.raises(UserError, match=r"method\.lora\.targets=\['no_such'\].*down_proj, gate_proj"):
        start(run)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_activation_checkpointing_changes_no_gradient(data, method):
    """Also over packed rows, whose borders must reach the layers that are computed again."""
    words = (f"method={method}", "data.packing=true", "data.max_length=128")
    calls: dict[bool, int] = {}
    results = []
    for checkpointing in (False, True):
        run = tiny(data, *words, f"hardware.activation_checkpointing={str(checkpointing).lower()}")
        prepared, model = start(run)
        mlp = next(module for name, module in model.named_modules() if name.endswith("layers.0.mlp"))
        calls[checkpointing] = 0

        def count(*_, at=checkpointing):
            calls[at] += 1

        mlp.register_forward_pre_hook(count)
        results.append(loss_and_gradients(with_moved_adapters(model), list(prepared.train)[:2]))
    assert calls == {False: 1, True: 2}
    (plain, expected), (loss, gradients) = results
    assert loss == plain
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-8)
