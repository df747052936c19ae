"""Packed attention against separate segments: naive softmax in float64, PyTorch's own kernel, and whole models."""

import math
from itertools import accumulate, pairwise

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from ftx.attention import (
    PACKED_CPU,
    PLAIN_UP_TO,
    check_packable,
    packed_cpu_attention,
    register,
    unpacked_attention,
)
from ftx.data.segments import Segments
from ftx.errors import UserError

MODULE = torch.nn.Module()
# Both ways of computing are in it, segments of one token, and several of a similar length.
LENGTHS = (1, 600, 3, PLAIN_UP_TO, 17, 16, PLAIN_UP_TO + 1, 1, 9, 300)

pytestmark = pytest.mark.usefixtures("one_thread")


def random_qkv(tokens: int, heads: int, kv_heads: int, dtype=torch.float32, dim: int = 8):
    draw = torch.Generator().manual_seed(tokens)
    shapes = ((1, heads, tokens, dim), (1, kv_heads, tokens, dim), (1, kv_heads, tokens, dim))
    return [torch.randn(shape, generator=draw).to(dtype).requires_grad_() for shape in shapes]


def segments_of(lengths, shared: int = 0) -> Segments:
    return Segments(tuple(accumulate(lengths, initial=0)), shared)


def naive(query, key, value, lengths, scale: float, window: int | None) -> torch.Tensor:
    """Each segment alone, softmax written out."""
    outputs = []
    repeats = query.shape[1] // key.shape[1]
    parts = query, key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    for q, k, v in zip(*(part.split(list(lengths), dim=2) for part in parts), strict=True):
        distance = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])
        seen = (distance >= 0) & (distance < (window or math.inf))
        scores = (torch.einsum("bhqd,bhkd->bhqk", q, k) * scale).masked_fill(~seen, -math.inf)
        outputs.append(torch.einsum("bhqk,bhkd->bqhd", scores.softmax(-1), v))
    return torch.cat(outputs, dim=1)


def gradients(output, inputs):
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((output * weights.to(output.dtype)).sum(), inputs)


@pytest.mark.parametrize(("heads", "kv_heads", "window"), [(2, 2, None), (4, 2, 5), (4, 2, 280), (3, 1, 1000)])
def test_outputs_and_gradients_equal_naive_softmax_of_each_segment_in_float64(heads, kv_heads, window):
    inputs = random_qkv(sum(LENGTHS), heads, kv_heads)
    exact = [part.detach().double().requires_grad_() for part in inputs]
    output, _ = packed_cpu_attention(
        MODULE, *inputs, None, segments=segments_of(LENGTHS), scaling=0.3, sliding_window=window
    )
    expected = naive(*exact, LENGTHS, 0.3, window)
    torch.testing.assert_close(output.double(), expected, atol=2e-6, rtol=1e-5)
    for ours, right in zip(gradients(output, inputs), gradients(expected, exact), strict=True):
        torch.testing.assert_close(ours.double(), right, atol=2e-5, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 40) | st.integers(1, 600), min_size=1, max_size=8))
def test_any_mixture_of_lengths_equals_pytorchs_kernel_on_each_segment(lengths):
    inputs = random_qkv(sum(lengths), 4, 2)
    with torch.no_grad():
        output, _ = packed_cpu_attention(MODULE, *inputs, None, segments=segments_of(lengths))
        parts = zip(*(part.split(lengths, dim=2) for part in inputs), strict=True)
        expected = [scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True) for part in parts]
    torch.testing.assert_close(output, torch.cat(expected, dim=2).transpose(1, 2), atol=2e-6, rtol=1e-5)


def test_bf16_is_as_close_to_float64_as_bf16_can_be():
    inputs = random_qkv(sum(LENGTHS), 4, 2, torch.bfloat16)
    exact = [part.detach().double().requires_grad_() for part in inputs]
    output, _ = packed_cpu_attention(MODULE, *inputs, None, segments=segments_of(LENGTHS))
    expected = naive(*exact, LENGTHS, 8**-0.5, None)
    assert output.dtype == torch.bfloat16
    pairs = zip([output, *gradients(output, inputs)], [expected, *gradients(expected, exact)], strict=True)
    for ours, right in pairs:
        assert ours.dtype == torch.bfloat16
        assert float(((ours.double() - right).norm() / right.norm()).detach()) < 0.01


SHARED = 21


@pytest.mark.parametrize(("heads", "kv_heads", "window"), [(2, 2, None), (4, 2, 30), (4, 2, 280)])
def test_a_shared_beginning_is_attended_to_as_if_every_segment_had_its_own(heads, kv_heads, window):
    """The reference repeats it before every segment; what flows back into it is then the sum over the repeats."""
    inputs = random_qkv(SHARED + sum(LENGTHS), heads, kv_heads)
    output, _ = packed_cpu_attention(
        MODULE, *inputs, None, segments=segments_of((SHARED, *LENGTHS), SHARED), sliding_window=window
    )
    exact = [part.detach().double().requires_grad_() for part in inputs]
    whole = [part.split([SHARED, *LENGTHS], dim=2) for part in exact]
    repeated = [torch.cat([piece for own in own_ones for piece in (first, own)], 2) for first, *own_ones in whole]
    lengths = [SHARED + length for length in LENGTHS]
    alone = naive(*repeated, lengths, 8**-0.5, window).split(lengths, dim=1)
    expected = torch.cat([alone[0][:, :SHARED], *(one[:, SHARED:] for one in alone)], dim=1)
    torch.testing.assert_close(output.double(), expected, atol=2e-6, rtol=1e-5)
    for ours, right in zip(gradients(output, inputs), gradients(expected, exact), strict=True):
        torch.testing.assert_close(ours.double(), right, atol=5e-5, rtol=1e-4)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=9), st.integers(0, 20))
