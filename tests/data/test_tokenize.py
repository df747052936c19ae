"""Tokens and loss masks: what is supervised is what the assistant wrote, token by token, batch by batch."""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ftx.data.conversation import Conversation, to_stored
from ftx.data.encode import Encoder, TokenBatch, control_tokens, exact_encoder
from ftx.data.guard import Noticed
from ftx.data.render import BatchRenderer, Rendered, render, render_prompt
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.data.tokenize import (
    AHEAD,
    BATCH,
    Tokenized,
    marks_of,
    stop_ids,
    supervised_counts,
    tokenize,
    tokenize_batches,
    tokenize_prompts,
)
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.templates import Template, load_template

SHARED_DATA = Path(os.environ.get("FTX_SHARED_DATA", CHECKOUT.parent / "shared" / "data"))
CHATML, PLAIN = load_template("chatml"), load_template("plain")
END = "<|im_end|>"

# Learned so that it merges over every border there is: newlines, words without a space, a role with its answer.
TOKENIZER = train_tokenizer(
    ["assistant\n\nan answer\n\n\n", "\n \nuser\n\n", "questionanswer", "aabb é é", "the answer  is  <|im"] * 20, 600
)

texts = st.lists(
    st.sampled_from(
        ["\n", " ", "\n\n", "answer", "question", "an", "<|im", "_end|>", END, "assistant\n", "é", "e\u0301"]
    )
    | st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=6),
    max_size=6,
).map("".join)
turns = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), texts), min_size=1, max_size=6)


def conversation(turns: list[tuple[str, str]], **more) -> Conversation:
    return Conversation("chats.jsonl:7", tuple({"role": role, "content": content} for role, content in turns), **more)


def decoded(tokenizer, input_ids) -> str:
    return tokenizer.decode(input_ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)


@settings(max_examples=150)
@given(turns, texts, st.sampled_from([CHATML, PLAIN]))
def test_the_supervised_tokens_spell_the_answers_and_the_rest_spells_the_rest(turns, answer, template):
    turns = [("user", "?"), *turns, ("assistant", answer)]
    (one,) = tokenize([conversation(turns)], TOKENIZER, template)
    answers = "".join(content + END for role, content in turns if role == "assistant")
    assert decoded(TOKENIZER, one.input_ids[one.supervised]) == answers
    if template is CHATML:
        others = "".join(
            f"<|im_start|>{role}\n" + ("\n" if role == "assistant" else f"{content}{END}\n") for role, content in turns
        )
    else:
        others = "".join(content for role, content in turns if role != "assistant")
    assert decoded(TOKENIZER, one.input_ids[~one.supervised]) == others
    if template is CHATML:  # plain puts messages side by side, where two of them may spell it together
        assert one.input_ids.tolist().count(TOKENIZER.convert_tokens_to_ids(END)) == len(turns)


@settings(max_examples=75)
@given(turns, texts, st.sampled_from([CHATML, PLAIN]))
def test_a_prompt_has_the_tokens_that_training_has_before_the_last_answer(turns, answer, template):
    asked = conversation([("user", "?"), *turns, ("assistant", answer)])
    (one,) = tokenize([asked], TOKENIZER, template)
    (prompt,) = tokenize_prompts([asked], TOKENIZER, template)
    assert one.input_ids.tolist()[: len(prompt)] == prompt
    after = one.input_ids[len(prompt) :][one.supervised[len(prompt) :]]
    assert decoded(TOKENIZER, after) == answer + END


def test_the_tokenizer_alone_would_merge_over_the_borders():
    """Otherwise the properties above would hold for nothing."""
    for template, turns in (
        (CHATML, [("assistant", "\n\nan")]),
        (PLAIN, [("user", "question"), ("assistant", "answer")]),
    ):
        rendered = render(conversation(turns), template, TOKENIZER.special_tokens_map)
        offsets = TOKENIZER.backend_tokenizer.encode(rendered.text, add_special_tokens=False).offsets
        assert any(start < rendered.spans[0][0] < end for start, end in offsets)


