"""Alpaca: ``instruction``, ``input`` and ``output``, optionally ``system`` and the turns before as ``history``."""

from typing import Any

from ftx.data.conversation import Message
from ftx.data.formats.checks import Parts, optional_text, parsed, required_text
from ftx.data.formats.tools import read_functions
from ftx.data.rows import json_type


def read_alpaca(row: dict[str, Any]) -> Parts:
    """``input`` follows ``instruction`` after a blank line; ``history`` is a list of pairs of question and answer."""
    system = optional_text(row, "system")
    messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
    for question, answer in _history(parsed("history", row.get("history") or [])):
        messages += _turn(question, answer)
    given = optional_text(row, "input")
    question = required_text(row, "instruction") + (f"\n\n{given}" if given.strip() else "")
    return (*messages, *_turn(question, required_text(row, "output"))), read_functions(row.get("tools"))


def _history(pairs: Any) -> list[list[str]]:
    if not isinstance(pairs, list):
        raise ValueError(f"history must be a list of pairs, not {json_type(pairs)}")
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise ValueError(f"history[{index}] must be a pair of question and answer, two strings")
    return pairs


def _turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
