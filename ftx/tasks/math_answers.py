"""The final answer of a worked problem, found in what was written, and whether it is the right one."""

import re
from dataclasses import dataclass
from fractions import Fraction

from ftx.tasks.math_numbers import begins_with_number, last_number, number_alone, read_number, tidied

# How far off a rounded number may be, relative to the right one, by SciBench's published rule (Wang et al., 2024).
ROUNDED_TOLERANCE = Fraction(5, 100)

_GSM8K_MARK = re.compile(r"^####[ \t]*(.+)$", re.MULTILINE)
_PHRASE = re.compile(r"\banswer\b\W{0,3}(?:is|are|:|=)(?:\s*:)?\s*(?=\S)", re.IGNORECASE)
_END_OF_SENTENCE = re.compile(r"[.!?](?=\s|$)|\n")
_EQUALS = re.compile(r"=|≈|\\approx\b")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")


@dataclass(frozen=True)
class FinalAnswer:
    """What a text gives as its answer; ``marked`` where it says so itself, else it is the last number in it."""

    text: str
    marked: bool


def final_answer(text: str) -> FinalAnswer | None:
    r"""The answer that a text comes to, None where there is none or where it is still being thought about.

    What counts is after ``</think>``: the last ``\boxed{}``, else the last line ``#### 18``, else the last "the answer
    is", else a single line that follows thoughts or begins with a number, else the last number.
    """
    _, thought, said = text.rpartition("</think>")
    said = said.strip()
    if not said or "<think>" in said:
        return None
    if (boxed := _boxed(said)) is not None:
        return FinalAnswer(boxed, marked=True)
    plain = said.replace("**", "")
    if lines := [line.strip() for line in _GSM8K_MARK.findall(plain) if begins_with_number(line)]:
        return FinalAnswer(lines[-1], marked=True)
    if phrases := list(_PHRASE.finditer(plain)):
        return FinalAnswer(_END_OF_SENTENCE.split(plain[phrases[-1].end() :])[0].strip(), marked=True)
    if "\n" not in plain and (thought or begins_with_number(plain)):
        return FinalAnswer(plain, marked=True)
    last = last_number(plain)
    return FinalAnswer(last, marked=False) if last is not None else None


def is_right(answer: str, gold: str, relative_tolerance: float | None = None) -> bool:
    """Whether an answer says what the gold one says.

    Where the gold answer is a number, so must this one be, within ``relative_tolerance`` of it; None: a whole number or
    a fraction exactly, a number with decimals or a power of ten within 5 %. Units are not looked at, but a bare number
    may be in the gold answer's (7.5 for 7.5 (10^6 m), 5 for 5 %). Any other gold answer is compared as a text.
    """
    right = number_alone(_after_the_only_equals(gold))
    if right is None:
        return tidied(answer) == tidied(gold)
    given = read_number(_EQUALS.split(answer)[-1])
    if given is None:
        return False
    if relative_tolerance is None:
        tolerance = ROUNDED_TOLERANCE if right.is_rounded else Fraction(0)
    else:
        tolerance = Fraction(relative_tolerance)
    return any(abs(one - other) <= tolerance * abs(other) for one in given.values for other in right.values_in_its_unit)


def _boxed(text: str) -> str | None:
    r"""What is in the last ``\boxed{…}`` that is closed."""
    for start in reversed([found.end() for found in _BOXED.finditer(text)]):
        depth = 1
        for at in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                return text[start:at].strip()
    return None


def _after_the_only_equals(text: str) -> str:
    parts = _EQUALS.split(text)
    return parts[1] if len(parts) == 2 else text
