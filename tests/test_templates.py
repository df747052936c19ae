"""Our templates against what the models' own templates render."""

import itertools
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from ftx.data.conversation import Conversation
from ftx.data.render import render, render_prompt
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.templates import MARKS, choose_template, load_template

SHARED_DATA = Path(os.environ.get("FTX_SHARED_DATA", CHECKOUT.parent / "shared" / "data"))
RENDERINGS = SHARED_DATA / "chat_renderings" / "renderings.json"
QWEN3 = SHARED_DATA / "tokenizers" / "qwen3" / "tokenizer_config.json"
TEMPLATES = sorted((CHECKOUT / "templates").glob("*.jinja"))


RECORDED_FAMILIES = ("qwen3", "qwen3_instruct_2507", "qwen2_5", "llama3_1", "deepseek_r1_distill_qwen")
RECORDED_CASES = (
    *("one_turn", "system_one_turn", "multi_turn", "unicode", "thinking"),
    *("tool_call", "tool_call_no_system", "prompt_only"),
)

# What an answer that is no more than its content ends with, and so what is learned from it.
ENDS = {
    "chatml": "<|im_end|>",
    "deepseek_r1_distill_qwen": "<｜end▁of▁sentence｜>",
    "llama3_1": "<|eot_id|>",
    "olmo2": "</s>",
    "plain": "</s>",
    "qwen2_5": "<|im_end|>\n",
    "qwen3": "<|im_end|>\n",
    "qwen3_instruct_2507": "<|im_end|>\n",
    "qwen3_thinking_2507": "<|im_end|>\n",
    "tulu": "</s>",
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def recorded() -> dict[tuple[str, str, bool], dict]:
    if not RENDERINGS.exists():
        pytest.skip(f"{RENDERINGS} is not there: set FTX_SHARED_DATA")
    cases = json.loads(RENDERINGS.read_text(encoding="utf-8"))
    return {(case["family"], case["case"], case["add_generation_prompt"]): case for case in cases}


def user(content: str) -> dict:
    return {"role": "user", "content": content}


def assistant(content: str | None, **more) -> dict:
    return {"role": "assistant", "content": content, **more}


def call(name: str, **arguments) -> dict:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def rendered(text: str, messages: list[dict], tools: list[dict] | None = None, **variables) -> str:
    return render_jinja_template(conversations=[messages], tools=tools, chat_template=text, **variables)[0][0]


def rendered_with_spans(text: str, messages: list[dict], tools: list[dict] | None, **variables) -> tuple[str, list]:
    texts, spans = render_jinja_template(
        conversations=[messages], tools=tools, chat_template=text, return_assistant_tokens_mask=True, **variables
    )
    return texts[0], spans[0]


def rendered_and_supervised(name: str, messages: list[dict], **variables) -> tuple[str, list[str]]:
    one = render(Conversation("one", tuple(messages)), load_template(name), variables)
    return one.text, [one.text[start:end] for start, end in one.spans]


def unmarked(name: str) -> str:
    """A template as a model ships it: the same text, without marks."""
    return MARKS.sub("", load_template(name).text).replace("{%- endgeneration %}", "")


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_every_template_has_generation_marks_and_says_what_it_is(file):
    text = file.read_text()
    assert MARKS.search(text)
    assert text.startswith("{#- ")


def test_the_recorded_renderings_are_the_eighty_that_are_checked():
    assert set(recorded()) == set(itertools.product(RECORDED_FAMILIES, RECORDED_CASES, (False, True)))
    assert len(recorded()) == len(json.loads(RENDERINGS.read_text(encoding="utf-8"))) == 80


@pytest.mark.parametrize("with_prompt", [False, True], ids=["whole", "prompt"])
@pytest.mark.parametrize("name", RECORDED_CASES)
@pytest.mark.parametrize("family", RECORDED_FAMILIES)
def test_a_family_renders_byte_for_byte_as_the_model_does_and_supervises_the_same_spans(family, name, with_prompt):
    case = recorded()[family, name, with_prompt]
    messages, tools = case["messages"], case["tools"]
    for text in (load_template(family).text, unmarked(family)):
        assert rendered(text, messages, tools, add_generation_prompt=with_prompt) == case["text"]
    if "supervised" in case:
        one = render(Conversation("one", tuple(messages), tuple(tools or ())), load_template(family), {})
        assert one.text == case["text"]
        assert [one.text[start:end] for start, end in one.spans] == case["supervised"]


@pytest.mark.parametrize("special", [{}, SPECIAL], ids=["no_begin_and_end", "begin_and_end"])
@pytest.mark.parametrize("family", ENDS)
def test_every_family_renders_every_recorded_conversation_as_transformers_does_or_both_refuse(family, special):
    template, refused = load_template(family), 0
    for case in recorded().values():
        messages, tools = case["messages"], case["tools"]
        one = Conversation("one", tuple(messages), tuple(tools or ()))
        try:
            expected = rendered_with_spans(template.text, messages, tools, **special)
        except TemplateError:
            refused += 1
            with pytest.raises(UserError, match=f"^one: template '{family}' cannot render it: "):
                render(one, template, special)
            continue
        ours = render(one, template, special)
        assert (ours.text, ours.spans) == expected
        assert len(ours.pieces) == 2 * len(ours.spans) + 1
    without_tools = {"olmo2": 20, "plain": 20, "tulu": 20}
    assert refused == (80 if family in ("olmo2", "tulu") and not special else without_tools.get(family, 0))


@pytest.mark.parametrize("name", RECORDED_CASES)
@pytest.mark.parametrize("family", RECORDED_FAMILIES)
def test_a_prompt_is_what_the_model_renders_to_answer_next(family, name):
    """``render_prompt`` leaves the last answer out by itself."""
    case = recorded()[family, name, True]
    messages = [*case["messages"], assistant("An answer that is left out.")]
    prompt = render_prompt(Conversation("one", tuple(messages), tuple(case["tools"] or ())), load_template(family), {})
    assert prompt.text == case["text"]


# Newlines and spaces at the borders, where templates trim and split.
# Without the marks that rendering itself puts into texts: what comes before it replaces them.
TEXTS = st.text(st.characters(exclude_characters="\ufdd0\ufdd1\ufdd2", codec="utf-8"))
CONTENTS = st.tuples(st.sampled_from(["", "\n", " \n\n", "\t"]), TEXTS, st.sampled_from(["", "\n", "\n \n"])).map(
    "".join
)


@st.composite
def conversations(draw) -> list[dict]:
    """An optional system text, a question, and then questions and answers as they come."""
    roles = ["user", *draw(st.lists(st.sampled_from(["user", "assistant"]), max_size=6))]
    roles = draw(st.sampled_from([[], ["system"]])) + roles
    return [{"role": role, "content": draw(CONTENTS)} for role in roles]


def learned(family: str, messages: list[dict]) -> list[str]:
    """What the family has to supervise in a conversation without reasoning and tools."""
    contents = [message["content"] for message in messages if message["role"] == "assistant"]
    if family == "llama3_1":
        contents = [content.strip() for content in contents]
    if family == "qwen2_5":
        contents = ["\n" + content for content in contents]
    if family in ("qwen3", "qwen3_thinking_2507") and messages[-1]["role"] == "assistant":
        contents[-1] = "<think>\n\n</think>\n\n" + contents[-1].lstrip("\n")
    return [content + ENDS[family] for content in contents]


def test_every_template_is_among_the_families_checked():
    assert sorted(ENDS) == [file.stem for file in TEMPLATES]


@pytest.mark.parametrize("family", ENDS)
@given(messages=conversations())
def test_what_is_learned_is_each_answer_with_its_end_and_marks_change_no_text(family, messages):
    text, spans = rendered_and_supervised(family, messages, **SPECIAL)
    assert spans == learned(family, messages)
    expected, indices = rendered_with_spans(load_template(family).text, messages, None, **SPECIAL)
    assert (text, spans) == (expected, [expected[start:end] for start, end in indices])
    assert text == rendered(unmarked(family), messages, **SPECIAL)


TULU_MESSAGES = [
    {"role": "system", "content": "Be brief."},
    *(user("One?"), assistant("Two.\n"), user("Three?"), assistant("Four.")),
]
TULU_TEXT = (
    "<|system|>\nBe brief.\n<|user|>\nOne?\n<|assistant|>\nTwo.\n</s>\n<|user|>\nThree?\n<|assistant|>\nFour.</s>"
)


@pytest.mark.parametrize(
    ("name", "special", "begin"),
    [("tulu", SPECIAL, ""), ("olmo2", SPECIAL, "<s>"), ("olmo2", {"bos_token": None, "eos_token": "</s>"}, "")],
)
def test_tulu_renders_as_written_by_hand_and_olmo2_with_a_begin_where_there_is_one(name, special, begin):
    assert rendered_and_supervised(name, TULU_MESSAGES, **special) == (begin + TULU_TEXT, ["Two.\n</s>", "Four.</s>"])
    prompt = rendered(load_template(name).text, TULU_MESSAGES[:-1], add_generation_prompt=True, **special)
    assert prompt == begin + TULU_TEXT.removesuffix("Four.</s>")


@pytest.mark.parametrize("name", ["tulu", "olmo2"])
@pytest.mark.parametrize(
    ("messages", "special", "reason"),
    [
        ([user("2?"), assistant(None, tool_calls=[call("add")])], SPECIAL, "no place for tool calls"),
        ([user("2?"), {"role": "tool", "content": "2"}], SPECIAL, "the role tool"),
        ([user("2?"), assistant("2")], {"eos_token": None}, "the tokenizer has none"),
    ],
)
def test_tulu_refuses_what_it_would_lose(name, messages, special, reason):
    with pytest.raises(UserError, match=rf"template '{name}' cannot render it: .*{reason}"):
        rendered_and_supervised(name, messages, **special)


THREE_QUESTIONS = ("One?", "Three?", "Five?")
THOUGHTFUL = [
    *(user("One?"), assistant("<think>\nHm.\n</think>\n\nTwo.")),
    *(user("Three?"), assistant("<think>\nAh.\n</think>\n\nFour."), user("Five?"), assistant("Six.")),
]


@pytest.mark.parametrize(
    ("keep", "supervised"),
    [
        (False, ["Two.", "Four.", "<think>\n\n</think>\n\nSix."]),
        (
            True,
            [
                "<think>\nHm.\n</think>\n\nTwo.",
                "<think>\nAh.\n</think>\n\nFour.",
                "<think>\n\n</think>\n\nSix.",
            ],
        ),
    ],
)
def test_qwen3_keeps_the_reasoning_of_earlier_turns_only_when_told(keep, supervised):
    text, spans = rendered_and_supervised("qwen3", THOUGHTFUL, keep_thinking=keep)
    assert spans == [one + "<|im_end|>\n" for one in supervised]
    questions = (f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in THREE_QUESTIONS)
    assert text == "".join(itertools.chain.from_iterable(zip(questions, spans, strict=True)))


def test_qwen3_takes_reasoning_from_its_own_field_as_well():
    messages = [user("One?"), assistant("Two.", reasoning_content="Hm.\n"), *THOUGHTFUL[2:]]
    for keep in (False, True):
        expected = rendered_and_supervised("qwen3", THOUGHTFUL, keep_thinking=keep)
        assert rendered_and_supervised("qwen3", messages, keep_thinking=keep) == expected


@pytest.mark.parametrize(
    ("keep", "supervised"),
    [
        (False, ["\n\nTwo.", "\n\nFour.", "Six."]),
        (True, ["<think>\nHm.\n</think>\n\nTwo.", "<think>\nAh.\n</think>\n\nFour.", "Six."]),
    ],
)
def test_deepseek_keeps_reasoning_only_when_told(keep, supervised):
    text, spans = rendered_and_supervised("deepseek_r1_distill_qwen", THOUGHTFUL, keep_thinking=keep, **SPECIAL)
    assert spans == [one + "<｜end▁of▁sentence｜>" for one in supervised]
    questions = (f"<｜User｜>{question}<｜Assistant｜>" for question in THREE_QUESTIONS)
    assert text == "<s>" + "".join(itertools.chain.from_iterable(zip(questions, spans, strict=True)))


def test_deepseek_learns_calls_that_it_shows_and_no_answer_that_lost_its_calls():
    calls = [call("add", a=1), call("sub", b="é")]
    results = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]
    first = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 1}\n```<｜tool▁call▁end｜>'
    second = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>sub\n```json\n{"b": "é"}\n```<｜tool▁call▁end｜>'
    shown = f"<｜tool▁calls▁begin｜>{first}\n{second}<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
    after = (
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>1<｜tool▁output▁end｜>\n"
        "<｜tool▁output▁begin｜>2<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
    )
    end = "<｜end▁of▁sentence｜>"
    for content, turn, spans in ((None, shown, [shown, f"3{end}"]), ("Wait.", f"Wait.{end}", [f"3{end}"])):
        messages = [user("?"), assistant(content, tool_calls=calls), *results, assistant("3")]
        assert rendered_and_supervised("deepseek_r1_distill_qwen", messages) == (
            f"<｜User｜>?<｜Assistant｜>{turn}{after}3{end}",
            spans,
        )


def test_llama3_1_takes_todays_date_and_refuses_what_it_has_no_place_for():
    text, _ = rendered_and_supervised("llama3_1", [user("One?")], date_string="01 Jan 2025", bos_token="<s>")
    assert text.startswith("<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n")
    assert "Today Date: 01 Jan 2025\n\n<|eot_id|>" in text
    with pytest.raises(UserError, match="several tool calls"):
        rendered_and_supervised("llama3_1", [user("One?"), assistant(None, tool_calls=[call("add"), call("add")])])
    with pytest.raises(TemplateError, match="first user turn"):
        rendered(load_template("llama3_1").text, [assistant("One.")], [call("add")])


def qwen3_own_template() -> str:
    if not QWEN3.exists():
        pytest.skip(f"{QWEN3} is not there: set FTX_SHARED_DATA")
    return json.loads(QWEN3.read_text(encoding="utf-8"))["chat_template"]


THOUGHTS = st.sampled_from(["", "<think>\n\n</think>\n\n", "<think>Hm.</think>", "\n<think>\nHm.\n\n</think>\n"])
TURNS = st.one_of(
    st.builds(user, CONTENTS),
    st.builds(lambda content: user(f"<tool_response>{content}</tool_response>"), CONTENTS),
    st.builds(lambda content: {"role": "tool", "content": content}, CONTENTS),
    st.builds(lambda content: {"role": "system", "content": content}, CONTENTS),
    st.builds(
        lambda thought, content, calls: assistant(thought + content, tool_calls=calls),
        *(THOUGHTS, CONTENTS, st.lists(st.just(call("add", a=1)), max_size=2)),
    ),
    st.builds(lambda thought, content: assistant(content, reasoning_content=thought), CONTENTS, CONTENTS),
)


@given(
    messages=st.lists(TURNS, min_size=1, max_size=8), tools=st.sampled_from([None, [call("add")]]), prompt=st.booleans()
)
def test_qwen3_renders_any_conversation_as_its_own_template(messages, tools, prompt):
    own = qwen3_own_template()
    for variables in ({}, {"enable_thinking": False}, {"enable_thinking": True}):
        given_both = {"add_generation_prompt": prompt, **variables}
        ours = rendered(load_template("qwen3").text, messages, tools, **given_both)
        assert ours == rendered(own, messages, tools, **given_both)


def test_a_template_without_marks_is_refused(tmp_path, monkeypatch):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "bare.jinja").write_text("{{ messages[0].content }}")
    monkeypatch.setattr("ftx.templates.CHECKOUT", tmp_path)
    with pytest.raises(UserError, match=r"bare.*generation"):
        load_template("bare")


@pytest.mark.parametrize("name", [file.stem for file in TEMPLATES])
def test_auto_recognises_the_family_of_a_template_without_marks(name):
    tokenizer = train_tokenizer(["one two three"], 400)
    tokenizer.chat_template = unmarked(name)
    same = choose_template("auto", tokenizer)
    assert rendered(same.text, TULU_MESSAGES, **tokenizer.special_tokens_map) == rendered(
        unmarked(name), TULU_MESSAGES, **tokenizer.special_tokens_map
    )
    tokenizer.bos_token = tokenizer.pad_token
    assert choose_template("auto", tokenizer) == load_template(name)


def test_auto_recognises_qwen3_by_its_own_template():
    tokenizer = train_tokenizer(["one two three"], 400)
    tokenizer.chat_template = qwen3_own_template()
    assert choose_template("auto", tokenizer).name == "qwen3"


def test_auto_recognises_tulu_where_the_model_drops_tools_without_a_word_and_we_refuse_them():
    tokenizer = train_tokenizer(["one two three"], 400)
    tokenizer.bos_token = tokenizer.pad_token
    turns = "{% for m in messages if m.role != 'tool' %}{{ '<|' + m.role + '|>\n' + m.content }}"
    own = turns + "{% if m.role == 'assistant' %}{{ eos_token + ('' if loop.last else '\n') }}{% else %}{{ '\n' }}"
    own += "{% endif %}{% endfor %}"
    for begin, name in (("", "tulu"), ("{{ bos_token }}", "olmo2")):
        tokenizer.chat_template = begin + own
        assert choose_template("auto", tokenizer).name == name


def test_auto_takes_no_template_for_one_that_refuses_what_ours_renders():
    tokenizer = train_tokenizer(["one two three"], 400)
    for own in ("{{ raise_exception('no') }}", "{{ 1 + '1' }}"):
        tokenizer.chat_template = own
        with pytest.raises(UserError, match="none here renders the same"):
            choose_template("auto", tokenizer)


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