def test_segments_tell_every_kernel_the_same(own, shared):
    """Keys laid out for FlashAttention, and padded groups, against a list of what each query may see."""
    lengths = [shared, *own] if shared else own
    segments = segments_of(lengths, shared)
    seen = [[*range(shared if start else 0), *range(start, end)] for start, end in pairwise(segments.borders)]
    positions = segments.key_positions
    keys = list(range(sum(lengths))) if positions is None else positions.tolist()
    assert [keys[a:b] for a, b in pairwise(segments.key_borders.tolist())] == seen
    assert segments.query_borders.tolist() == list(segments.borders)
    assert segments.longest == max(lengths)
    found = {}
    for group in segments.alike:
        for queries, group_keys in zip(group.queries.tolist(), group.keys.tolist(), strict=True):
            length = sum(position >= 0 for position in queries)
            assert group_keys[group.shared + length :] == [-1] * (len(queries) - length)
            found[queries[0]] = group_keys[: group.shared + length]
            assert found[queries[0]][group.shared :] == queries[:length]
    assert [found[start] for start in segments.borders[:-1]] == seen
    padded = torch.cat([group.queries.flatten() for group in segments.alike])
    assert padded[segments.places].tolist() == list(range(sum(lengths)))


def test_without_borders_the_row_is_one_segment():
    inputs = random_qkv(50, 2, 2)
    output, _ = packed_cpu_attention(MODULE, *inputs, None)
    torch.testing.assert_close(output, naive(*inputs, (50,), 8**-0.5, None), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("option", ["softcap", "s_aux"])
def test_a_model_that_needs_more_than_softmax_is_refused(option):
    with pytest.raises(ValueError, match=option):
        packed_cpu_attention(MODULE, *random_qkv(4, 2, 2), None, **{option: torch.ones(1)})


def test_a_batch_of_rows_and_a_cache_are_refused_instead_of_mixed_up():
    query, key, value = random_qkv(4, 2, 2)
    with pytest.raises(ValueError, match="one flat row and no cache"):
        packed_cpu_attention(MODULE, *(torch.cat([part, part]) for part in (query, key, value)), None)
    with pytest.raises(ValueError, match="one flat row and no cache"):
        packed_cpu_attention(MODULE, query[:, :, :1], key, value, None)


SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.mark.parametrize(
    ("model_class", "config_class"), [(Qwen3ForCausalLM, Qwen3Config), (LlamaForCausalLM, LlamaConfig)]
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_whole_model_on_a_packed_row_equals_it_on_separate_sequences(model_class, config_class, use_cache):
    torch.manual_seed(0)
    model = model_class(config_class(**SIZES))
    lengths = [5, 300, 1, 40, 7, 33]
    ids = torch.randint(0, 90, (1, sum(lengths)))
    targets = torch.randint(0, 90, (sum(lengths),))

    model.set_attn_implementation("eager")
    separate = torch.cat([model(input_ids=piece).logits[0] for piece in ids.split(lengths, dim=1)])
    cross_entropy(separate, targets).backward()
    expected = {name: weights.grad for name, weights in model.named_parameters()}
    model.zero_grad()

    register()
    model.set_attn_implementation(PACKED_CPU)
    packed = model(
        input_ids=ids,
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        segments=segments_of(lengths),
        use_cache=use_cache,
    ).logits[0]
    cross_entropy(packed, targets).backward()
    torch.testing.assert_close(packed, separate, atol=1e-5, rtol=1e-5)
    for name, weights in model.named_parameters():
        torch.testing.assert_close(
            weights.grad, expected[name], atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_generations_attention_is_undone_also_after_an_error():
    register()
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES))
    model.set_attn_implementation(PACKED_CPU)
    with pytest.raises(KeyError), unpacked_attention(model):
        assert model.config._attn_implementation == "sdpa"
        raise KeyError
    assert model.config._attn_implementation == PACKED_CPU


@pytest.mark.parametrize("name", ["Qwen3", "Llama", "Gemma2", "GPTNeoX"])
def test_models_of_attention_alone_can_be_packed(name):
    check_packable(one_of(name))


@pytest.mark.parametrize(
    ("name", "reason"), [("GPTJ", "cannot be replaced"), ("Mamba", "linear_attention"), ("Lfm2", "conv")]
)
def test_models_that_would_look_across_borders_are_refused(name, reason):
    with pytest.raises(UserError, match=rf"^model.name=.*{name.lower()} cannot be trained here, .*{reason}"):
        check_packable(one_of(name))


def one_of(name: str):
    """A model of another family, without memory for its weights."""
    sizes = {"GPTJ": {"n_layer": 1}, "Lfm2": {"num_hidden_layers": 2, "layer_types": ["conv"] * 2}}
    config = getattr(transformers, f"{name}Config")(**sizes.get(name, {"num_hidden_layers": 1}))
    with torch.device("meta"):
        return getattr(transformers, f"{name}ForCausalLM")(config)
