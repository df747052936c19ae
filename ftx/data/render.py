"""Conversations → text, and what of it the assistant wrote. A template is compiled once."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import accumulate
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ftx.data.conversation import Conversation, Message, Stored, from_stored
from ftx.data.guard import CLOSE, OPEN, Guard, Noticed
from ftx.errors import UserError
from ftx.templates import Template

END_OF_REASONING = "</think>"

# What rendering may end in, in a template that came with a tokenizer.
_FAILURES = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
_WAY_OUT = "; choose another model.template, or skip such conversations with data.on_bad_row=skip"
_MARKS = re.compile(f"[{OPEN}{CLOSE}]")
_METHODS_OF_DICT = frozenset(dir(dict))
_OTHER_NAMES_OF_REASONING = ("thinking", "reasoning")


@dataclass(frozen=True)
class Rendered:
    """A conversation's text in pieces: not the assistant's, the assistant's, not the assistant's, and so on."""

    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Where in the text the assistant's pieces lie: ``[start, end)`` in characters."""
        ends = list(accumulate(map(len, self.pieces)))
        return list(zip(ends[0::2], ends[1::2], strict=False))


def render(conversation: Conversation, template: Template, special_tokens: Mapping[str, Any]) -> Rendered:
    """The text that the model sees and what of it is to be learned."""
    return _render(conversation, template, special_tokens, add_generation_prompt=False)


def render_prompt(conversation: Conversation, template: Template, special_tokens: Mapping[str, Any]) -> Rendered:
    """Everything before the last assistant turn, and the header of the turn that the model has to write."""
    return render_question(before_the_answer(conversation), template, special_tokens)


def render_question(conversation: Conversation, template: Template, special_tokens: Mapping[str, Any]) -> Rendered:
    """The whole conversation so far, and the header of the turn that the model has to write."""
    return _render(conversation, template, special_tokens, add_generation_prompt=True)


def before_the_answer(conversation: Conversation) -> Conversation:
    """The conversation up to its last assistant turn."""
    messages = conversation.messages
    last = max(at for at, message in enumerate(messages) if message["role"] == "assistant")
    return replace(conversation, messages=messages[:last])


@dataclass(frozen=True)
class RenderedBatch:
    """Conversations by their ids, where in the batch they stood, and what was noticed of them.

    ``refused`` has the reasons for those of its ``size`` that the template cannot render and that are to be skipped.
    """

    ids: list[str]
    rendered: list[Rendered]
    places: list[int]
    size: int
    refused: list[str]
    noticed: Noticed


class BatchRenderer:
    """Renders batches of conversations, stored ones or such in memory."""

    def __init__(
        self, template: Template, special_tokens: Mapping[str, Any], control: Sequence[str], skip: bool = False
    ) -> None:
        """``skip`` what the template cannot render; else it is raised as UserError."""
        self._template, self._special_tokens, self._control, self._skip = template, special_tokens, control, skip

    def __call__(self, batch: Sequence[Conversation | Stored]) -> RenderedBatch:
        noticed = Noticed()
        guard = Guard(self._control, noticed)
        result = RenderedBatch([], [], [], len(batch), [], noticed)
        for place, given in enumerate(batch):
            conversation = guard(given if isinstance(given, Conversation) else from_stored(given))
            try:
                one = render(conversation, self._template, self._special_tokens)
            except UserError as error:
                if not self._skip:
                    raise
                result.refused.append(str(error))
                noticed.refused += 1
                continue
            noticed.without_their_reasoning += _lost_reasoning(conversation, one)
            result.ids.append(conversation.id)
            result.rendered.append(one)
            result.places.append(place)
        return result


def _lost_reasoning(conversation: Conversation, rendered: Rendered) -> bool:
    """Whether the template left out what an answer reasoned."""
    thoughts = [thought for message in conversation.messages if (thought := _reasoning_of(message))]
    return bool(thoughts) and not all(thought in rendered.text for thought in thoughts)


def _reasoning_of(message: Message) -> str:
    if message["role"] != "assistant":
        return ""
    apart, content = with_reasoning_by_its_name(message).get("reasoning_content"), message.get("content")
    if isinstance(content, str) and END_OF_REASONING in content:
        return content.rpartition(END_OF_REASONING)[0].rpartition("<think>")[2].strip()
    return apart.strip() if isinstance(apart, str) else ""


def _render(
    conversation: Conversation, template: Template, special_tokens: Mapping[str, Any], *, add_generation_prompt: bool
) -> Rendered:
    messages = [with_reasoning_by_its_name(message) for message in conversation.messages]
    if template.thinking == "strip":
        messages = _without_earlier_reasoning(messages)
    try:
        marked = _compiled(template).render(
            messages=messages,
            tools=list(conversation.tools) or None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **({"keep_thinking": True} if template.thinking == "keep" else {}),
            **special_tokens,
        )
    except _FAILURES as error:
        raise UserError(f"{conversation.id}: template '{template.name}' cannot render it: {error}{_WAY_OUT}") from error
    return Rendered(tuple(_MARKS.split(marked)))


def with_reasoning_by_its_name(message: Message) -> Message:
    """Templates read ``reasoning_content``; some data sets call it otherwise."""
    if message.get("reasoning_content") is not None:
        return message
    for name in _OTHER_NAMES_OF_REASONING:
        if message.get(name) is not None:
            return {**message, "reasoning_content": message[name]}
    return message


def _without_earlier_reasoning(messages: Sequence[Message]) -> list[Message]:
    """No ``<think>`` block in an answer that comes before the last question."""
    asked = [at for at, message in enumerate(messages) if message["role"] == "user"]
    last_question = asked[-1] if asked else -1
    return [
        _without_reasoning(message) if at < last_question and message["role"] == "assistant" else message
        for at, message in enumerate(messages)
    ]


def _without_reasoning(message: Message) -> Message:
    kept = {name: value for name, value in message.items() if name not in ("reasoning_content", "thinking")}
    content = kept.get("content")
    if not isinstance(content, str) or END_OF_REASONING not in content:
        return kept
    return {**kept, "content": content.split(END_OF_REASONING)[-1].lstrip("\n")}


class _GenerationMarks(jinja2.ext.Extension):
    """``{% generation %}`` … ``{% endgeneration %}`` writes its body between OPEN and CLOSE."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        marks = [jinja2.nodes.Output([jinja2.nodes.TemplateData(mark)], lineno=line) for mark in (OPEN, CLOSE)]
        return [marks[0], jinja2.nodes.Scope(body, lineno=line), marks[1]]


class _Environment(jinja2.Environment):
    """Looks keys of messages and tools up as keys first, which is several times faster than as attributes."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is not dict or attribute in _METHODS_OF_DICT:
            return super().getattr(obj, attribute)
        return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)


class _Namespace(jinja2.utils.Namespace):
    """One that no template can reach Python's internals through, as transformers has it."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        for name in dict(*args[1:], **kwargs):
            _refuse_internals(name)
        jinja2.utils.Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_internals(name)
        super().__setitem__(name, value)


def _refuse_internals(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace has no place for {name}")


@lru_cache(maxsize=16)
def _compiled(template: Template) -> jinja2.Template:
    """With the settings and functions that transformers gives chat templates; one from a hub runs in a sandbox."""
    kind = ImmutableSandboxedEnvironment if template.is_foreign else _Environment
    environment = kind(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationMarks, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["namespace"] = _Namespace
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template.text)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
