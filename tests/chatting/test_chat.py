"""Talking to real runs: the words are those of the model in this process, of the tuned one and of its base."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftx import chat
from ftx.chatting.loading import load_partner
from ftx.chatting.streaming import Pieces
from ftx.chatting.vllm import vllm_command
from ftx.config.compose import compose
from ftx.engines.engine import Request
from ftx.engines.local import LocalEngine
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.models import load_trained
from ftx.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = ["w3 w7 w11", "how many legs?", "w1"]


def said_by(model, partner, *turns: str, system: str = "", limit: int = 12) -> list[str]:
    """The greedy answers to one conversation, by the engine that scores."""
    engine = LocalEngine(model, partner.tokenizer, partner.template, 1)
    messages = [{"role": "system", "content": system}] if system else []
    answers = []
    for question in turns:
        messages.append({"role": "user", "content": question})
        (answer,) = engine.answer([Request("one", tuple(messages), max_new_tokens=limit)])
        messages.append({"role": "assistant", "content": answer.text})
        answers.append(answer.text)
    return answers


@pytest.fixture
def talk(monkeypatch, capsys):
    """``python -m ftx.chat`` with these lines through a pipe, in this process: code, stdout, stderr."""

    def ask(who: object, *lines: str, flags: tuple[str, ...] = ()) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code = chat.main([str(who), "--max-tokens", "12", "--device", "cpu", *flags])
        out, err = capsys.readouterr()
        return code, out, err

    return ask


def partner_of(folder: RunFolder):
    return load_partner(folder, folder.read_run(), folder.name)


def test_answers_are_those_of_the_trained_model(lora, talk):
    partner = partner_of(lora)
    expected = said_by(partner.model, partner, *QUESTIONS)
    code, out, err = talk(lora.path, *QUESTIONS)
    assert (code, out) == (0, "".join(f"{text}\n" for text in expected)), err


def test_what_was_trained_in_16_bits_answers_in_them(in_16_bits, talk):
    """Adapters with autocast, as they are scored; a whole model held in them."""
    run, partner = in_16_bits.read_run(), partner_of(in_16_bits)
    if run.method.name == "full":
        model = AutoModelForCausalLM.from_pretrained(in_16_bits.model, dtype=torch.bfloat16)
        expected = said_by(model, partner, *QUESTIONS)
        assert {weights.dtype for weights in partner.model.parameters()} == {torch.bfloat16}
    else:
        model = load_trained(in_16_bits.model, run, partner.tokenizer)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = said_by(model, partner, *QUESTIONS)
            with model.disable_adapter():
                before = said_by(model, partner, "w1")
        assert talk(in_16_bits.path, "/base", "w1")[:2] == (0, f"{before[0]}\n")
    code, out, err = talk(in_16_bits.path, *QUESTIONS)
    assert (code, out) == (0, "".join(f"{text}\n" for text in expected)), err


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_base_beside_the_tuned_one(kind, request, talk):
    folder = request.getfixturevalue(kind)
    partner = partner_of(folder)
    (tuned,) = said_by(partner.model, partner, "w3 w7 w11")
    with partner.speaking(base=True) as before:
        (base,) = said_by(before, partner, "w3 w7 w11")
    assert tuned != base
    lines = ["w3 w7 w11", "/reset", "/base", "w3 w7 w11", "/base", "/reset", "w3 w7 w11", "/quit", "w3"]
    code, out, err = talk(folder.name, *lines, flags=("--run-root", str(folder.path.parent)))
    assert (code, out) == (0, f"{tuned}\n{base}\n{tuned}\n")
    assert "now answers the model before its training" in err


def test_a_system_prompt_and_a_new_conversation(lora, talk):
    partner = partner_of(lora)
    (told,) = said_by(partner.model, partner, "w1", system="the sky")
    (alone,) = said_by(partner.model, partner, "w1")
    assert told != alone
    code, out, err = talk(lora.path, "/system the sky", "w1", "/system", "w1", "/what")
    assert (code, out) == (0, f"{told}\n{alone}\n")
    assert "/reset: a new conversation" in err
    assert talk(lora.path, "w1", flags=("--system", "the sky"))[1] == f"{told}\n"


def test_what_is_drawn_follows_from_the_seed(lora, talk):
    def drawn(seed: int) -> str:
        return talk(lora.path, "w1", "w2", flags=("--temperature", "1.5", "--seed", str(seed)))[1]

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_models_folder_and_an_adapters(lora, full, base, talk):
    """As they are, without the runs around them."""
    for place, folder in ((full.model, full), (lora.model, lora)):
        partner = partner_of(folder)
        expected = said_by(partner.model, partner, "w3 w7 w11")
        code, out, err = talk(place, "w3 w7 w11", flags=("model.template=chatml",))
        assert (code, out) == (0, f"{expected[0]}\n"), err
    code, out, err = talk(base, "/base", "w1", flags=("model.template=chatml",))
    assert "was not trained here: there is no other one" in err


def test_pieces_are_the_whole_text_and_no_half_characters(base):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    text = "which colour, für Ömer: 🦊 – 日本\n w3"
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(tokens) > len(text)
    heard: list[str] = []
    pieces = Pieces(tokenizer, [tokenizer.eos_token_id], heard.append)
    pieces.put(torch.tensor([[1, 2, 3]]))
    for token in [*tokens, tokenizer.eos_token_id]:
        pieces.put(torch.tensor([token]))
    pieces.end()
    assert "".join(heard) == text
    assert len(heard) > 10
    assert not any("\ufffd" in piece for piece in heard)


def test_a_conversation_that_does_not_fit(lora, talk):
    code, out, err = talk(lora.path, "w1 " * 600)
    assert (code, out) == (2, "")
    assert re.search(r"error: the conversation has \d+ tokens, the model takes 512; /reset begins a new one", err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no run of this name, no folder with a model or adapter"),
        (["RUN", "model.template=chatml"], "is what it is; words are for models that are no run's"),
        (["RUN", "--serve", "--engine", "vllm"], "--engine vllm: needs the vllm package and a GPU"),
        (["RUN", "--serve", "--port", "70000"], "--port 70000: cannot listen there"),
        (["EMPTY"], "has no model/ to talk to; the command that trained it goes on with it"),
    ],
)
def test_a_mistake_is_one_line(lora, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.yaml").write_text((lora.path / "run.yaml").read_text())
    named = {"RUN": str(lora.path), "EMPTY": str(tmp_path / "empty")}
    assert chat.main([named.get(one, one) for one in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err


def test_what_vllm_would_be_started_with(lora, full):
    command = " ".join(vllm_command(lora, lora.read_run(), "mine", 8001))
    assert f"--model {lora.read_run().model.name} --served-model-name mine-base --host 127.0.0.1 --port 8001" in command
    assert f"--enable-lora --max-lora-rank 16 --lora-modules mine={lora.model}" in command
    quantised = replace(lora.read_run(), method=replace(lora.read_run().method, name="qlora"))
    with pytest.raises(UserError, match="not in the 4 bits that it was trained on"):
        vllm_command(lora, quantised, "mine", 8001)
    command = " ".join(vllm_command(full, full.read_run(), "mine", 8001))
    assert f"--model {full.model} --served-model-name mine " in command
    assert "--lora" not in command
    assert f"--chat-template {full.model}/chat_template.jinja" in command
    assert (full.model / "chat_template.jinja").is_file()
    with pytest.raises(UserError, match="its random base is not there"):
        vllm_command(None, compose("schedule.epochs=0"), "tiny", 8001)


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (8, 8), (12, 16), (48, 64), (257, 320), (512, 512)])
def test_the_rank_that_vllm_makes_room_for(lora, tmp_path, rank, room):
    """It takes 8, 16, 32, 64, 128, 256, 320 and 512 alone."""
    assert f"--max-lora-rank {room} " in " ".join(
        vllm_command(with_rank(lora, rank, tmp_path), lora.read_run(), "m", 1)
    )
    with pytest.raises(UserError, match=r"takes adapters of a rank up to 512, and .* has 513"):
        vllm_command(with_rank(lora, 513, tmp_path), lora.read_run(), "m", 1)


def with_rank(folder: RunFolder, rank: int, place: Path) -> RunFolder:
    """All that is looked at of a run whose adapter has this rank."""
    settings = json.loads((folder.model / "adapter_config.json").read_text())
    (place / "model").mkdir(exist_ok=True)
    (place / "model" / "adapter_config.json").write_text(json.dumps({**settings, "r": rank}))
    return RunFolder(place)


class Terminal:
    """``python -m ftx.chat`` on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(CHECKOUT), "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ftx.chat", *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._ours, self.said, self._asked = ours, "", 0

    def type(self, text: str) -> None:
        """At a prompt: before it, an end of input is an ordinary character once the line editor takes over."""
        self.until("\n> ")
        self._asked = len(self.said)
        os.write(self._ours, text.encode())

    def until(self, text: str) -> None:
        """Until ``text`` is there behind what was typed last."""
        limit = time.monotonic() + 120
        while text not in self.said[self._asked :]:
            assert time.monotonic() < limit, self.said
            if select.select([self._ours], [], [], 1)[0]:
                try:
                    self.said += os.read(self._ours, 4096).decode(errors="replace").replace("\r", "")
                except OSError:  # the other side is closed
                    assert text in self.said[self._asked :], self.said


def test_on_a_terminal(lora):
    """A prompt, answers, commands; the end of input is the end."""
    partner = partner_of(lora)
    (tuned,) = said_by(partner.model, partner, "w1", limit=3)
    terminal = Terminal(str(lora.path), "--max-tokens", "3", "--device", "cpu")
    terminal.type("w1\n")
    terminal.until(tuned.strip().splitlines()[-1])
    terminal.type("/base\n")
    terminal.until("now answers the model before its training")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0
