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
    assert asked(url, "/chat/completions", model=lora.name, messages=hello, max_tokens=2)["model"] == lora.name


def test_drawn_answers_differ_and_follow_the_seed(server, lora):
    def drawn(seed: int) -> str:
        messages = [{"role": "user", "content": "w1"}]
        settings = {"max_tokens": 8, "temperature": 1.5, "seed": seed}
        return asked(server[0], "/chat/completions", model=lora.name, messages=messages, **settings)["choices"][0][
            "message"
        ]["content"]

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(4)}) > 1


def events(url: str, **body: object) -> list[str]:
    """What a stream sends, event by event."""
    data = json.dumps({"stream": True, **body}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [event.removeprefix("data: ") for event in answer.read().decode().split("\n\n") if event]


@pytest.mark.parametrize("length", [1, 3])
def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(server, length):
    asking = {"messages": [{"role": "user", "content": "w1"}], "max_tokens": 16, "temperature": 0}
    whole = asked(server[0], "/chat/completions", **asking)["choices"][0]["message"]["content"]
    middle = len(whole) // 2
    stop = whole[middle : middle + length]
    expected = whole[: whole.index(stop)]
    assert len(whole) > 8
    choice = asked(server[0], "/chat/completions", **asking, stop=[stop, "never said"])["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (expected, "stop")
    streamed = events(server[0], **asking, stop=stop)
    assert streamed[-1] == "[DONE]"
    chunks = [json.loads(one)["choices"][0] for one in streamed[:-1]]
    assert "".join(one["delta"].get("content", "") for one in chunks) == expected
    assert [one.get("finish_reason") for one in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["finish_reason"] == "stop"


def test_a_stream_is_the_whole_answer_and_says_that_it_is_over(server):
    asking = {"messages": [{"role": "user", "content": "w1"}], "max_tokens": 16, "temperature": 0}
    whole = asked(server[0], "/chat/completions", **asking)["choices"][0]
    *chunks, done = events(server[0], **asking)
    assert done == "[DONE]"
    read = [json.loads(one) for one in chunks]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in read) == whole["message"]["content"]
    assert read[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert read[-1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"n": 2}, "n=2: this server cannot do that", None),
        ({"logprobs": True}, "logprobs=True: this server cannot do that", None),
        ({"messages": []}, "messages: must be a list of at least one message", None),
        ({"messages": [{"role": "user", "content": "w1 " * 900}]}, "context length is 512", "context_length_exceeded"),
        ({"model": "another/one"}, "another/one", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_it_cannot_do_is_refused_as_openai_refuses_it(server, body, message, code, stream):
    given = {"messages": [{"role": "user", "content": "w1"}], "max_tokens": 2, "stream": stream, **body}
    with pytest.raises(urllib.error.HTTPError) as refused:
        asked(server[0], "/chat/completions", **given)
    assert refused.value.code == 400
    error = json.load(refused.value)["error"]
    assert message in error["message"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)


def test_an_answer_ends_where_the_model_does(server, lora):
    """However many tokens are asked for."""
    messages = [{"role": "user", "content": "w1 " * 160}]
    usage = asked(server[0], "/chat/completions", messages=messages, max_tokens=2000, temperature=0)["usage"]
    assert usage["prompt_tokens"] > 300
    assert usage["total_tokens"] <= 512


def test_pages_that_call_this_machine_otherwise_are_refused(server):
    with pytest.raises(urllib.error.HTTPError, match="400"):
        asked(server[0], "/models", {"Host": "evil.example"})


def test_a_signal_is_how_it_ends(server):
    _, process = server
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "ended\n")
