"""Every family against transformers' rendering, and against what its answers are by a reference written here."""

import json
import os
import re
import unicodedata
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from ftx.data.conversation import Conversation
from ftx.data.encode import exact_encoder, is_piecewise
from ftx.data.guard import BORDER, CLOSE, OPEN, Noticed
from ftx.data.render import render, render_prompt
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.data.tokenize import tokenize, tokenize_batches, tokenize_prompts
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.templates import OWN, Template, load_template, names_of_templates, with_thinking

SHARED_DATA = Path(os.environ.get("FTX_SHARED_DATA", CHECKOUT.parent / "shared" / "data"))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
# Every family's control tokens.
CONTROL = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<s>", "</s>"),
    *("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    *("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>"),
    *("<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
)

Messages = list[dict[str, Any]]


# ---- What each family learns, from the messages alone


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def calls_of(message: dict) -> list[dict]:
    return [call["function"] for call in message.get("tool_calls") or []]


def answers_of(messages: Messages) -> Messages:
    return [message for message in messages if message["role"] == "assistant"]


def chatml(messages: Messages, eos: str) -> list[str]:
    return [
        (answer["content"] or "")
        + "".join(f"<tool_call>{dumps(call)}</tool_call>" for call in calls_of(answer))
        + "<|im_end|>"
        for answer in answers_of(messages)
    ]


def content_and_eos(messages: Messages, eos: str) -> list[str]:
    return [answer["content"] + eos for answer in answers_of(messages)]


def llama3_1(messages: Messages, eos: str) -> list[str]:
    """Trimmed; a call takes the place of the text."""
    return [
        (f'{{"name": "{call["name"]}", "parameters": {dumps(call["arguments"])}}}' if call else content.strip())
        + "<|eot_id|>"
        for answer in answers_of(messages)
        for call, content in [(next(iter(calls_of(answer)), None), answer["content"])]
    ]


def qwen_call(call: dict) -> str:
    return f'<tool_call>\n{{"name": "{call["name"]}", "arguments": {dumps(call["arguments"])}}}\n</tool_call>'


def qwen2_5(messages: Messages, eos: str) -> list[str]:
    """Every part with a newline before it, that of the header included; nothing is left out."""
    return [
        "".join(
            "\n" + part
            for part in (
                *([answer["content"] or ""] if answer["content"] or not calls_of(answer) else []),
                *map(qwen_call, calls_of(answer)),
            )
        )
        + "<|im_end|>\n"
        for answer in answers_of(messages)
    ]


def with_qwen_calls(content: str, answer: dict, shown: str) -> str:
    calls = list(map(qwen_call, calls_of(answer)))
    return shown + ("\n" if content and calls else "") + "\n".join(calls) + "<|im_end|>\n"


def qwen3_instruct_2507(messages: Messages, eos: str) -> list[str]:
    return [with_qwen_calls(answer["content"], answer, answer["content"] or "") for answer in answers_of(messages)]


def qwen3(messages: Messages, eos: str) -> list[str]:
    """After the last question reasoning is shown, and in the last answer a block even of none; before it, no block."""
    last_question = max(at for at, message in enumerate(messages) if message["role"] == "user")
    learned = []
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        content, reasoning = message["content"] or "", message.get("reasoning_content")
        if reasoning is None and "</think>" in content:
            block, content = content.split("</think>")
            reasoning, content = block.split("<think>")[1].strip("\n"), content.lstrip("\n")
        shown = content
        if at > last_question and (reasoning or at == len(messages) - 1):
            thought = (reasoning or "").strip("\n")
            shown = f"<think>\n{thought}\n</think>\n\n{content.lstrip(chr(10))}"
        learned.append(with_qwen_calls(content, message, shown))
    return learned


def deepseek(messages: Messages, eos: str) -> list[str]:
    """Up to </think> nothing, but all after a tool's result; calls without a text; of a text with calls, nothing."""
    learned = []
    for before, message in zip([{"role": ""}, *messages], messages, strict=False):
        if message["role"] != "assistant":
            continue
        content = message["content"]
        if content is None:
            calls = "\n".join(
                f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call['name']}\n```json\n{dumps(call['arguments'])}\n```"
                "<｜tool▁call▁end｜>"
                for call in calls_of(message)
            )
            learned.append(f"<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜><｜end▁of▁sentence｜>")
        elif not calls_of(message):
            shown = content if before["role"] == "tool" else content.rpartition("</think>")[2]
            learned.append(shown + "<｜end▁of▁sentence｜>")
    return learned


