"""The endpoint on a free port of loopback, asked by our own client: it says what the model in this process says."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ftx.chatting.loading import load_partner
from ftx.config.evaluation_schema import EvaluationConfig
from ftx.engines.engine import Request
from ftx.engines.local import LocalEngine
from ftx.engines.openai import OpenAIEngine
from ftx.environment import CHECKOUT
from ftx.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = ["w3 w7 w11", "how many legs?", "w1"]


@contextmanager
def serving(folder: RunFolder) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server of this run, and its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ftx.chat", str(folder.path), "--serve", "--port", "0", "--device", "cpu"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    found = re.search(rf"serving: (http://127\.0\.0\.1:\d+/v1) \(model {folder.name};", line)
    try:
        assert found, line
        yield found[1], process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(lora):
    """Of the run with an adapter."""
    with serving(lora) as one:
        yield one


def asked(url: str, path: str, headers: dict[str, str] | None = None, **body: object) -> dict:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"{url}{path}", data, {"Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_it_answers_as_the_model_here(server, lora):
    url, _ = server
    partner = load_partner(lora, lora.read_run(), lora.name)
    requests = [Request(text, ({"role": "user", "content": text},), max_new_tokens=8) for text in QUESTIONS]
    expected = LocalEngine(partner.model, partner.tokenizer, partner.template, 1).answer(requests)
    # The only model that it says it has is asked.
    answers = OpenAIEngine(EvaluationConfig(engine="openai", url=url, batch_size=2)).answer(requests)
    assert [answer.error for answer in answers] == [""] * 3
    # Servers leave control tokens out of what they send.
    special = re.compile("|".join(map(re.escape, partner.tokenizer.all_special_tokens)))
    assert [answer.text for answer in answers] == [special.sub("", answer.text) for answer in expected]
    assert [answer.prompt_tokens for answer in answers] == [answer.prompt_tokens for answer in expected]
    with partner.speaking(base=True) as before:
        base = LocalEngine(before, partner.tokenizer, partner.template, 1).answer(requests)
    assert [answer.text for answer in base] != [answer.text for answer in expected]


def test_what_was_trained_in_16_bits_is_served_in_them(in_16_bits):
    """Generated in threads that know nothing of what was switched on in others."""
    partner = load_partner(in_16_bits, in_16_bits.read_run(), in_16_bits.name)
    requests = [Request(text, ({"role": "user", "content": text},), max_new_tokens=8) for text in QUESTIONS]
    expected = LocalEngine(partner.model, partner.tokenizer, partner.template, 1).answer(requests)
    with serving(in_16_bits) as (url, _):
        answers = OpenAIEngine(EvaluationConfig(engine="openai", url=url, batch_size=2)).answer(requests)
    special = re.compile("|".join(map(re.escape, partner.tokenizer.all_special_tokens)))
    assert [answer.error for answer in answers] == [""] * 3
    assert [answer.text for answer in answers] == [special.sub("", answer.text) for answer in expected]


def test_it_has_this_model_alone(server, lora):
    url, _ = server
    assert [one["id"] for one in asked(url, "/models")["data"]] == [lora.name]
    hello = [{"role": "user", "content": "w1"}]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        asked(url, "/chat/completions", model="another/one", messages=hello, max_tokens=2)
    assert asked(url, "/chat/completions", model=lora.name, messages=hello, max_tokens=2)["model"].startswith(lora.name)


def test_drawn_answers_differ_and_follow_the_seed(server, lora):
    def drawn(seed: int) -> str:
        messages = [{"role": "user", "content": "w1"}]
        settings = {"max_tokens": 8, "temperature": 1.5, "seed": seed}
        return asked(server[0], "/chat/completions", model=lora.name, messages=messages, **settings)["choices"][0][
            "message"
        ]["content"]

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(4)}) > 1


def test_pages_that_call_this_machine_otherwise_are_refused(server):
    with pytest.raises(urllib.error.HTTPError, match="400"):
        asked(server[0], "/models", {"Host": "evil.example"})


def test_a_signal_is_how_it_ends(server):
    _, process = server
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "ended\n")
