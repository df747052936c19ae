"""The chunked loss against cross-entropy over whole logits: its value and every gradient."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from ftx import chunked_loss
from ftx.chunked_loss import AfterHead, chunks, summed_loss, token_losses

AFTER = {
    "as_it_is": AfterHead(),
    "scaled": AfterHead(scale=0.3),
    "capped": AfterHead(softcap=2.0),
    "both": AfterHead(1.7, 4.0),
}
VOCABULARY, HIDDEN = 37, 8


@pytest.fixture
def small_chunks(monkeypatch):
    """Of five tokens each at most."""
    monkeypatch.setattr(chunked_loss, "CHUNK_BYTES", 5 * 4 * VOCABULARY)


def head_of(tokens: int, *, bias: bool = True, dtype: torch.dtype = torch.float64) -> list[torch.Tensor | None]:
    """Hidden states, weight and bias, all to be differentiated, and targets."""
    draw = torch.Generator().manual_seed(tokens)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=dtype, generator=draw).requires_grad_()

    targets = torch.randint(VOCABULARY, (tokens,), generator=draw)
    return [random(tokens, HIDDEN), random(VOCABULARY, HIDDEN), random(VOCABULARY) if bias else None, targets]


def plain(hidden, weight, bias, targets, after):
    logits = linear(hidden, weight, bias) * after.scale
    if after.softcap is not None:
        logits = after.softcap * torch.tanh(logits / after.softcap)
    return cross_entropy(logits, targets, reduction="sum")


@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
@pytest.mark.parametrize("tokens", [0, 1, 5, 6, 11, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_loss_and_gradients_equal_those_of_whole_logits(tokens, after, bias, small_chunks):
    inputs, reference = head_of(tokens, bias=bias), head_of(tokens, bias=bias)
    loss, expected = summed_loss(*inputs, after), plain(*reference, after)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-13)
    (loss * 0.37).backward()
    (expected * 0.37).backward()
    for ours, right in zip(inputs[:3], reference[:3], strict=True):
        if ours is not None:
            torch.testing.assert_close(ours.grad, right.grad, rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        each = token_losses(lambda part: linear(part, *inputs[1:3]).double(), inputs[0], inputs[3], VOCABULARY, after)
    assert each.shape == (tokens,)
    assert float(each.sum()) == pytest.approx(float(expected.detach()), rel=1e-6)


@pytest.mark.parametrize(("tokens", "sizes"), [(0, []), (1, [1]), (5, [5]), (6, [3, 3]), (11, [4, 4, 3])])
def test_chunks_cover_all_tokens_in_about_equal_parts(tokens, sizes, small_chunks):
    slices = list(chunks(tokens, VOCABULARY))
    assert [part.stop - part.start for part in slices] == sizes
    assert [at for part in slices for at in range(part.start, part.stop)] == list(range(tokens))


def test_a_vocabulary_larger_than_a_chunk_is_taken_token_by_token(monkeypatch):
    monkeypatch.setattr(chunked_loss, "CHUNK_BYTES", 1)
    assert [part.stop - part.start for part in chunks(3, VOCABULARY)] == [1, 1, 1]


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_gets_no_gradient_and_changes_none(frozen, small_chunks):
    inputs, reference = head_of(12), head_of(12)
    inputs[frozen].requires_grad_(False)
    summed_loss(*inputs, AfterHead()).backward()
    plain(*reference, AfterHead()).backward()
    for at in range(3):
        if at == frozen:
            assert inputs[at].grad is None
        else:
            torch.testing.assert_close(inputs[at].grad, reference[at].grad)


def test_gradients_are_given_once():
    loss = summed_loss(*head_of(3), AfterHead())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="given away"):
        loss.backward()


def test_autocast_multiplies_in_bf16_and_adds_up_in_32_bits(small_chunks):
    inputs, exact = head_of(200, dtype=torch.float32), head_of(200, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = summed_loss(*inputs, AfterHead())
        logits = linear(*exact[:3]).float()
    expected = cross_entropy(logits, exact[3], reduction="sum")
    loss.backward()
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for ours, right in zip(inputs[:3], exact[:3], strict=True):
        assert ours.grad.dtype == torch.float32
        assert float((ours.grad - right.grad).norm() / right.grad.norm()) < 0.01


def test_weights_in_bf16_get_gradients_in_bf16(small_chunks):
    inputs = [part.detach().bfloat16().requires_grad_() for part in head_of(200)[:3]]
    exact = [part.detach().double().requires_grad_() for part in inputs]
    targets = head_of(200)[3]
    summed_loss(*inputs, targets, AfterHead()).backward()
    plain(*exact, targets, AfterHead()).backward()
    for ours, right in zip(inputs, exact, strict=True):
        assert ours.grad.dtype == torch.bfloat16
        assert float((ours.grad - right.grad).norm() / right.grad.norm()) < 0.02


LIGER = """
import torch
import liger_kernel.ops.fused_linear_cross_entropy as fused
from ftx.chunked_loss import AfterHead, liger_loss, summed_loss
for after in (AfterHead(), AfterHead(1.5)):
    found = []
    for of in (liger_loss, summed_loss):
        torch.manual_seed(0)
        inputs = [torch.randn(*shape, requires_grad=True) for shape in ((9, 16), (50, 16), (50,))]
        loss = of(*inputs, torch.arange(9) * 5, after)
        (loss / 7).backward()
        found.append([loss, *(part.grad for part in inputs)])
    for liger, ours in zip(*found, strict=True):
        torch.testing.assert_close(liger, ours, rtol=1e-5, atol=1e-6)
print("equal")
"""


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is None, reason="liger-kernel is not installed: ftx[gpu]")
def test_ligers_loss_equals_ours():
    """In Triton's interpreter, which has to be chosen before Triton is imported."""
    command = ["env", "TRITON_INTERPRET=1", sys.executable, "-c", LIGER]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert ended.stdout == "equal\n", ended.stderr