LEARNED: dict[str, Callable[[Messages, str], list[str]]] = {
    "chatml": chatml,
    "deepseek_r1_distill_qwen": deepseek,
    "llama3_1": llama3_1,
    "olmo2": content_and_eos,
    "plain": content_and_eos,
    "qwen2_5": qwen2_5,
    "qwen3": qwen3,
    "qwen3_instruct_2507": qwen3_instruct_2507,
    "qwen3_thinking_2507": qwen3,
    "tulu": content_and_eos,
}
WITHOUT_TOOLS = ("olmo2", "plain", "tulu")
FAMILIES = pytest.mark.parametrize("family", LEARNED)


def test_every_template_is_among_the_families_checked():
    assert sorted(LEARNED) == names_of_templates()


# ---- Conversations

# Any character but halves of surrogate pairs, and the noncharacters and unassigned ones.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])
ORDINARY = [
    *("\n", "\n\n", " ", "  ", "\t", "\r\n", "answer", "an answer\n", "question", "user", "'s", "2024", "{}"),
    *("é", "e\u0301", "\u0301", "数学", "👋🏽", "ǆ"),
]
LOOK_ALIKES = [
    "<|im_end|>",
    "<|im_start|>assistant\n",
    "<|im",
    "_end|>",
    "<|eot_id|>",
    "</s>",
    "<｜User｜>",
    "<|user|>",
]


def made_of(samples: list[str]) -> st.SearchStrategy[str]:
    pieces = st.lists(st.sampled_from(samples) | st.text(CHARACTERS, max_size=3), max_size=4).map("".join)
    return st.just("") | pieces


ANY_TEXT = made_of(ORDINARY + LOOK_ALIKES)
WITHOUT_LOOK_ALIKES = made_of(ORDINARY).filter(lambda text: not any(token in text for token in CONTROL))


def of_role(role: str, texts: st.SearchStrategy[str]) -> st.SearchStrategy[dict]:
    return st.builds(lambda content: {"role": role, "content": content}, texts)


@st.composite
def answers(draw, texts: st.SearchStrategy[str]) -> dict:
    """A text, perhaps with reasoning in it or in a field of its own."""
    content = draw(texts)
    where = draw(st.sampled_from(["nowhere", "nowhere", "content", "field"]))
    if where == "content":
        return {"role": "assistant", "content": f"<think>\n{draw(texts)}\n</think>\n\n{content}"}
    return {
        "role": "assistant",
        "content": content,
        **({"reasoning_content": draw(texts)} if where == "field" else {}),
    }


@st.composite
def calls_with_results(draw, texts: st.SearchStrategy[str], at_most: int) -> Messages:
    arguments = st.dictionaries(st.sampled_from(["a", "é", "items"]), texts | st.integers(0, 9), max_size=2)
    calls = st.builds(
        lambda name, given: {"type": "function", "function": {"name": name, "arguments": given}},
        *(st.sampled_from(["add", "look_up"]), arguments),
    )
    call = {
        "role": "assistant",
        "content": draw(st.none() | texts),
        "tool_calls": draw(st.lists(calls, min_size=1, max_size=at_most)),
    }
    results = draw(st.lists(of_role("tool", texts), min_size=1, max_size=2))
    return [call, *results]


@st.composite
def conversations(draw, family: str, texts: st.SearchStrategy[str], in_turn: bool = False) -> Conversation:
    """Ends with an answer; ``in_turn``, every answer follows a question or a tool's result."""
    questions = of_role("user", texts).map(lambda message: {**message, "content": "?" + message["content"]})
    one_answer = answers(texts).map(lambda answer: [answer])
    kinds = [questions.map(lambda question: [question]), one_answer]
    tools: tuple = ()
    calling = st.just([])
    if family not in WITHOUT_TOOLS:
        kinds.append(calls_with_results(texts, at_most=1 if family == "llama3_1" else 2))
        calling = st.just([]) | kinds[-1]
        tool = {"type": "function", "function": {"name": "add", "description": draw(texts), "parameters": {}}}
        tools = draw(st.sampled_from([(), (tool,)]))
    messages = [*draw(st.lists(of_role("system", texts), max_size=1)), draw(questions)]
    if in_turn:
        for _ in range(draw(st.integers(0, 2))):
            messages += [*draw(calling), draw(answers(texts)), draw(questions)]
        messages += draw(calling)
    else:
        for kind in draw(st.lists(st.sampled_from(kinds), max_size=4)):
            messages += draw(kind)
    return Conversation("chats.jsonl:7", (*messages, draw(answers(texts))), tools)


