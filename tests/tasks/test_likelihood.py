"""The likelihoods of all answers from one pass, against each answer alone behind its question."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from ftx.attention import PACKED_CPU, register
from ftx.generation import Beginning, ready_to_answer
from ftx.tasks.likelihood import Tree, log_likelihoods

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
}
# Alike at the beginning, one the beginning of another, one of a single token.
ANSWERS = [[5, 6, 7, 9], [5, 6, 8, 9], [5, 6, 8], [11], [5, 12, 9, 9, 9]]
QUESTIONS = [[1, 2, 3, 4, 5], [7], [9, 8, 7, 6, 5, 4, 3, 2, 1], [5, 6, 8]]


@pytest.fixture(params=[(Qwen3ForCausalLM, Qwen3Config), (LlamaForCausalLM, LlamaConfig)], ids=["qwen3", "llama"])
def model(request):
    model_class, config_class = request.param
    torch.manual_seed(0)
    register()
    model = model_class(config_class(**SIZES)).eval()
    model.set_attn_implementation(PACKED_CPU)
    return model


@torch.no_grad()
def alone(model, question: list[int], answer: list[int]) -> float:
    logits = model(input_ids=torch.tensor([question + answer]), use_cache=False).logits[0].double()
    foretold = logits[len(question) - 1 : -1].log_softmax(dim=-1)
    return float(foretold.gather(1, torch.tensor(answer)[:, None]).sum())


# What all of them begin with decides nothing, and is left out of what is foretold.
SIMILAR = [[30, 31, *answer] for answer in ANSWERS]


@pytest.mark.parametrize("answers", [ANSWERS, SIMILAR], ids=["different", "alike at the beginning"])
@pytest.mark.parametrize("alike", [0, 20])
@pytest.mark.parametrize("together", [1, 4])
def test_each_answer_is_as_likely_as_alone_behind_its_question(model, together, alike, answers):
    questions = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3] * (alike // 10) + question for question in QUESTIONS]
    first = answers[0][:2] if answers is SIMILAR else []
    rest = [answer[len(first) :] for answer in answers]
    expected = torch.tensor([[alone(model, question + first, answer) for answer in rest] for question in questions])
    tree = Tree.of(answers)
    with ready_to_answer(model):
        beginning = Beginning.of(model, questions)
        assert len(beginning.tokens) == alike
        found = torch.cat(
            [
                log_likelihoods(model, questions[at : at + together], tree, beginning, pad_id=0)
                for at in range(0, len(questions), together)
            ]
        )
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


def test_what_answers_begin_with_alike_is_in_the_tree_once():
    tree = Tree.of(ANSWERS)
    assert len(tree.tokens) == len({tuple(answer[:end]) for answer in ANSWERS for end in range(1, len(answer) + 1)})
    assert [[tree.tokens[node] for node in path] for path in tree.paths] == ANSWERS
