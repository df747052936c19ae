"""generation_config.json beside a trained model: whoever loads it elsewhere has answers end where they should."""

import copy
from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerFast

from ftx.data.tokenize import end_of_answer

FILE = "generation_config.json"


def write_generation_settings(folder: Path, base: GenerationConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """The base's own settings, and the tokens that end an answer: where the base stopped, and where its template does.

    Beside adapters too, whose own format has no place for it. What the base brought is not judged here: a training that
    is over does not fail of a temperature without sampling.
    """
    settings: GenerationConfig = copy.deepcopy(base)
    ends = {*as_list(settings.eos_token_id), *end_of_answer(tokenizer)}
    settings.eos_token_id = sorted(ends) if len(ends) > 1 else next(iter(ends), None)
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id
    settings.to_json_file(folder / FILE)


def as_list(tokens: int | list[int] | None) -> list[int]:
    """What a generation_config.json has as one token, several or none."""
    return [tokens] if isinstance(tokens, int) else list(tokens or [])


def let_it_be_written(settings: GenerationConfig) -> None:
    """transformers loads a temperature without sampling, as some models on the hub have it, and refuses to save it."""
    try:
        settings.validate(strict=True)
    except ValueError:
        settings.do_sample = True
