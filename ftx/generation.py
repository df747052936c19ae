"""Answers of a model to many prompts, batched by length, greedy or drawn."""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import Cache, GenerationConfig, LogitsProcessor, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from ftx.attention import unpacked_attention
from ftx.counter_random import random_bits

# Tokens from which on it pays to go through what prompts begin with apart.
WORTH_SHARING = 16


@dataclass(frozen=True)
class Draw:
    """How an answer is drawn instead of taken greedily; ``key`` (64 bits) and the token's place say what comes."""

    key: int
    temperature: float
    top_p: float = 1.0


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop_ids: Sequence[int],
    pad_id: int,
    draws: Sequence[Draw] | None = None,
    on_batch: Callable[[list[int], list[list[int]]], None] | None = None,
    streamer: BaseStreamer | None = None,
) -> list[list[int]]:
    """The new tokens for each prompt, in the order of the prompts, without the stop token and what follows it.

    Prompts of similar length share a batch and are padded on the left. ``draws``: one for each prompt, all or none at
    temperature 0. ``on_batch`` hears which prompts were answered, and how; ``streamer``, where there is one prompt, the
    prompt and then each token as it comes.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    if not prompts:
        return answers
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=list(stop_ids) or None, pad_token_id=pad_id
    )
    with ready_to_answer(model):
        beginning = Beginning.of(model, prompts)
        for chosen in batches_by_length(prompts, batch_size):
            tokens, mask = beginning.before(left_padded([beginning.rest(prompts[at]) for at in chosen], pad_id, model))
            drawing = [Drawing([draws[at] for at in chosen], tokens.shape[1])] if draws else []
            generated: torch.Tensor = model.generate(  # type: ignore[operator]
                input_ids=tokens,
                attention_mask=mask,
                generation_config=settings,
                logits_processor=drawing,
                past_key_values=beginning.repeated(len(chosen)),
                streamer=streamer,
            )
            for at, answer in zip(chosen, generated[:, tokens.shape[1] :].tolist(), strict=True):
                answers[at] = _until_stop(answer, stop_ids)
            if on_batch:
                on_batch(chosen, [answers[at] for at in chosen])
    return answers


@dataclass(frozen=True)
class Beginning:
    """What all prompts begin with, such as a system prompt, gone through the model once; each batch goes on from there.

    ``cache`` is None where that is too little to gain anything; ``tokens`` is empty then.
    """

    tokens: tuple[int, ...]
    cache: Cache | None

    @classmethod
    def of(cls, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> "Beginning":
        """To be called within ``ready_to_answer``."""
        # The last token of a prompt is always left, for what follows it is foretold there.
        alike = len(os.path.commonprefix([list(prompt[:-1]) for prompt in prompts]))  # noqa: RUF071 - of lists
        if len(prompts) < 2 or alike < WORTH_SHARING:
            return cls((), None)
        tokens = tuple(prompts[0][:alike])
        cache = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=True, logits_to_keep=1)
        return cls(tokens, cache.past_key_values)

    def rest(self, prompt: Sequence[int]) -> Sequence[int]:
        return prompt[len(self.tokens) :]

    def before(self, padded: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and mask of whole prompts: the beginning, then padding, then the rest of each."""
        tokens, mask = padded
        begin = torch.tensor(self.tokens, dtype=tokens.dtype, device=tokens.device).expand(len(tokens), -1)
        return torch.cat([begin, tokens], dim=1), torch.cat([torch.ones_like(begin), mask], dim=1)

    def repeated(self, times: int) -> Cache | None:
        """For a batch of so many, to be written on."""
        if self.cache is None:
            return None
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(times)
        return cache


def batches_by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Places of prompts of similar length, the longest first: what does not fit into memory shows at once."""
    order = sorted(range(len(prompts)), key=lambda at: (-len(prompts[at]), at))
    return (order[begin : begin + batch_size] for begin in range(0, len(order), batch_size))


@contextmanager
def ready_to_answer(model: PreTrainedModel) -> Iterator[None]:
    """Within it nothing random happens in the model, it attends to padded batches, and no gradient is kept.

    Nor does its generation_config.json (sampling, penalties) fill in what a caller leaves out.
    """
    was_training, own = model.training, model.generation_config
    model.eval()
    model.generation_config = GenerationConfig()
    try:
        with torch.no_grad(), unpacked_attention(model):
            yield
    finally:
        model.generation_config = own
        model.train(was_training)


class Drawing(LogitsProcessor):
    """Turns the argmax that follows into a draw: softmax sampling is the argmax of logits plus Gumbel noise.

    The noise is a function of each prompt's key and of how many tokens were drawn before, so neither the other prompts
    of a batch nor the number of processes change what is drawn.
    """

    def __init__(self, draws: Sequence[Draw], prompt_length: int) -> None:
        self._keys = torch.tensor([draw.key for draw in draws])
        self._temperatures = torch.tensor([[draw.temperature] for draw in draws])
        self._top_p = torch.tensor([[draw.top_p] for draw in draws])
        self._prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        device = scores.device
        logits = scores.float() / self._temperatures.to(device)
        if bool((self._top_p < 1).any()):
            logits = _nucleus(logits, self._top_p.to(device))
        place = torch.full((len(self._keys),), input_ids.shape[1] - self._prompt_length, device=device)
        bits = random_bits(self._keys.to(device), place, logits.shape[1])
        # The highest 24 bits, as that many numbers in the open interval (0, 1).
        uniform = (((bits >> 8) & 0xFFFFFF).double() + 0.5) / 2**24
        return logits - torch.log(-torch.log(uniform)).to(logits.dtype)


def _nucleus(logits: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Only the fewest tokens that together have the probability ``top_p`` (Holtzman et al., 2020); one stays anyway."""
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    return ordered.masked_fill(before >= top_p, -torch.inf).gather(-1, order.argsort(dim=-1))


def left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, model: PreTrainedModel
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask, ``[prompts, longest]``, where the model is."""
    longest = max(map(len, prompts))
    tokens = torch.full((len(prompts), longest), pad_id)
    mask = torch.zeros_like(tokens)
    for at, prompt in enumerate(prompts):
        tokens[at, longest - len(prompt) :] = torch.tensor(prompt)
        mask[at, longest - len(prompt) :] = 1
    return tokens.to(model.device), mask.to(model.device)


def _until_stop(answer: list[int], stop_ids: Sequence[int]) -> list[int]:
    end = next((at for at, token in enumerate(answer) if token in stop_ids), len(answer))
    return answer[:end]
