"""Our templates against what the models' own templates render."""

import json
import os
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from ftx.data.conversation import Conversation
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.data.tokenize import render
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.templates import MARKS, choose_template, load_template

SHARED_DATA = Path(os.environ.get("FTX_SHARED_DATA", CHECKOUT.parent / "shared" / "data"))
RENDERINGS = SHARED_DATA / "chat_renderings" / "renderings.json"
TEMPLATES = sorted((CHECKOUT / "templates").glob("*.jinja"))


def recorded(family: str) -> list[dict]:
    if not RENDERINGS.exists():
        pytest.skip(f"{RENDERINGS} is not there: set FTX_SHARED_DATA")
    return [one for one in json.loads(RENDERINGS.read_text()) if one["family"] == family]


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_every_template_has_generation_marks_and_says_what_it_is(file):
    text = file.read_text()
    assert MARKS.search(text)
    assert text.startswith("{#- ")


def test_qwen3_instruct_2507_renders_byte_for_byte_and_supervises_the_same_spans():
    cases = recorded("qwen3_instruct_2507")
    template = load_template("qwen3_instruct_2507")
    for case in cases:
        texts, _ = render_jinja_template(
            conversations=[case["messages"]],
            tools=case["tools"],
            chat_template=template.text,
            add_generation_prompt=case["add_generation_prompt"],
        )
        assert texts[0] == case["text"], case["case"]
        if "supervised" in case:
            conversation = Conversation("one", tuple(case["messages"]), tuple(case["tools"] or ()))
            rendered = render(conversation, template, {})
            assert [rendered.text[start:end] for start, end in rendered.spans] == case["supervised"]
    assert len(cases) == 16


def test_a_template_without_marks_is_refused(tmp_path, monkeypatch):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "bare.jinja").write_text("{{ messages[0].content }}")
    monkeypatch.setattr("ftx.templates.CHECKOUT", tmp_path)
    with pytest.raises(UserError, match=r"bare.*generation"):
        load_template("bare")


def unmarked(name: str) -> str:
    """A template as a model ships it: the same text, without marks."""
    return MARKS.sub("", load_template(name).text).replace("{%- endgeneration %}", "")


@pytest.mark.parametrize("name", [file.stem for file in TEMPLATES])
def test_auto_recognises_the_family_of_a_template_without_marks(name):
    tokenizer = train_tokenizer(["one two three"], 400)
    tokenizer.chat_template = unmarked(name)
    chosen = choose_template("auto", tokenizer)
    assert chosen == load_template(name)


def test_auto_takes_the_tokenizers_own_template_with_marks_and_refuses_to_guess():
    tokenizer = train_tokenizer(["one two three"], 400)
    tokenizer.chat_template = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert choose_template("auto", tokenizer).name == "own"
    tokenizer.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    with pytest.raises(UserError, match=r"none here renders the same; choose model\.template=.*chatml"):
        choose_template("auto", tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="is missing"):
        choose_template("auto", tokenizer)
