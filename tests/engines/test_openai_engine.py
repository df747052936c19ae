"""A real server of transformers, with a small random model, answers as the model in this process does."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import small_model
from small_model import QUESTIONS, TEMPLATE, asked

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.engines.local import LocalEngine
from ftx.engines.openai import OpenAIEngine, _as_sent
from ftx.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("served")
    tokenizer = small_model.tokenizer()
    model = small_model.model(len(tokenizer))
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def url(folder, tmp_path_factory):
    """Where it listens; the port is the system's choice, and stands in what the server says."""
    (cache := folder / "hub").mkdir()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", "0"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):
                yield f"{found[1]}/v1"
                return
        pytest.fail(f"the server ended: {said}")
    finally:
        process.kill()
        process.wait()


def engine(url: str, folder: Path, **settings) -> OpenAIEngine:
    return OpenAIEngine(EvaluationConfig(engine="openai", url=url, served_model=str(folder), **settings))


def test_the_answers_are_those_of_the_model_in_this_process(url, folder):
    tokenizer = small_model.tokenizer()
    here = LocalEngine(small_model.model(len(tokenizer)), tokenizer, TEMPLATE, 1)
    requests = [asked(question, question, max_new_tokens=6) for question in QUESTIONS]
    heard = {}
    answers = engine(url, folder, batch_size=3).answer(requests, heard.__setitem__)
    expected = here.answer(requests)
    assert [answer.error for answer in answers] == [""] * len(QUESTIONS)
    # Servers leave control tokens out of what they send.
    assert [answer.text for answer in answers] == [answer.text.replace("<|endoftext|>", "") for answer in expected]
    assert [answer.prompt_tokens for answer in answers] == [answer.prompt_tokens for answer in expected]
    assert heard == dict(enumerate(answers))


def test_a_question_that_the_server_refuses_is_counted(url):
    answers = engine(url, Path("another")).answer([asked("legs?"), asked("sky?")])
    assert [answer.finish for answer in answers] == ["failed"] * 2
    assert "another" in answers[0].error


def test_no_server_is_a_mistake_of_the_address():
    with pytest.raises(UserError, match=r"evaluation\.url=http://127\.0\.0\.1:1/v1: no answer there"):
        OpenAIEngine(EvaluationConfig(engine="openai", url="http://127.0.0.1:1/v1"))


def test_calls_of_earlier_turns_are_sent_as_the_api_has_them():
    call = {"type": "function", "function": {"name": "run", "arguments": {"code": "1 + 1"}}}
    sent = _as_sent({"role": "assistant", "content": "", "tool_calls": [call]})
    assert sent["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "run", "arguments": '{"code": "1 + 1"}'}}
    ]
