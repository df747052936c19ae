"""Problems with worked answers: GSM8K as it is, MathCodeInstruct and SciBench as ``<think>`` and a final answer."""

import re
from typing import Any

from ftx.data.conversation import Message
from ftx.data.formats.checks import (
    Parts,
    check_is_string,
    check_objects,
    optional_text,
    parsed,
    required,
    required_text,
    shown,
)

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_FENCES = {"code": "```python\n{}\n```", "execution": "```output\n{}\n```", "text": "{}"}
_ROLES = ("system", "user", "assistant", *_FENCES)


def read_gsm8k(row: dict[str, Any]) -> Parts:
    """``question`` and ``answer``: the reasoning without calculator marks, then the line ``#### 18``."""
    reasoning, *final = required_text(row, "answer").split("####")
    if len(final) != 1 or not final[0].strip():
        raise ValueError("answer must hold #### and the final answer after it, once")
    reasoning = _CALCULATOR.sub("", reasoning).strip()
    answer = f"{reasoning}\n#### {final[0].strip()}".lstrip("\n")
    return _exchange(required_text(row, "question"), answer), ()


def read_scibench(row: dict[str, Any]) -> Parts:
    """``problem_text`` asked in its ``unit``; the ``solution``, where there is one, is thought before the answer."""
    unit = " ".join(optional_text(row, "unit").split())
    question = _lines(required_text(row, "problem_text")).strip() + (f"\n\nGive the answer in {unit}." if unit else "")
    number = required_text(row, "answer_number").strip().replace("\N{MINUS SIGN}", "-")
    answer = f"{number} {unit}".strip()
    solution = _lines(optional_text(row, "solution"))
    return _exchange(question, thought(solution, answer)), ()


def read_mathcodeinstruct(row: dict[str, Any]) -> Parts:
    """``messages`` of text, code and execution blocks: the last text is the answer, all before it is thought.

    The blocks are messages of that role, or the parts (type and content) of an assistant message.
    """
    asked: list[Message] = []
    blocks: list[tuple[str, str]] = []
    for role, kind, text in _blocks(row):
        if role not in ("system", "user"):
            blocks.append((kind, text))
        elif blocks:
            raise ValueError(f"the {role} speaks after the solution has begun; one problem a row")
        elif text.strip():
            asked.append({"role": role, "content": text})
    if not any(message["role"] == "user" for message in asked):
        raise ValueError("messages has no problem: no text of the user")
    last, answer = blocks[-1] if blocks else ("user", "")
    if last != "text" or not answer.strip():
        held = "a blank one" if last == "text" else last
        raise ValueError(f"messages must end with a text, the final answer, not with {held}")
    reasoning = "\n\n".join(_FENCES[kind].format(text.strip("\n")) for kind, text in blocks[:-1])
    return (*asked, {"role": "assistant", "content": thought(reasoning, answer.strip())}), ()


def thought(reasoning: str, answer: str) -> str:
    """What a reasoning model writes; the thoughts may be empty."""
    if "</think>" in reasoning or "</think>" in answer:
        raise ValueError("holds </think>, which ends the thoughts, within its text")
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{answer}"


def _blocks(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """All blocks in order: role, kind and text."""
    messages = parsed("messages", required(row, "messages"))
    check_objects("messages", messages)
    return [
        (message["role"], *block)
        for index, message in enumerate(messages)
        for block in _blocks_of(f"messages[{index}]", message)
    ]


def _blocks_of(where: str, message: dict[str, Any]) -> list[tuple[str, str]]:
    role, parts = required(message, "role"), required(message, "content")
    if role not in _ROLES:
        raise ValueError(f"{where}.role must be one of {', '.join(_ROLES)}, not {shown(role)}")
    if isinstance(parts, str):
        return [(role if role in _FENCES else "text", parts)]
    check_objects(f"{where}.content", parts)
    for index, part in enumerate(parts):
        kinds = ("text",) if role in ("system", "user") else tuple(_FENCES)
        if part.get("type") not in kinds:
            raise ValueError(
                f"{where}.content[{index}].type must be {' or '.join(kinds)}, not {shown(part.get('type'))}"
            )
        check_is_string(f"{where}.content[{index}].content", part.get("content"))
    return [(part["type"], part["content"]) for part in parts]


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _exchange(question: str, answer: str) -> tuple[Message, ...]:
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}
