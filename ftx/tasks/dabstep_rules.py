"""Whether an answer to a DABStep task is right: by the leaderboard's own rule, and by one that means it.

``official`` decides as the benchmark's scorer does today, where it is lenient (neither signs nor labels beside numbers
count) as well as where it is not, so that our numbers are the leaderboard's. ``strict`` asks for the gold answer
itself.
"""

import math
import re
from collections import Counter
from decimal import Decimal
from difflib import SequenceMatcher

# -- the leaderboard's rule ----------------------------------------------------------------------------------------

_LONE_NUMBER = re.compile(r"\$?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+[.,]\d+)")
_FIRST_NUMBER = re.compile(r"\d*\.\d+|\d+\.?\d*")
_SEPARATOR = re.compile(r"[,;]")
_TOLERANCE = 1e-4


def official(answer: str, gold: str) -> bool:
    """The leaderboard's verdict."""
    answer, gold = answer.strip().lower(), gold.strip().lower()
    numbers = [number for text in (answer, gold) if (number := _first_number(text)) is not None]
    if _LONE_NUMBER.fullmatch(answer) or _LONE_NUMBER.fullmatch(gold):
        return len(numbers) == 2 and _numbers_agree(*numbers)
    if _SEPARATOR.search(answer) or _SEPARATOR.search(gold):
        return _lists_agree(_listed(answer), _listed(gold))
    return _numbers_agree(*numbers) if len(numbers) == 2 else _texts_agree(answer, gold)


def _first_number(text: str) -> float | None:
    """Without its sign; per cent are not made a ratio."""
    found = _FIRST_NUMBER.search(text.replace(",", "").replace("$", ""))
    return float(found[0]) if found else None


def _numbers_agree(one: float, other: float) -> bool:
    if one == other:
        return True
    if one >= 1 or other >= 1:
        decimals = min(_decimals(one), _decimals(other))
        if round(one, decimals) == round(other, decimals):
            return True
    return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)


def _decimals(number: float) -> int:
    """Characters behind the point as Python writes the float: one for a whole number, an exponent counts along."""
    return len(str(number).partition(".")[2])


def _listed(text: str) -> list[str]:
    items = (item.strip() for item in _SEPARATOR.split(text.removeprefix("[").removesuffix("]")))
    return sorted(item for item in items if item)


def _lists_agree(ones: list[str], others: list[str]) -> bool:
    return ones == others or (len(ones) == len(others) and all(map(official, ones, others)))


def _texts_agree(one: str, other: str) -> bool:
    if re.sub(r"\W", "", one) == re.sub(r"\W", "", other):
        return True
    words, other_words = re.findall(r"\w+", one), re.findall(r"\w+", other)
    if words and other_words and 1 in (len(words), len(other_words)):
        return set(words) <= set(other_words) or set(other_words) <= set(words)
    return SequenceMatcher(None, one, other).ratio() > 0.95


# -- the gold answer itself ----------------------------------------------------------------------------------------

_NUMBER = re.compile(r"[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?")
_Value = tuple[Decimal | str, ...]


def strict(answer: str, gold: str) -> bool:
    """The same value and nothing beside it.

    Numbers have the gold's sign and value to its last decimal (13.60 is 13.6; neither 13.57 nor 13.604 is), labels
    as in ``E:13.57`` and units are the gold's, texts are equal but for case and spaces. A gold answer with a comma or
    semicolon is a list: the same items as often, in any order, in brackets or not. An empty one asks for nothing.
    """
    if not _SEPARATOR.search(gold):
        return _value(answer) == _value(gold)
    return Counter(map(_value, _listed(answer.strip()))) == Counter(map(_value, _listed(gold.strip())))


def _value(text: str) -> _Value:
    """What a scalar says: its labels and its number or text."""
    return tuple(_number_or_text(part) for part in text.split(":"))


def _number_or_text(text: str) -> Decimal | str:
    said = " ".join(text.replace("\N{MINUS SIGN}", "-").casefold().split())
    if said.isascii() and _NUMBER.fullmatch(said):
        return Decimal(said.replace(",", ""))
    return said