# ---- Rendering


def by_transformers(conversation: Conversation, template: Template, special: dict, **more) -> tuple[str, list]:
    texts, spans = render_jinja_template(
        conversations=[list(conversation.messages)],
        tools=list(conversation.tools) or None,
        chat_template=template.text,
        return_assistant_tokens_mask=True,
        **special,
        **more,
    )
    return texts[0], spans[0]


@FAMILIES
@pytest.mark.parametrize("special", [SPECIAL, {"bos_token": None, "eos_token": "</s>"}], ids=["begin", "no_begin"])
@settings(max_examples=40)
@given(st.data())
def test_a_family_renders_what_transformers_renders_and_marks_the_answers(family, special, data):
    one, template = data.draw(conversations(family, ANY_TEXT)), load_template(family)
    rendered = render(one, template, special)
    assert (rendered.text, rendered.spans) == by_transformers(one, template, special)
    learned = [rendered.text[start:end] for start, end in rendered.spans]
    assert learned == LEARNED[family](list(one.messages), "</s>")
    before = Conversation(one.id, one.messages[:-1], one.tools)
    prompt = render_prompt(one, template, special)
    assert prompt.text == by_transformers(before, template, special, add_generation_prompt=True)[0]


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
@pytest.mark.parametrize("empty_field", [False, True])
def test_reasoning_is_found_under_its_other_names(name, empty_field):
    answer = {"role": "assistant", "content": "Two.", **({"reasoning_content": None} if empty_field else {})}
    one = Conversation("a:1", ({"role": "user", "content": "?"}, {**answer, name: "Hm."}))
    rendered = render(one, load_template("qwen3"), {})
    assert rendered.text == by_transformers(one, load_template("qwen3"), {})[0]
    assert rendered.pieces[1] == "<think>\nHm.\n</think>\n\nTwo.<|im_end|>\n"


@pytest.mark.parametrize("name", ["mine", OWN])
@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].items() | list }}|{{ messages[0]['items'] }}|{{ messages[0].keys() | list }}",
        "{% for key, value in messages[0].items() %}{{ key }}={{ value }};{% endfor %}",
        "{{ messages[0].items is callable }}|{{ messages[0].copy().role }}|{{ messages[0].get is defined }}",
        "{{ messages[0].get('gone', 'no') }}|{{ messages[0].gone }}|{{ messages[0].gone is defined }}",
        "{{ messages[0].gone | default('none') }}|{{ messages[0].gone is none }}|{{ messages[0].null is none }}",
        "{{ messages | map(attribute='content') | list }}|{{ messages | selectattr('gone') | list }}",
        "{{ messages[0].nested.items() | list }}|{{ messages[0].nested.values }}|{{ messages[0].nested['items'] }}",
        "{{ messages[0].content.upper() }}|{{ messages[0]['content'][0] }}|{{ messages[-1].role }}",
    ],
)
def test_keys_are_looked_up_as_jinja_does(source, name):
    """Also keys that a dict has a method of the same name for, and keys that are not there."""
    nested = {"items": 3, "values": "v"}
    message = {"role": "user", "content": "hi", "items": [1], "keys": "k", "null": None, "nested": nested}
    one = Conversation("a:1", (message,))
    template = Template(name, source + "{% generation %}{% endgeneration %}")
    expected = re.sub(r"0x[0-9a-f]+", "0x", by_transformers(one, template, {})[0])
    assert expected.strip("|")
    assert re.sub(r"0x[0-9a-f]+", "0x", render(one, template, {}).text) == expected


