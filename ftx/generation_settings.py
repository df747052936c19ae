"""generation_config.json beside a trained model: whoever loads it elsewhere has answers end where they should."""

import copy
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from ftx.data.tokenize import end_of_answer

FILE = "generation_config.json"


def write_generation_settings(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """The base's own settings, and the tokens that end an answer: where the base stopped, and where its template does.

    Beside adapters too, whose own format has no place for it. What the base brought is not judged here: a training that
    is over does not fail of a temperature without sampling.
    """
    settings: GenerationConfig = copy.deepcopy(model.generation_config)
    ends = {*_as_list(settings.eos_token_id), *end_of_answer(tokenizer)}
    settings.eos_token_id = sorted(ends) if len(ends) > 1 else next(iter(ends), None)
    if settings.pad_token_id is None:
        settings.pad_token_id = tokenizer.pad_token_id
    settings.to_json_file(folder / FILE)


def _as_list(token: Any) -> list[int]:
    return [token] if isinstance(token, int) else list(token or [])
