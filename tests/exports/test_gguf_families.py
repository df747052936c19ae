"""Each family: the adapter merged, the merged model as a file, and llama.cpp beside transformers on both."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from export_models import FAMILIES, adapted, greedy, save_model, texts, tiny_tokenizer, write_chats
from real_data import real_path
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config

from ftx.errors import UserError
from ftx.exports.base import saved_tokenizer
from ftx.exports.check_process import normalized
from ftx.exports.comparison import GGUF, compare_logits
from ftx.exports.gguf_file import plan_gguf, write_gguf
from ftx.exports.llama_cpp import LlamaCpp
from ftx.exports.merging import plan_merge, write_merged
from ftx.models import load_trained

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = [3, 80, 300, 17, 45, 261, 90, 400, 5, 77, 123, 222, 9, 333, 500, 44, 61, 62, 63, 300, 2, 1, 70, 7]
# Where in TOKENS a prompt of five begins after which the two likeliest tokens are never near each other: a gap that is
# a thousand times what processors differ by in the sums of 32-bit numbers.
PROMPTS = {"qwen3 tied": 2, "qwen3 untied": 0, "qwen2": 17, "olmo2": 15, "llama": 7, "llama3.1": 16}
GAP = 4e-3


@pytest.fixture(scope="module", params=FAMILIES)
def merged(request, tmp_path_factory) -> tuple[Path, np.ndarray]:
    """The merged model's folder, and what the base with its adapter says of TOKENS."""
    folder = tmp_path_factory.mktemp("family")
    base = save_model(folder / "base", FAMILIES[request.param], tiny_tokenizer())
    described, run = adapted(folder / "run", base, write_chats(folder / "chats.jsonl"))
    write_merged(plan_merge(described, run), folder / "merged")
    trained = load_trained(described.model, run, AutoTokenizer.from_pretrained(base)).eval()
    with torch.no_grad():
        return folder / "merged", trained(input_ids=torch.tensor([TOKENS]), use_cache=False).logits[0].numpy()


def by_transformers(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def by_llama_cpp(folder: Path, kind: str) -> LlamaCpp:
    file = folder.parent / f"{kind}.gguf"
    write_gguf(plan_gguf(folder, kind), file, "test")
    return LlamaCpp(file, context=300, threads=1)


def test_merged_logits_are_those_of_base_and_adapter(merged):
    folder, expected = merged
    with torch.no_grad():
        found = by_transformers(folder)(input_ids=torch.tensor([TOKENS])).logits[0].numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_llama_cpp_writes_what_transformers_writes(merged, request):
    folder, expected = merged
    model = by_llama_cpp(folder, "f32")
    assert compare_logits([expected], [model.logits(TOKENS)]).relative < 1e-5
    begin = PROMPTS[request.node.callspec.params["merged"]]
    prompt = TOKENS[begin : begin + 5]
    answer, gap = greedy(by_transformers(folder), prompt)
    assert len(set(answer)) > 20
    assert gap > GAP
    assert model.answer(prompt, most=200) == answer
    model.close()


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_k_m", "q5_k_m", "q6_k"])
def test_shorter_numbers_move_logits_less_than_their_bound_and_more_than_nothing(merged, kind):
    folder, expected = merged
    model = by_llama_cpp(folder, kind)
    difference = compare_logits([expected], [model.logits(TOKENS)])
    assert 1e-5 < difference.relative < GGUF[kind].relative
    assert difference.kl < GGUF[kind].kl
    model.close()


def test_a_thousand_texts_have_the_same_tokens(merged):
    folder, _ = merged
    model, tokenizer = by_llama_cpp(folder, "f32"), saved_tokenizer(folder)
    assert differing(model, tokenizer) == []
    ends = {token for token in range(512) if model.ends(token)}
    assert {tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.convert_tokens_to_ids("<|endoftext|>")} == ends
    model.close()


@pytest.mark.parametrize(("name", "taken_for_control"), [("qwen3", ["</s>"]), ("olmo2_dolma2", [])])
def test_a_thousand_texts_have_the_same_tokens_by_a_published_tokenizer(name, taken_for_control, tmp_path):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(real_path(f"tokenizers/{name}") / "tokenizer.json"))
    tokenizer.eos_token = "<|endoftext|>"
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = Qwen3Config(**sizes, vocab_size=len(tokenizer) + 5, num_key_value_heads=1, head_dim=32)
    model = by_llama_cpp(save_model(tmp_path / "model", config, tokenizer), "f16")
    assert differing(model, tokenizer, taken_for_control) == []
    # What only looks like a control token llama.cpp takes for one, whatever the file says.
    looks = {tokenizer.convert_ids_to_tokens(token) for token in model.controls()} - set(tokenizer.get_added_vocab())
    assert looks == set(taken_for_control)
    model.close()


def differing(model: LlamaCpp, tokenizer: PreTrainedTokenizerFast, without: Sequence[str] = ()) -> list[str]:
    """Of 1,000 texts, those that get other tokens; llama.cpp is given what the normalizer leaves."""
    made = [text for text in texts(1010, list(tokenizer.get_added_vocab())) if not any(one in text for one in without)]
    assert len(set(made)) >= 1000
    return [
        text
        for text in made
        if model.tokenize(normalized(tokenizer, text)) != tokenizer.encode(text, add_special_tokens=False)
    ]


def test_what_llama_cpp_has_no_equal_of_is_refused(tmp_path):
    from transformers import GPT2Config

    tokenizer = tiny_tokenizer()
    folder = save_model(tmp_path / "gpt2", GPT2Config(vocab_size=512, n_embd=32, n_layer=1, n_head=2), tokenizer)
    with pytest.raises(UserError, match=r"the model is a gpt2, and files for llama\.cpp can be made of llama, qwen2"):
        plan_gguf(folder, "f32")
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    folder = save_model(tmp_path / "digits", FAMILIES["olmo2"], tokenizer)
    with pytest.raises(UserError, match=r"llama\.cpp cuts no text as this model's tokenizer does"):
        write_gguf(plan_gguf(folder, "f32"), tmp_path / "x.gguf", "x")