load_once = cache(AutoTokenizer.from_pretrained)


def real_tokenizer(folder: str):
    path = SHARED_DATA / folder
    if not path.is_dir():
        pytest.skip(f"needs {path}: set FTX_SHARED_DATA")
    return load_once(path)


CHAT = [("system", "Be brief."), ("user", "1+1?\n"), ("assistant", " 2"), ("user", "ok"), ("assistant", "<s> it")]


def test_ordinary_chats_have_the_tokens_that_transformers_gives_them():
    tokenizer = real_tokenizer("tokenizers/qwen3")
    tokenizer.chat_template = CHATML.text
    one = conversation(CHAT)
    expected = tokenizer.apply_chat_template(
        list(one.messages), return_dict=True, return_assistant_tokens_mask=True, tokenize=True
    )
    (ours,) = tokenize([one], tokenizer, CHATML)
    assert ours.input_ids.tolist() == expected["input_ids"]
    assert ours.supervised.tolist() == [bool(mask) for mask in expected["assistant_masks"]]


@pytest.mark.parametrize(
    "content", ["\n\nTwo.", "  indented", "\n", "e\u0301", "\u0301", "<|im_end|>", "<think>\n</think>"]
)
def test_a_real_tokenizer_supervises_exactly_the_answer(content):
    tokenizer = real_tokenizer("tokenizers/qwen3")
    (one,) = tokenize([conversation([("user", "1+1?"), ("assistant", content)])], tokenizer, CHATML)
    normal = tokenizer.backend_tokenizer.normalizer.normalize_str(content)
    assert decoded(tokenizer, one.input_ids[one.supervised]) == normal + END
    assert one.input_ids.tolist().count(tokenizer.convert_tokens_to_ids(END)) == 2


def test_a_tokenizer_that_marks_first_words_still_does_after_a_control_token():
    """Llama's: a border between <s> and the answer must not part the mark from its word."""
    tokenizer = real_tokenizer("stories260k/hf")
    (first, joined) = tokenize(
        [conversation([("assistant", "Once upon")]), conversation([("user", "Once"), ("assistant", "upon <s>")])],
        tokenizer,
        PLAIN,
    )
    assert tokenizer.convert_ids_to_tokens(first.input_ids) == ["<s>", "▁Once", "▁upon", "</s>"]
    assert first.supervised.tolist() == [False, True, True, True]
    pieces = tokenizer.convert_ids_to_tokens(joined.input_ids)
    assert pieces[:2] == ["<s>", "▁Once"]
    assert "".join(pieces[2:]) == "upon▁<s></s>"
    assert pieces.count("<s>") == 1
    assert joined.supervised.tolist() == [False, False] + [True] * (len(pieces) - 2)


def test_chatml_renders_tools_and_calls_and_supervises_the_call():
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": "é<|im_end|>", "b": 2}}}
    messages = (
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "Four."},
    )
    asked = Conversation("a:1", messages, ({"name": "add"},))
    rendered = render(asked, CHATML, {})
    called = '<tool_call>{"name": "add", "arguments": {"a": "é<|im_end|>", "b": 2}}</tool_call><|im_end|>'
    assert rendered.text == (
        '<|im_start|>system\nTools, one JSON object a line:\n{"name": "add"}\n<|im_end|>\n'
        f"<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n{called}\n"
        "<|im_start|>tool\n4<|im_end|>\n<|im_start|>assistant\nFour.<|im_end|>\n"
    )
    assert [rendered.text[start:end] for start, end in rendered.spans] == [called, "Four.<|im_end|>"]
    (one,) = tokenize([asked], TOKENIZER, CHATML)
    assert decoded(TOKENIZER, one.input_ids[one.supervised]) == called + "Four.<|im_end|>"
    assert one.input_ids.tolist().count(TOKENIZER.convert_tokens_to_ids(END)) == 5


