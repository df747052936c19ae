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
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ftx.data.conversation import Conversation, Message
from ftx.errors import UserError
from ftx.templates import Template

# What a template writes where the assistant's words begin and end: noncharacters, which Unicode keeps out of texts.
OPEN, CLOSE = "\ufdd1", "\ufdd2"
# Where a text must not become one token; see ftx.data.encode.
BORDER = "\ufdd0"

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
    messages = conversation.messages
    last = max(at for at, message in enumerate(messages) if message["role"] == "assistant")
    before = replace(conversation, messages=messages[:last])
    return _render(before, template, special_tokens, add_generation_prompt=True)


def _render(
    conversation: Conversation, template: Template, special_tokens: Mapping[str, Any], *, add_generation_prompt: bool
) -> Rendered:
    messages = [_with_reasoning_by_its_name(message) for message in conversation.messages]
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
    except (jinja2.TemplateError, TypeError) as error:
        raise UserError(f"{conversation.id}: template '{template.name}' cannot render it: {error}") from error
    return Rendered(tuple(_MARKS.split(marked)))


def _with_reasoning_by_its_name(message: Message) -> Message:
    """Templates read ``reasoning_content``; some data sets call it otherwise."""
    if "reasoning_content" in message:
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
    return {**kept, "content": content.split("</think>")[-1].lstrip("\n")} if isinstance(content, str) else kept


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


@lru_cache(maxsize=16)
def _compiled(template: Template) -> jinja2.Template:
    """With the settings and functions that transformers gives chat templates; one from a hub runs in a sandbox."""
    kind = ImmutableSandboxedEnvironment if template.is_foreign else _Environment
    environment = kind(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationMarks, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = _to_json
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
