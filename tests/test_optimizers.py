"""Stochastic rounding against exact values, and each optimizer in a training."""

import math

import pytest
import torch
from tiny_training import assert_same_weights, column, start, tiny, train_in, train_until, write_chats

from ftx.config.schema import RunConfig
from ftx.optimizers import StochasticAdamW, lost_steps, round_stochastically

pytestmark = pytest.mark.usefixtures("one_thread")

# Matrices of 4,096 numbers and more, from which on bitsandbytes keeps its state in 8 bits.
WIDE = ("model.architecture.intermediate_size=160",)
SHORT = ("hardware.precision=bf16", "method.master_weights=none")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_chats(tmp_path_factory.mktemp("data"))


def drawing(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("value", [1.001, -0.0173, 3.0e-5, 250.3, 1.0078124, -1e-38])
def test_rounding_takes_one_of_the_two_neighbours_and_is_right_on_average(value):
    count = 200_001
    exact = torch.full((count,), value)
    rounded = round_stochastically(exact.clone(), drawing()).double()
    below, above = sorted(set(rounded.tolist()))
    value = float(exact[0])
    assert below < value < above
    assert float(torch.tensor(below).bfloat16().nextafter(torch.tensor(math.inf).bfloat16())) == above
    share = (value - below) / (above - below)
    error = (above - below) * math.sqrt(share * (1 - share) / count)
    assert abs(float(rounded.mean()) - value) < 5 * error


def test_what_bf16_can_hold_stays_as_it_is():
    exact = torch.randn(1001).bfloat16().float()
    exact[:3] = torch.tensor([0.0, math.inf, -math.inf])
    assert torch.equal(round_stochastically(exact.clone(), drawing()).float(), exact)


def minimise(optimizer: torch.optim.Optimizer, weights: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    for gradient in gradients:
        weights.grad = gradient.to(weights.dtype)
        optimizer.step()
    return weights.detach()


def test_in_32_bits_it_is_torchs_adamw():
    torch.manual_seed(0)
    first = torch.randn(40, 30)
    gradients = [torch.randn(40, 30) * scale for scale in (1, 0.1, 3, 1e-4, 1)]
    options = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}
    ours, right = first.clone().requires_grad_(), first.clone().requires_grad_()
    found = minimise(StochasticAdamW([ours], **options), ours, gradients)
    expected = minimise(torch.optim.AdamW([right], **options), right, gradients)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_small_steps_move_weights_as_in_32_bits_where_plain_bf16_stays():
    """200 steps of 1e-5 on weights of 0.02 to 0.03, whose neighbours are 1.2e-4 apart."""
    torch.manual_seed(0)
    first = (torch.rand(100, 100) * 0.01 + 0.02).bfloat16()
    direction = torch.where(torch.rand(100, 100) < 0.5, -1.0, 1.0)
    gradients = [direction + 0.3 * torch.randn(100, 100) for _ in range(200)]
    moved = {}
    for name, kind, held_in in (
        ("fp32", torch.optim.AdamW, torch.float32),
        ("plain", torch.optim.AdamW, torch.bfloat16),
        ("stochastic", StochasticAdamW, torch.bfloat16),
    ):
        weights = first.to(held_in, copy=True).requires_grad_()
        trained = minimise(kind([weights], lr=1e-5, weight_decay=0.0), weights, gradients)
        moved[name] = (trained.float() - first.float()) * -direction
    assert float(moved["plain"].abs().max()) == 0
    assert float(moved["fp32"].mean()) == pytest.approx(200e-5, rel=0.05)
    assert float(moved["stochastic"].mean()) == pytest.approx(float(moved["fp32"].mean()), rel=0.01)


def test_its_draws_follow_from_seed_and_step_through_saving():
    torch.manual_seed(0)
    first, gradients = torch.randn(50, 9).bfloat16(), [torch.randn(50, 9) for _ in range(6)]

    def trained(seed: int, pause: int | None = None) -> torch.Tensor:
        weights = first.clone().requires_grad_()
        optimizer = StochasticAdamW([weights], lr=1e-3, seed=seed)
        minimise(optimizer, weights, gradients[:pause])
        if pause is None:
            return weights.detach()
        again = StochasticAdamW([weights], lr=1e-3, seed=seed)
        again.load_state_dict(optimizer.state_dict())
        assert again.state[weights]["exp_avg_sq"].dtype == torch.bfloat16
        return minimise(again, weights, gradients[pause:])

    assert torch.equal(trained(1), trained(1))
    assert torch.equal(trained(1), trained(1, pause=3))
    assert not torch.equal(trained(1), trained(2))


def test_chunks_change_nothing_but_the_draws(monkeypatch):
    gradient = torch.randn(1000)
    results = []
    for chunk in (2**24, 64):
        monkeypatch.setattr("ftx.optimizers.CHUNK", chunk)
        weights = torch.linspace(-1, 1, 1000).requires_grad_()
        results.append(minimise(StochasticAdamW([weights], lr=1e-3), weights, [gradient, -2 * gradient]))
    assert torch.equal(*results)


@pytest.mark.parametrize("rate", [1e-5, 4e-5, 1e-3])
def test_lost_steps_counts_the_weights_that_a_step_leaves_where_they_are(rate):
    torch.manual_seed(0)
    model = torch.nn.Linear(200, 300)
    weights = model.weight.detach().bfloat16()
    lost = float(((weights + rate == weights) & (weights - rate == weights)).float().mean())
    said = lost_steps(model.bfloat16(), rate)
    if lost <= 0.5:
        assert said is None
    else:
        assert f"{lost:.0%} of the weights" in said
        assert f"{float(weights.abs().float().median()):.2g}" in said


@pytest.fixture(scope="module")
def curve(data, tmp_path_factory):
    return column(train_in(tmp_path_factory.mktemp("runs") / "fp32", tiny(data, *WIDE))[1], "train_loss")


def tensors_in(state: dict) -> list[torch.Tensor]:
    """bitsandbytes has its own in a dictionary within."""
    inner = [tensor for value in state.values() if isinstance(value, dict) for tensor in tensors_in(value)]
    return inner + [value for value in state.values() if torch.is_tensor(value)]


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_8bit", "paged_adamw_8bit"])
def test_each_optimizer_follows_the_curve_of_the_default_one(data, tmp_path, curve, caplog, ftx_log, name):
    with caplog.at_level("INFO", logger="ftx"):
        _, rows = train_in(tmp_path / "run", tiny(data, *WIDE, f"method.optimizer={name}", "schedule.save_every=epoch"))
    eight_bits = name.endswith("8bit")
    assert column(rows, "train_loss") == pytest.approx(curve, rel=2e-3 if eight_bits else 1e-5)
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    saved = torch.load(newest / "optimizer.pt", weights_only=False)["state"].values()
    kept_in_8_bits = [state for state in saved if torch.uint8 in {value.dtype for value in tensors_in(state)}]
    # The three matrices of each layer's MLP; the embedding's state stays in 32 bits, as Trainer wants it.
    assert len(kept_in_8_bits) == (6 if eight_bits else 0)
    assert ("stays in memory" in ftx_log.text) == name.startswith("paged")


def test_other_betas_reach_the_optimizer(data, tmp_path, curve):
    _, rows = train_in(tmp_path / "run", tiny(data, *WIDE, "method.adam_beta1=0.5"))
    assert column(rows, "train_loss") != pytest.approx(curve, rel=1e-4)


SLOW = ("schedule=constant", "schedule.learning_rate=1e-5", "schedule.warmup=0")


@pytest.fixture(scope="module")
def moved_slowly(data, tmp_path_factory):
    return moved(train_in(tmp_path_factory.mktemp("runs") / "fp32", tiny(data, *SLOW))[0], tiny(data, *SLOW))


def moved(model: torch.nn.Module, run: RunConfig) -> torch.Tensor:
    """How far each weight of the trained ``model`` is from where it started."""
    _, first = start(run)
    pairs = zip(model.parameters(), first.parameters(), strict=True)
    return torch.cat([(ours - before).detach().float().flatten() for ours, before in pairs])


@pytest.mark.parametrize("rounding", [True, False], ids=["stochastic", "plain"])
def test_with_steps_that_bf16_loses_only_stochastic_rounding_moves_weights_as_32_bits_do(
    data, tmp_path, ftx_log, moved_slowly, rounding
):
    """As the share of the way in 32 bits that is gone in the same direction: what is random adds nothing to it."""
    run = tiny(data, *SLOW, *SHORT, f"method.stochastic_rounding={str(rounding).lower()}")
    model, _ = train_in(tmp_path / "run", run)
    assert {weights.dtype for weights in model.parameters()} == {torch.bfloat16}
    assert ("of the weights" in ftx_log.text) == (not rounding)
    share = float(moved(model, run) @ moved_slowly / (moved_slowly @ moved_slowly))
    assert share == pytest.approx(1, abs=0.1) if rounding else share < 0.5


def test_stochastic_rounding_goes_on_exactly_after_an_interruption(data, tmp_path):
    run = tiny(data, *SHORT, "method.stochastic_rounding=true", "schedule.learning_rate=1e-4")
    whole, rows = train_in(tmp_path / "whole", run)
    train_until(3, tmp_path / "run", run)
    model, resumed = train_in(tmp_path / "run", run)
    assert column(resumed, "train_loss") == column(rows, "train_loss")
    assert_same_weights(model, whole, atol=0, rtol=0)
