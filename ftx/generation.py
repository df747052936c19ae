"""Greedy answers to many prompts, batched by length."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import GenerationConfig, PreTrainedModel

from ftx.attention import unpacked_attention


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop_ids: Sequence[int],
    pad_id: int,
    on_done: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """The new tokens for each prompt, in the order of the prompts, without the stop token and what follows it.

    Prompts of similar length share a batch and are padded on the left. ``on_done`` hears how many are finished.
    """
    was_training = model.training
    model.eval()
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda at: (len(prompts[at]), at))
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=list(stop_ids) or None, pad_token_id=pad_id
    )
    with unpacked_attention(model), _own_settings_put_aside(model):
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            tokens, mask = _left_padded([prompts[at] for at in chosen], pad_id, model.device)
            generated: torch.Tensor = model.generate(  # type: ignore[operator]
                input_ids=tokens, attention_mask=mask, generation_config=settings
            )
            for at, answer in zip(chosen, generated[:, tokens.shape[1] :].tolist(), strict=True):
                answers[at] = _until_stop(answer, stop_ids)
            if on_done:
                on_done(begin + len(chosen))
    model.train(was_training)
    return answers


@contextmanager
def _own_settings_put_aside(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model's generation_config.json (sampling, penalties) does not fill in what a caller leaves out."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask, ``[prompts, longest]``."""
    longest = max(map(len, prompts))
    tokens = torch.full((len(prompts), longest), pad_id)
    mask = torch.zeros_like(tokens)
    for at, prompt in enumerate(prompts):
        tokens[at, longest - len(prompt) :] = torch.tensor(prompt)
        mask[at, longest - len(prompt) :] = 1
    return tokens.to(device), mask.to(device)


def _until_stop(answer: list[int], stop_ids: Sequence[int]) -> list[int]:
    end = next((at for at, token in enumerate(answer) if token in stop_ids), len(answer))
    return answer[:end]
