"""``python -m ftx.exports.registry_check RUN_FOLDER PART MODEL PID``: ask what MLflow loads, and the trained model.

A process of its own, as whoever takes the version out of the registry has one. It prints as JSON what answers differ.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from ftx.environment import child_environment
from ftx.errors import ExitCode, ExportFailed, UserError
from ftx.exports.parts import place_of
from ftx.exports.sides import in_32_bits, on_a_processor
from ftx.processes import die_with
from ftx.run_folder import RunFolder

QUESTIONS = ("Hello! Who are you?", "Name three colours of the sky.", "2 + 2 =")
# Tokens of an answer.
LONGEST = 24


def check_registered(folder: RunFolder, part: str, model: str) -> None:
    """``model``: what MLflow loads it by. Raises ExportFailed where its answers are not those of the trained one."""
    command = ["ftx.exports.registry_check", str(folder.path), part, model, str(os.getpid())]
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        env=child_environment(torch.get_num_threads()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if ended.returncode == ExitCode.USER_MISTAKE:
        raise UserError(f"{said}; export.check=false registers without a check")
    if ended.returncode != ExitCode.FINISHED:
        raise ExportFailed(f"the check of what was registered did not come to an end: {said}")
    different = json.loads(ended.stdout.splitlines()[-1])
    if different:
        question, trained, registered = different[0]
        raise ExportFailed(
            f"what MLflow loads is not the model that was trained, and counts as not registered: asked {question!r} it "
            f"says {registered!r} in place of {trained!r}"
        )


def differences(folder: RunFolder, part: str, model: str) -> list[tuple[str, str, str]]:
    """Question, answer of the trained model, and of what MLflow loads where that is another; greedy, in 32 bits.

    The merged model's answers are those of its folder, which was compared with the trained one when it was made.
    """
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


def main(arguments: Sequence[str]) -> ExitCode:
    """Ends with the process that started it."""
    run_folder, part, model, parent = arguments
    die_with(int(parent))
    disable_progress_bar()
    try:
        found = differences(RunFolder(Path(run_folder)), part, model)
    except UserError as mistake:
        sys.stderr.write(f"{mistake}\n")
        return ExitCode.USER_MISTAKE
    sys.stdout.write(json.dumps(found) + "\n")
    return ExitCode.FINISHED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