@pytest.mark.parametrize("name", ["mine", OWN])
def test_a_key_of_a_missing_key_is_the_users_to_mend(name):
    template = Template(name, "{{ messages[0].gone.deeper }}{% generation %}{% endgeneration %}")
    with pytest.raises(UserError, match=rf"^a:1: template '{name}' cannot render it: .*gone"):
        render(Conversation("a:1", ({"role": "user", "content": "hi"},)), template, {})


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.getcwd() }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ dict.__subclasses__() | list }}",
        "{{ (messages | attr('__class__')).mro() }}",
        "{{ '{0.__class__.__mro__}'.format(messages).x.y }}",
        "{% set it = messages.append(messages[0]) %}",
        "{% set it = messages[0].update({'role': 'assistant'}) %}",
        "{% set it = messages[0].pop('content') %}",
        "{% set space = namespace(__class__=1) %}",
        "{% set space = namespace() %}{% set space.__init__ = 1 %}",
    ],
)
def test_a_tokenizers_own_template_gets_at_nothing_of_pythons(attack):
    """Each of them is one that transformers refuses as well."""
    one = Conversation("a:1", ({"role": "user", "content": "hi"},))
    template = Template(OWN, attack + "{% generation %}{% endgeneration %}")
    with pytest.raises(Exception, match=r"unsafe|undefined|no attribute|cannot store"):
        by_transformers(one, template, {})
    with pytest.raises(UserError, match=r"^a:1: template 'own' cannot render it: "):
        render(one, template, {})
    assert one.messages == ({"role": "user", "content": "hi"},)


@pytest.mark.parametrize("source", ["{{ messages[0].content.index('x') }}", "{{ 1 / 0 }}", "{{ range(10 ** 9) }}"])
def test_whatever_a_template_fails_at_names_the_conversation(source):
    template = Template(OWN, source + "{% generation %}{% endgeneration %}")
    with pytest.raises(UserError, match=r"^a:1: template 'own' cannot render it: "):
        render(Conversation("a:1", ({"role": "user", "content": "hi"},)), template, {})


def test_a_template_that_is_no_jinja_is_refused_by_its_name():
    with pytest.raises(UserError, match=r"^a:1: template 'own' cannot render it: .*end of print statement"):
        render(Conversation("a:1", ({"role": "user", "content": "hi"},)), Template(OWN, "{{ messages"), {})


# ---- Tokens


def with_control_tokens(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokens = [AddedToken(text, special=True, normalized=False) for text in CONTROL]
    tokenizer.add_tokens(tokens, special_tokens=True)
    return tokenizer


@cache
def tiny() -> PreTrainedTokenizerFast:
    """Learned so that it merges over every border there is: newlines, words without a space, a role and an answer."""
    texts = ["assistant\n\nan answer\n\n\n", "\n \nuser\n\n", "questionanswer", "aabb é é", "the answer  is  <|im"]
    tokenizer = with_control_tokens(train_tokenizer(texts * 20, 600))
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    return tokenizer


@cache
def real(name: str) -> PreTrainedTokenizerFast:
    folder = SHARED_DATA / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"needs {folder}: set FTX_SHARED_DATA")
    if (folder / "tokenizer_config.json").exists():
        return with_control_tokens(AutoTokenizer.from_pretrained(folder))
    end = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    return with_control_tokens(PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **end))


TOKENIZERS = {"tiny": tiny, "qwen3": partial(real, "qwen3"), "olmo2": partial(real, "olmo2_dolma2")}
EACH_TOKENIZER = pytest.mark.parametrize("tokenizer", TOKENIZERS)


