"""``python -m ftx.exports.registry_check RUN_FOLDER PART MODEL RESULT PID``: ask what MLflow loads, and the trained
model, and write what answers differ. ``MODEL``: what MLflow loads it by."""

import gc
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ftx.exports.apart import answer_apart
from ftx.exports.parts import place_of
from ftx.exports.sides import in_32_bits, on_a_processor
from ftx.run_folder import RunFolder

QUESTIONS = ("Hello! Who are you?", "Name three colours of the sky.", "2 + 2 =")
# Tokens of an answer.
LONGEST = 24


def main(run_folder: str, part: str, model: str) -> list[tuple[str, str, str]]:
    """Question, answer of the trained model, and of what MLflow loads where that is another; greedy, in 32 bits.

    The merged model's answers are those of its folder, which was compared with the trained one when it was made.
    """
    folder = RunFolder(Path(run_folder))
    expected = _of_folder(folder, part)
    gc.collect()
    found = _of_mlflow(folder, model)
    return [one for one in zip(QUESTIONS, expected, found, strict=True) if one[1] != one[2]]


def _of_folder(folder: RunFolder, part: str) -> list[str]:
    from ftx.chatting.loading import template_in
    from ftx.engines.engine import Request
    from ftx.engines.local import LocalEngine
    from ftx.models import load_trained

    run, place = folder.read_run(), place_of(folder, part)
    tokenizer: Any = AutoTokenizer.from_pretrained(place)
    model: PreTrainedModel
    if part == "merged":
        model = AutoModelForCausalLM.from_pretrained(place)
    else:
        model = load_trained(place, on_a_processor(run), tokenizer)
    engine = LocalEngine(in_32_bits(model), tokenizer, template_in(run, tokenizer), 1)
    answers = engine.answer([Request(one, tuple(_asked(one)), max_new_tokens=LONGEST) for one in QUESTIONS])
    return [_as_sent(tokenizer, answer.text) for answer in answers]


def _as_sent(tokenizer: Any, text: str) -> str:
    """MLflow's chat leaves control tokens out."""
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return text.strip()


def _of_mlflow(folder: RunFolder, model: str) -> list[str]:
    import mlflow

    mlflow.set_tracking_uri(folder.read_run().tracking.uri)
    loaded: Any = mlflow.pyfunc.load_model(model)
    pipeline = loaded.get_raw_model()
    pipeline.model = in_32_bits(pipeline.model.to("cpu"))
    pipeline.device = torch.device("cpu")
    answers = [loaded.predict({"messages": _asked(one), "max_tokens": LONGEST}) for one in QUESTIONS]
    return [str(answer[0]["choices"][0]["message"]["content"]).strip() for answer in answers]


def _asked(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


if __name__ == "__main__":
    sys.exit(answer_apart(sys.argv[1:], main))
