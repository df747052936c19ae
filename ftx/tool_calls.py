"""The function calls in what a model wrote, in whichever form its family writes them."""

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ftx.data.formats.glaive import CALL as GLAIVE_CALL
from ftx.data.formats.glaive import END as GLAIVE_END
from ftx.data.formats.glaive import read_functioncall
from ftx.data.rows import check_is_text

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_DEEPSEEK = re.compile(
    r"<｜tool▁call▁begin｜>function<｜tool▁sep｜>(.*?)\n```json\n(.*?)\n```(?:<｜tool▁call▁end｜>|\Z)", re.DOTALL
)
_DEEPSEEK_BEGIN = "<｜tool▁call▁begin｜>"
_PYTHON_TAG = "<|python_tag|>"
_FENCED = re.compile(r"```\w*\n(.*)\n```", re.DOTALL)
_BEGINS_JSON = re.compile(r'\[?\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:')
_BEGINS_PYTHON = re.compile(r"\[\s*[A-Za-z_][\w.]*\s*\(")
_BARE_PYTHON = re.compile(r"[A-Za-z_][\w.]*\s*\(.*\)", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A function by its name, with its arguments by theirs: what JSON can hold."""

    name: str
    arguments: dict[str, Any]


class _Unreadable(ValueError):
    """A call was begun here and is none."""


def read_calls(text: str) -> tuple[Call, ...] | None:
    """The calls in a generated text, ``()`` where it makes none, None where one is begun that cannot be read.

    Known are ``<tool_call>`` around JSON (Qwen, Hermes), bare JSON with ``parameters`` or ``arguments`` (Llama 3.1),
    ``<functioncall>`` (Glaive), DeepSeek's marks, and calls as Python writes them (the Berkeley board's prompts).
    What is thought, before ``</think>``, calls nothing.
    """
    said = text.rpartition("</think>")[2]
    if "<think>" in said:
        said = said.partition("<think>")[0]
    try:
        for mark, read in _MARKED.items():
            if mark in said:
                return tuple(read(said))
        return tuple(_unmarked(said))
    except ValueError:
        return None


def _tagged(text: str) -> Iterator[Call]:
    for body in _TAGGED.findall(text):
        yield _as_call(_load_json(body))


def _deepseek(text: str) -> Iterator[Call]:
    found = _DEEPSEEK.findall(text)
    if len(found) != text.count(_DEEPSEEK_BEGIN):
        raise _Unreadable(text)
    for name, arguments in found:
        yield _as_call({"name": name, "arguments": _load_json(arguments)})


def _glaive(text: str) -> Iterator[Call]:
    for body in text.split(GLAIVE_CALL)[1:]:
        function = read_functioncall(body.strip().removesuffix(GLAIVE_END))["function"]
        yield Call(function["name"], function["arguments"])


def _python_tagged(text: str) -> Iterator[Call]:
    return _json_calls(text.partition(_PYTHON_TAG)[2])


_MARKED: dict[str, Callable[[str], Iterator[Call]]] = {
    "<tool_call>": _tagged,
    GLAIVE_CALL: _glaive,
    _DEEPSEEK_BEGIN: _deepseek,
    _PYTHON_TAG: _python_tagged,
}


def _unmarked(text: str) -> Iterator[Call]:
    """Calls that nothing but their form tells from an answer: they are all that is said."""
    whole = text.strip()
    if fenced := _FENCED.fullmatch(whole):
        whole = fenced[1].strip()
    if _BEGINS_JSON.match(whole):
        return _json_calls(whole)
    if _BEGINS_PYTHON.match(whole):
        return _python_calls(whole)
    if _BARE_PYTHON.fullmatch(whole):
        with suppress(_Unreadable):
            return iter(list(_python_calls(f"[{whole}]")))
    return iter(())


def _json_calls(text: str) -> Iterator[Call]:
    """Objects one after the other, with ``;`` or nothing between them, or a list of them.

    One object alone with a name but nothing to call it with is an answer in JSON, not a call.
    """
    values: list[Any] = []
    rest = text.strip()
    while rest:
        value, end = _decode_json(rest)
        values += value if isinstance(value, list) else [value]
        rest = rest[end:].lstrip("; \n\r\t")
    is_answer = all(isinstance(value, dict) and not {"arguments", "parameters"} & set(value) for value in values)
    return iter(()) if is_answer else map(_as_call, values)


def _as_call(value: Any) -> Call:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"].strip():
        raise _Unreadable(value)
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = _load_json(arguments)
    if not isinstance(arguments, dict):
        raise _Unreadable(value)
    return Call(value["name"].strip(), arguments)


def _load_json(text: str) -> Any:
    """One JSON value and nothing else; line ends may stand in its strings as they are."""
    text = text.strip()
    value, end = _decode_json(text)
    if text[end:].strip():
        raise _Unreadable(text)
    return value


def _decode_json(text: str) -> tuple[Any, int]:
    """The JSON value that a text begins with, and where it ends."""
    try:
        value, end = _DECODER.raw_decode(text)
    except RecursionError as error:
        raise _Unreadable(text) from error
    check_is_text(value, text[:end])
    return value, end


def _refuse_constant(name: str) -> None:
    raise _Unreadable(f"{name} is no JSON")


_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse_constant)


def _python_calls(text: str) -> Iterator[Call]:
    """``[f(x=1), g.h()]``: arguments by name, values that are literals."""
    try:
        with warnings.catch_warnings():
            # Python's advice on escapes such as \\d is for those who write programs.
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _Unreadable(text) from error
    if not isinstance(tree, ast.List) or not tree.elts:
        raise _Unreadable(text)
    return map(_python_call, tree.elts)


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(keyword.arg is None for keyword in node.keywords):
        raise _Unreadable(ast.unparse(node))
    return Call(_dotted(node.func), {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords})


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    raise _Unreadable(ast.unparse(node))


def _literal(node: ast.expr) -> Any:
    """A literal as JSON would hold it: a tuple as a list."""
    try:
        return _load_json(json.dumps(ast.literal_eval(node), allow_nan=False))
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise _Unreadable(ast.unparse(node)) from error
