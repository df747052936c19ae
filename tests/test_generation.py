"""Greedy answers against a loop that runs the whole model again for every token."""

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from ftx.attention import PACKED_CPU, register
from ftx.generation import generate

VOCABULARY = 50
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
}
PROMPTS = [
    [1 + (7 * at + at * at * number) % 49 for at in range(length)]
    for number, length in enumerate((9, 2, 23, 1, 5, 14, 2))
]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=[(Qwen3ForCausalLM, Qwen3Config), (LlamaForCausalLM, LlamaConfig)], ids=["qwen3", "llama"])
def model(request):
    model_class, config_class = request.param
    torch.manual_seed(0)
    register()
    model = model_class(config_class(**SIZES))
    model.set_attn_implementation(PACKED_CPU)
    return model


@torch.no_grad()
def by_argmax(model, prompt: list[int], most: int, stop_ids: list[int]) -> list[int]:
    """Packed attention takes the prompt as one segment; no cache, no padding."""
    model.eval()
    ids: list[int] = []
    while len(ids) < most:
        logits = model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0, -1]
        token = int(logits.argmax())
        if token in stop_ids:
            break
        ids.append(token)
    return ids


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_what_prompts_begin_with_alike_is_computed_once(model, batch_size):
    """The same answers, and no pass over more tokens than the beginning once and the rest of each prompt."""
    beginning = [(5 * at + 3) % 49 + 1 for at in range(30)]
    prompts = [beginning + prompt for prompt in PROMPTS]
    expected = [by_argmax(model, prompt, 12, [3]) for prompt in prompts]
    lengths = []
    model.register_forward_pre_hook(
        lambda _, arguments, options: lengths.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    answers = generate(model, prompts, max_new_tokens=12, batch_size=batch_size, stop_ids=[3], pad_id=0)
    assert answers == expected
    assert lengths[0] == (1, 30)
    assert all(length <= max(map(len, PROMPTS)) for _, length in lengths[1:])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_answers_equal_an_argmax_loop_for_any_batch_size(model, batch_size):
    free = [by_argmax(model, prompt, 12, []) for prompt in PROMPTS]
    # Tokens that end some answers early, one of them at once, and others not at all.
    stop_ids = sorted({free[0][0], free[2][5]})
    expected = [by_argmax(model, prompt, 12, stop_ids) for prompt in PROMPTS]
    lengths = {len(answer) for answer in expected}
    assert 0 in lengths
    assert len(lengths) > 2
    heard: dict[int, list[int]] = {}
    sizes = []

    def hear(chosen, batch):
        heard.update(zip(chosen, batch, strict=True))
        sizes.append(len(chosen))

    answers = generate(
        model, PROMPTS, max_new_tokens=12, batch_size=batch_size, stop_ids=stop_ids, pad_id=0, on_batch=hear
    )
    assert answers == expected == [heard[at] for at in range(len(PROMPTS))]
    assert sizes == [min(batch_size, len(PROMPTS) - at) for at in range(0, len(PROMPTS), batch_size)]


def test_what_a_checkpoint_says_about_sampling_and_penalties_does_not_apply(model):
    expected = [by_argmax(model, prompt, 12, [3]) for prompt in PROMPTS]
    own = GenerationConfig(do_sample=True, temperature=3.0, repetition_penalty=5.0, eos_token_id=7, max_length=10)
    model.generation_config = own
    answers = generate(model, PROMPTS, max_new_tokens=12, batch_size=4, stop_ids=[3], pad_id=0)
    assert answers == expected
    assert model.generation_config is own


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(model, training):
    model.train(training)
    generate(model, PROMPTS, max_new_tokens=2, batch_size=4, stop_ids=[3], pad_id=0)
    assert model.training is training
    assert model.config._attn_implementation == PACKED_CPU