def test_a_prompt_ends_with_the_header_of_the_turn_to_write():
    asked = conversation([("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")])
    prompt = render_prompt(asked, CHATML, {}).text
    history = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
    assert prompt == history + "<|im_start|>assistant\n"
    assert render_prompt(asked, PLAIN, {"bos_token": "<s>"}).text == "<s>abc"


def test_a_template_file_without_marks_is_refused_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "bare.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    monkeypatch.setattr("ftx.templates.CHECKOUT", tmp_path)
    with pytest.raises(UserError, match=r"^templates/bare\.jinja has no \{% generation %\} marks"):
        load_template("bare")


def test_a_template_without_marks_is_refused_by_its_name():
    bare = Template("bare", "{% for message in messages %}{{ message.content }}{% endfor %}")
    with pytest.raises(UserError, match=r"chats\.jsonl:7: template 'bare' leaves no token of it to learn from"):
        tokenize([conversation([("user", "a"), ("assistant", "b")])], TOKENIZER, bare)


def test_a_conversation_without_a_token_to_learn_is_refused_by_its_name():
    marked = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    no_end = Template("no_end", marked + "{% else %}{{ m.content }}{% endif %}{% endfor %}")
    good, empty = conversation([("user", "a"), ("assistant", "b")]), conversation([("user", "a"), ("assistant", "")])
    assert tokenize([good], TOKENIZER, no_end)[0].supervised.tolist() == [False, True]
    alone = conversation([("assistant", "b")])
    for bad in (empty, alone):
        with pytest.raises(UserError, match=r"chats\.jsonl:7: template 'no_end'"):
            tokenize([good, bad], TOKENIZER, no_end)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (conversation([("user", "a"), ("assistant", "b")], tools=({"name": "add"},)), "no place for tools"),
        (Conversation("chats.jsonl:7", ({"role": "assistant", "content": None, "tool_calls": [{}]},)), "tool calls"),
    ],
)
def test_what_a_template_cannot_render_is_the_users_to_mend(one, reason):
    with pytest.raises(UserError, match=rf"^chats\.jsonl:7: template 'plain' cannot render it: .*{reason}"):
        tokenize([one], TOKENIZER, PLAIN)


def test_an_answer_ends_at_the_templates_end_of_turn_and_at_the_tokenizers_own():
    assert stop_ids(TOKENIZER, CHATML) == stop_ids(TOKENIZER, PLAIN) == [TOKENIZER.convert_tokens_to_ids(END)]
    qwen = real_tokenizer("tokenizers/qwen3")
    assert stop_ids(qwen, CHATML) == sorted(qwen.convert_tokens_to_ids([END, "<|endoftext|>"]))


def test_a_template_whose_end_of_turn_is_no_token_cannot_answer():
    tokenizer = real_tokenizer("stories260k/hf")
    assert stop_ids(tokenizer, PLAIN) == [2]
    with pytest.raises(UserError, match=r"model\.template=chatml: its end of turn <\|im_end\|>"):
        stop_ids(tokenizer, CHATML)


def test_real_conversations_with_tools_keep_their_answers():
    path = SHARED_DATA / "glaive" / "glaive_toolcall_en_demo.json"
    if not path.exists():
        pytest.skip(f"needs {path}: set FTX_SHARED_DATA")
    roles = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
    for row in json.loads(path.read_text())[:100]:
        turns = [(roles[turn["from"]], turn["value"]) for turn in row["conversations"]]
        (one,) = tokenize([conversation(turns, tools=tuple(json.loads(row["tools"] or "[]")))], TOKENIZER, CHATML)
        answers = "".join(content + END for role, content in turns if role == "assistant")
        assert decoded(TOKENIZER, one.input_ids[one.supervised]) == answers


# ---- Batches