def normal(text: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """As the tokenizer reads it: qwen3's composes characters, but not with its own tokens, as ``<think>``."""
    if tokenizer.backend_tokenizer.normalizer is None:
        return text
    own = [token.content for token in tokenizer.added_tokens_decoder.values() if not token.special]
    parts = re.split("(" + "|".join(map(re.escape, own)) + ")", text)
    return "".join(part if part in own else unicodedata.normalize("NFC", part) for part in parts)


def decoded(tokenizer: PreTrainedTokenizerFast, input_ids) -> str:
    return tokenizer.decode(list(input_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def normal_answer(answer: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """The end of turn is a token, with which nothing is composed."""
    end = next(token for token in (*CONTROL, tokenizer.eos_token) if answer.removesuffix("\n").endswith(token))
    at = answer.rindex(end)
    return normal(answer[:at], tokenizer) + answer[at:]


@FAMILIES
@EACH_TOKENIZER
@settings(max_examples=30)
@given(st.data())
def test_the_supervised_tokens_spell_the_answers_with_their_ends(tokenizer, family, data):
    tokenizer = TOKENIZERS[tokenizer]()
    one = data.draw(conversations(family, ANY_TEXT))
    (ours,) = tokenize([one], tokenizer, load_template(family))
    learned = LEARNED[family](list(one.messages), tokenizer.eos_token)
    expected = "".join(normal_answer(answer, tokenizer) for answer in learned)
    assert decoded(tokenizer, ours.input_ids[ours.supervised]) == expected


@pytest.mark.parametrize("family", ["chatml", "llama3_1", "olmo2", "plain", "qwen3", "qwen3_instruct_2507", "tulu"])
@EACH_TOKENIZER
@settings(max_examples=25)
@given(st.data())
def test_a_prompt_is_what_training_has_before_the_last_answer(tokenizer, family, data):
    """Given that no two answers stand in a row: qwen3 gives the one before a block, olmo2 and tulu a newline less."""
    tokenizer = TOKENIZERS[tokenizer]()
    one = data.draw(conversations(family, ANY_TEXT, in_turn=True))
    (ours,) = tokenize([one], tokenizer, load_template(family))
    (prompt,) = tokenize_prompts([one], tokenizer, load_template(family))
    assert ours.input_ids[: len(prompt)].tolist() == prompt
    last = LEARNED[family](list(one.messages), tokenizer.eos_token)[-1]
    answer = ours.input_ids[len(prompt) :][ours.supervised[len(prompt) :]]
    assert decoded(tokenizer, answer) == normal_answer(last, tokenizer)
    assert ours.supervised[len(prompt)]


@EACH_TOKENIZER
@settings(max_examples=25)
@given(st.data())
def test_a_prompt_of_qwen2_5_ends_with_a_newline_that_training_counts_as_the_answers(tokenizer, data):
    """So its last token is the answer's first, where the tokenizer does not merge it with what comes next."""
    tokenizer = TOKENIZERS[tokenizer]()
    one = data.draw(conversations("qwen2_5", ANY_TEXT, in_turn=True))
    (ours,) = tokenize([one], tokenizer, load_template("qwen2_5"))
    (prompt,) = tokenize_prompts([one], tokenizer, load_template("qwen2_5"))
    assert ours.input_ids[: len(prompt) - 1].tolist() == prompt[:-1]
    assert decoded(tokenizer, prompt[-1:]) == "\n"
    last = qwen2_5(list(one.messages), "")[-1]
    answer = ours.input_ids[len(prompt) - 1 :]
    assert ours.supervised[len(prompt) - 1 :].all()
    assert decoded(tokenizer, answer) == normal_answer(last, tokenizer)
    alone = tokenizer.encode(normal(last.removesuffix("<|im_end|>\n"), tokenizer)[1:2] or "<|im_end|>")
    if decoded(tokenizer, alone).isalnum():
        assert answer[0] == prompt[-1]


def test_only_an_answer_that_begins_with_blanks_merges_with_qwen2_5s_newline():
    tokenizer, template = tiny(), load_template("qwen2_5")
    for content, is_prefix in (("Two.", True), ("", True), ("\n\nTwo.", False)):
        asked = Conversation("a:1", ({"role": "user", "content": "?"}, {"role": "assistant", "content": content}))
        (ours,), (prompt,) = tokenize([asked], tokenizer, template), tokenize_prompts([asked], tokenizer, template)
        assert (ours.input_ids[: len(prompt)].tolist() == prompt) is is_prefix


@EACH_TOKENIZER
@settings(max_examples=25)
@given(st.data())
def test_a_prompt_of_deepseek_opens_a_block_that_training_has_only_with_reasoning(tokenizer, data):
    """Not after a tool's result, where the model goes on in the turn that it called from."""
    tokenizer = TOKENIZERS[tokenizer]()
    template = load_template("deepseek_r1_distill_qwen")
    one = data.draw(conversations("deepseek_r1_distill_qwen", ANY_TEXT, in_turn=True))
    (ours,) = tokenize([one], tokenizer, template)
    (prompt,) = tokenize_prompts([one], tokenizer, template)
    opened = tokenizer.encode("<think>\n") if one.messages[-2]["role"] != "tool" else []
    assert prompt[len(prompt) - len(opened) :] == opened
    shared = prompt[: len(prompt) - len(opened)]
    assert ours.input_ids[: len(shared)].tolist() == shared
    last = deepseek(list(one.messages), "")[-1]
    assert decoded(tokenizer, ours.input_ids[len(shared) :]) == normal_answer(last, tokenizer)
    assert ours.supervised[len(shared) :].all()


def test_a_prompt_of_deepseek_is_what_training_has_where_the_answer_keeps_its_reasoning():
    tokenizer, template = tiny(), with_thinking(load_template("deepseek_r1_distill_qwen"), "keep")
    thought = "<think>\nHm.\n</think>\n\nTwo."
    asked = Conversation("a:1", ({"role": "user", "content": "?"}, {"role": "assistant", "content": thought}))
    (ours,), (prompt,) = tokenize([asked], tokenizer, template), tokenize_prompts([asked], tokenizer, template)
    assert ours.input_ids[: len(prompt)].tolist() == prompt
    assert decoded(tokenizer, prompt) == "<s><｜User｜>?<｜Assistant｜><think>\n"


@pytest.mark.parametrize("family", ["olmo2", "tulu", "qwen3"])
def test_after_two_answers_in_a_row_a_prompt_is_another_text_than_training_has(family):
    """As the models' own templates have it; said here so that it is known."""
    roles = ("user", "assistant", "assistant")
    one = Conversation("a:1", tuple({"role": role, "content": "x"} for role in roles))
    text, prompt = render(one, load_template(family), SPECIAL).text, render_prompt(one, load_template(family), SPECIAL)
    assert not text.startswith(prompt.text)
    assert (
        prompt.text
        == by_transformers(
            Conversation("a:1", one.messages[:-1]), load_template(family), SPECIAL, add_generation_prompt=True
        )[0]
    )


# ---- Tokenizers that mark where words begin, as SentencePiece does


@cache
def marking(kind: str) -> PreTrainedTokenizerFast:
    """``prepend`` marks by its normalizer, as stories260k's; ``first`` and ``always`` by Metaspace."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if kind == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    texts = ["assistant\n\nan answer\n\n\n", "\n \nuser\n\n", "questionanswer", "the answer  is  an answer"] * 20
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    described = json.loads(tokenizer.to_str())
    model = described["model"]
    characters = sorted(model["vocab"], key=model["vocab"].get)
    entries = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    described["model"] = {**model, "vocab": {entry: at for at, entry in enumerate(entries)}, "byte_fallback": True}
    backend = Tokenizer.from_str(json.dumps(described))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return with_control_tokens(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>"))


def marked(text: str, spans: list[tuple[int, int]], kind: str) -> list[tuple[str, bool]]:
    """Each character with whether it is learned, and a blank where the tokenizer marks that a word begins.

    At the beginning of a text between control tokens, with ``first`` only of the whole text; Metaspace adds no mark to
    a blank that is there.
    """
    learned = [any(start <= at < end for start, end in spans) for at in range(len(text))]
    control = re.compile("|".join(map(re.escape, sorted(CONTROL, key=len, reverse=True))))
    begins = {0, *(found.end() for found in control.finditer(text))} if kind != "first" else {0}
    begins -= {found.start() for found in control.finditer(text)}
    characters: list[tuple[str, bool]] = []
    for at, character in enumerate(text):
        if at in begins and (kind == "prepend" or character not in " ▁"):
            characters.append((" ", learned[at]))
        characters.append((" " if character == "▁" else character, learned[at]))
    return characters


def test_each_of_the_marking_tokenizers_marks_as_said():
    for kind, spelled in (("prepend", "▁a▁<s>▁▁a"), ("first", "▁a▁<s>▁a"), ("always", "▁a▁<s>▁a")):
        backend = marking(kind).backend_tokenizer
        assert not is_piecewise(backend)
        assert "".join(backend.encode("a <s> a", add_special_tokens=False).tokens) == spelled
    after_newline = [marking(kind).backend_tokenizer.encode("a\na").tokens for kind in ("first", "always")]
    assert ["".join(tokens) for tokens in after_newline] == ["▁a\na"] * 2


@FAMILIES
@pytest.mark.parametrize("kind", ["prepend", "first", "always"])
@settings(max_examples=25)
@given(st.data())
def test_a_tokenizer_that_marks_words_spells_the_answers_and_marks_no_more_than_it_does_anyway(kind, family, data):
    tokenizer, template = marking(kind), load_template(family)
    one = data.draw(conversations(family, WITHOUT_LOOK_ALIKES))
    (ours,) = tokenize([one], tokenizer, template)
    rendered = render(one, template, tokenizer.special_tokens_map)
    expected = marked(rendered.text, rendered.spans, kind)
    assert as_written(tokenizer, ours.input_ids) == "".join(character for character, _ in expected)
    assert as_written(tokenizer, ours.input_ids[ours.supervised]) == "".join(
        character for character, learned in expected if learned
    )


def as_written(tokenizer: PreTrainedTokenizerFast, input_ids) -> str:
    """Decoded; DeepSeek's control tokens have the mark of a word in their names, which the decoder replaces or not."""
    return decoded(tokenizer, input_ids).replace("▁", " ")


@pytest.mark.parametrize("kind", ["prepend", "first", "always"])
def test_a_control_token_that_somebody_wrote_is_text_to_a_tokenizer_that_marks_words(kind):
    tokenizer = marking(kind)
    messages = ({"role": "user", "content": "an<|im_end|>swer"}, {"role": "assistant", "content": "is </s>"})
    (ours,) = tokenize([Conversation("a:1", messages)], tokenizer, load_template("plain"))
    assert decoded(tokenizer, ours.input_ids) == "<s>" + " " * (kind != "first") + "an<|im_end|>sweris </s></s>"
    assert ours.input_ids.tolist().count(tokenizer.eos_token_id) == 1
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in ours.input_ids


# ---- data.thinking

QUESTIONS = ("One?", "Three?", "Five?")
THOUGHTFUL = (
    *({"role": "user", "content": "One?"}, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nTwo."}),
    *({"role": "user", "content": "Three?"}, {"role": "assistant", "content": "<think>\nAh.\n</think>\n\nFour."}),
    *({"role": "user", "content": "Five?"}, {"role": "assistant", "content": "<think>\nOh.\n</think>\n\nSix."}),
)
KEPT = ["<think>\nHm.\n</think>\n\nTwo.", "<think>\nAh.\n</think>\n\nFour.", "<think>\nOh.\n</think>\n\nSix."]
# What each family's answers are, without their ends, and whether the conversation lost reasoning.
BY_THINKING = [
    ("qwen3", "template", ["Two.", "Four.", KEPT[2]], True),
    ("qwen3", "keep", KEPT, False),
    ("qwen3", "strip", ["Two.", "Four.", KEPT[2]], True),
    ("deepseek_r1_distill_qwen", "template", ["\n\nTwo.", "\n\nFour.", "\n\nSix."], True),
    ("deepseek_r1_distill_qwen", "keep", KEPT, False),
    ("deepseek_r1_distill_qwen", "strip", ["Two.", "Four.", "\n\nSix."], True),
    ("qwen2_5", "template", ["\n" + one for one in KEPT], False),
    ("qwen2_5", "keep", ["\n" + one for one in KEPT], False),
    ("qwen2_5", "strip", ["\nTwo.", "\nFour.", "\n" + KEPT[2]], True),
]
ENDS = {"qwen3": "<|im_end|>\n", "deepseek_r1_distill_qwen": "<｜end▁of▁sentence｜>", "qwen2_5": "<|im_end|>\n"}


def noticed_of(conversation: Conversation, template: Template) -> Noticed:
    noticed = Noticed()
    batches = tokenize_batches([conversation], tiny(), template, exact_encoder(tiny()), noticed)
    assert [ids for ids, _ in batches] == [[conversation.id]]
    return noticed


@pytest.mark.parametrize(("family", "thinking", "learned", "lost"), BY_THINKING)
def test_reasoning_of_several_turns_stays_or_goes_as_told(family, thinking, learned, lost):
    template = with_thinking(load_template(family), thinking)
    one = Conversation("a:1", THOUGHTFUL)
    assert list(render(one, template, {}).pieces[1::2]) == [answer + ENDS[family] for answer in learned]
    (tokens,) = tokenize([one], tiny(), template)
    spelled = decoded(tiny(), tokens.input_ids[tokens.supervised])
    assert spelled == "".join(answer + ENDS[family] for answer in learned)
    assert noticed_of(one, template).without_their_reasoning == lost


@pytest.mark.parametrize("thinking", ["template", "keep", "strip"])
@pytest.mark.parametrize("family", ENDS)
def test_what_thinking_says_holds_for_what_a_prompt_has_before_the_answer_too(family, thinking):
    template = with_thinking(load_template(family), thinking)
    one = Conversation("a:1", THOUGHTFUL)
    whole, prompt = render(one, template, {}), render_prompt(one, template, {})
    assert prompt.pieces[:-1] == whole.pieces[:4]
    assert prompt.pieces[-1].startswith(whole.pieces[4])


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_strip_takes_reasoning_in_its_own_field_from_earlier_answers_only(name):
    messages = tuple(
        {**message, "content": message["content"].split("\n\n")[-1], name: "Hm."} if number % 2 else message
        for number, message in enumerate(THOUGHTFUL)
    )
    text = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "[{{ m.reasoning_content }}]{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}"
    )
    for thinking, learned in (
        ("template", ("[Hm.]Two.", "[Hm.]Four.", "[Hm.]Six.")),
        ("strip", ("[]Two.", "[]Four.", "[Hm.]Six.")),
    ):
        rendered = render(Conversation("a:1", messages), with_thinking(Template("mine", text), thinking), {})
        assert rendered.pieces[1::2] == learned


@pytest.mark.parametrize("content", ["\n\nTwo.", "Two.", "", "\n"])
def test_strip_changes_no_answer_without_reasoning(content):
    messages = (THOUGHTFUL[0], {"role": "assistant", "content": content}, *THOUGHTFUL[4:])
    one = Conversation("a:1", messages)
    template = load_template("qwen2_5")
    assert render(one, with_thinking(template, "strip"), {}) == render(one, template, {})


def test_keep_is_refused_for_a_tokenizers_own_template_that_strips_and_cannot_be_told_not_to():
    strips = "{{ messages[0].content.split('</think>')[-1] }}{% generation %}{% endgeneration %}"
    with pytest.raises(UserError, match=r"^data\.thinking=keep: .*strips <think> itself; .*model\.template=.*qwen3"):
        with_thinking(Template(OWN, strips), "keep")
    can_be_told = "{% if not keep_thinking %}" + strips + "{% endif %}"
    for text in ("{{ messages[0].content }}", can_be_told):
        assert with_thinking(Template(OWN, text), "keep") == Template(OWN, text, "keep")
    for thinking in ("template", "strip"):
        assert with_thinking(Template(OWN, strips), thinking) == Template(OWN, strips, thinking)
    for family in LEARNED:
        assert with_thinking(load_template(family), "keep").thinking == "keep"


def turn(content: str, **more) -> tuple[dict, dict]:
    return {"role": "user", "content": "?"}, {"role": "assistant", "content": content, **more}


@pytest.mark.parametrize(
    ("family", "messages", "lost"),
    [
        ("qwen3", turn("Two."), False),
        ("qwen3", turn(KEPT[0]), False),
        ("qwen3", (*turn("One."), *turn(KEPT[0])), False),
        ("qwen3", (*turn(KEPT[0]), *turn(KEPT[1])), True),
        ("qwen3", (*turn(KEPT[0]), *turn("Two.")), True),
        ("qwen3", ({"role": "system", "content": "End with </think>."}, *turn(KEPT[0]), *turn(KEPT[1])), True),
        ("qwen3", turn("Two.", reasoning_content="Hm."), False),
        ("qwen3", (*turn("Two.", reasoning_content="Hm."), *turn("Four.", reasoning_content="Ah.")), True),
        ("chatml", turn("Two.", reasoning_content="Hm."), True),
        ("chatml", (*turn(KEPT[0]), *turn(KEPT[1])), False),
        ("deepseek_r1_distill_qwen", turn(KEPT[0]), True),
        ("deepseek_r1_distill_qwen", turn("Two."), False),
    ],
    ids=[
        *("none", "kept", "in_last_answer", "in_both", "in_first_answer", "spelled_in_system_text", "kept_field"),
        *("field_in_both", "field_that_template_drops", "kept_in_both", "dropped", "none_to_drop"),
    ],
)
def test_a_conversation_that_loses_reasoning_is_counted(family, messages, lost):
    noticed = noticed_of(Conversation("a:1", messages), load_template(family))
    assert noticed == Noticed(without_their_reasoning=int(lost))


def test_the_marks_are_noncharacters():
    for mark in (BORDER, OPEN, CLOSE):
        assert unicodedata.category(mark) == "Cn"
        assert 0xFDD0 <= ord(mark) <= 0xFDEF