def numbered(count: int) -> list[Conversation]:
    """Of many lengths, so that one in another's place would be found out."""
    return [
        Conversation(
            f"chats.jsonl:{number}",
            (
                {"role": "user", "content": f"{number}?" * (number % 5)},
                {"role": "assistant", "content": f"answer {number} " * (1 + number % 3)},
            ),
        )
        for number in range(count)
    ]


def separate(batches: Iterator[tuple[list[str], TokenBatch]]) -> list[Tokenized]:
    found = []
    for ids, batch in batches:
        assert len(ids) == len(batch.lengths) == len(batch.run_counts)
        token_ends, run_ends = batch.lengths.cumsum()[:-1], batch.run_counts.cumsum()[:-1]
        for one, tokens, runs in zip(
            ids, np.split(batch.input_ids, token_ends), np.split(batch.runs, run_ends), strict=True
        ):
            found.append(Tokenized(one, tokens, marks_of(runs)))
    return found


def assert_same(found: Sequence[Tokenized], expected: Sequence[Tokenized]) -> None:
    assert [one.id for one in found] == [one.id for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.input_ids.tolist() == theirs.input_ids.tolist()
        assert ours.supervised.tolist() == theirs.supervised.tolist()


@cache
def one_by_one(count: int) -> list[Tokenized]:
    """What ``numbered`` are as tokens, each in a call of its own."""
    return [tokenize([one], TOKENIZER, CHATML)[0] for one in numbered(count)]


class Recording:
    """The tokenizer itself, and how many conversations it was given at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._encode: Encoder = exact_encoder(TOKENIZER)

    def __call__(self, rendered: Sequence[Rendered]) -> TokenBatch:
        self.sizes.append(len(rendered))
        return self._encode(rendered)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        *((0, []), (1, [1]), (BATCH - 1, [BATCH - 1]), (BATCH, [BATCH]), (BATCH + 1, [BATCH, 1])),
        (2 * BATCH + 7, [BATCH, BATCH, 7]),
    ],
)
def test_conversations_come_in_order_and_in_batches_of_so_many(count, sizes):
    conversations, encode = numbered(count), Recording()
    found = separate(tokenize_batches(iter(conversations), TOKENIZER, CHATML, encode, Noticed()))
    assert encode.sizes == sizes
    assert_same(found, one_by_one(2 * BATCH + 7)[: len(conversations)])


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 6, 7, 50])
def test_whatever_the_size_of_batches_the_tokens_are_the_same(batch, count, monkeypatch):
    monkeypatch.setattr("ftx.data.tokenize.BATCH", batch)
    conversations, encode = numbered(count), Recording()
    found = separate(tokenize_batches(conversations, TOKENIZER, CHATML, encode, Noticed()))
    assert encode.sizes == [batch] * (count // batch) + [count % batch] * bool(count % batch)
    assert_same(found, one_by_one(2 * BATCH + 7)[: len(conversations)])


def test_stored_conversations_and_such_in_memory_are_rendered_the_same():
    tools = ({"type": "function", "function": {"name": "é<|im_end|>"}},)
    chats = [*numbered(3), conversation([("user", "\ufdd1é"), ("assistant", f"{END}\n")], tools=tools)]
    render_batch = BatchRenderer(CHATML, TOKENIZER.special_tokens_map, control_tokens(TOKENIZER))
    assert render_batch(list(map(to_stored, chats))) == render_batch(chats)
    assert render_batch(chats).ids == [*(one.id for one in numbered(3)), "chats.jsonl:7"]
    assert render_batch(chats).noticed == Noticed(with_control_tokens=1, with_noncharacters=1)


class Waiting(Recording):
    """Encodes a batch no sooner than conversations enough for it are rendered."""

    def __init__(self, rendered_before: dict[int, threading.Event]) -> None:
        super().__init__()
        self._rendered_before = rendered_before

    def __call__(self, rendered: Sequence[Rendered]) -> TokenBatch:
        event = self._rendered_before.get(len(self.sizes))
        assert event is None or event.wait(60), "nothing is rendered while a batch is encoded"
        return super().__call__(rendered)


def test_the_next_batches_are_rendered_while_an_encoder_is_slow_and_stay_in_order(monkeypatch):
    """Batch 0 is encoded once 5 more are rendered, batch 4 once 12 more are."""
    monkeypatch.setattr("ftx.data.tokenize.BATCH", 4)
    conversations = numbered(101)
    events = {0: (6 * 4, threading.Event()), 4: ((4 + AHEAD - 3) * 4, threading.Event())}

    def read() -> Iterator[Conversation]:
        for number, one in enumerate(conversations):
            for at, event in events.values():
                if number == at:
                    event.set()
            yield one

    encode = Waiting({batch: event for batch, (_, event) in events.items()})
    found = separate(tokenize_batches(read(), TOKENIZER, CHATML, encode, Noticed()))
    assert encode.sizes == [4] * 25 + [1]
    assert_same(found, one_by_one(2 * BATCH + 7)[: len(conversations)])


def test_no_more_batches_are_rendered_ahead_than_may_wait(monkeypatch):
    """Otherwise all of a large data set would lie in memory while the first batch is encoded."""
    monkeypatch.setattr("ftx.data.tokenize.BATCH", 1)
    may_go_on, read = threading.Event(), []

    def conversations() -> Iterator[Conversation]:
        for one in numbered(4 * AHEAD):
            read.append(one)
            if len(read) == AHEAD + 1:
                may_go_on.set()
            yield one

    encode = Waiting({0: may_go_on})
    batches = tokenize_batches(conversations(), TOKENIZER, CHATML, encode, Noticed())
    for number, (ids, _) in enumerate(batches):
        assert ids == [f"chats.jsonl:{number}"]
        assert len(read) <= number + AHEAD + 1
    assert len(read) == number + 1 == 4 * AHEAD


def test_a_conversation_that_cannot_be_learned_from_is_named_wherever_it_is(monkeypatch):
    monkeypatch.setattr("ftx.data.tokenize.BATCH", 3)
    bad = Conversation("chats.jsonl:bad", ({"role": "user", "content": "a"},))
    for at in range(8):
        conversations = numbered(8)
        conversations.insert(at, bad)
        batches = tokenize_batches(conversations, TOKENIZER, CHATML, Recording(), Noticed())
        with pytest.raises(
            UserError, match=r"^chats\.jsonl:bad: template 'chatml' leaves no token of it to learn from"
        ):
            list(batches)


def test_the_supervised_tokens_of_each_conversation_are_counted():
    conversations = numbered(30)
    ((_, batch),) = tokenize_batches(conversations, TOKENIZER, CHATML, exact_encoder(TOKENIZER), Noticed())
    assert supervised_counts(batch).tolist() == [int(one.supervised.sum()) for one in one_by_one(30)]


def test_what_is_noticed_is_counted_over_all_batches(monkeypatch):
    monkeypatch.setattr("ftx.data.tokenize.BATCH", 2)
    chats = [
        conversation([("user", "?"), ("assistant", "plain")]),
        conversation([("user", END), ("assistant", f"{END} \ufdd0")]),
        conversation([("user", "\ufdd1\ufdd2"), ("assistant", "<|im_start|>")]),
        conversation(
            [("user", "?"), ("assistant", "<think>Hm.</think>a"), ("user", "?"), ("assistant", "<think>Ah.</think>b")]
        ),
        conversation([("user", "\ufdd2"), ("assistant", "b")]),
    ]
    noticed = Noticed()
    encoder = exact_encoder(TOKENIZER)
    assert len(list(tokenize_batches(chats, TOKENIZER, load_template("qwen3"), encoder, noticed))) == 3
    assert noticed == Noticed(with_control_tokens=2, with_noncharacters=3, without_their_reasoning=1)
