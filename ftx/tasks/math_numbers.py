"""Numbers as people and LaTeX write them: signs, commas, fractions, per cent, powers of ten, units behind them."""

import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Number:
    """A number as it is written, exactly.

    ``is_rounded``: with decimals or a power of ten. ``mantissa``: of a power of ten that stands before a unit, with no
    sign of multiplication (``7.5 10^6 m``).
    """

    value: Fraction
    is_rounded: bool
    is_per_cent: bool = False
    mantissa: Fraction | None = None

    @property
    def values(self) -> tuple[Fraction, ...]:
        """What it may mean: 5 % is 5 to one who was asked for per cent, else 1/20."""
        return (self.value, self.value / 100) if self.is_per_cent else (self.value,)

    @property
    def values_in_its_unit(self) -> tuple[Fraction, ...]:
        """Those, and what is written by one who takes the power of ten for a part of the unit."""
        return self.values if self.mantissa is None else (*self.values, self.mantissa)


_NUMERAL = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d++(?:\.\d*+)?|\.\d++)"

# Plain text from LaTeX and typography, in this order.
_TIDYING = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"[−–]", "-"),
        (r"\\[dt]frac(?![a-z])", r"\\frac"),
        (r"\\(?:left|right|[bB]igg?[lr]?)\b", ""),
        (r"(?<=\d)(?:\\[,!;: ]|\{,\})(?=\d{3})", ","),
        (r"\\[,!;: ]|~|\s+", " "),
        (r"\^ ?\{? ?\\?circ\b ?\}?|\\degree\b", "°"),
        # Powers as ^6.
        (r"\*\*", "^"),
        (r"\^ ?(?:\{ ?([-+]?\d+) ?\}|([-+]?\d+))", r"^\1\2"),
        (r"\\(?:text|math|mbox|operatorname)(?:rm|bf|it|sf|tt)?\s*\{([^{}]*)\}", r" \1 "),
        # A dollar is money, perhaps with the sign before it, or LaTeX's.
        (r"([-+]) ?\\?[$€£] ?(?=[\d.])", r"\1"),
        (r"\\?[$€£]|\\[()\[\]]", " "),
        (r"\\%|\bper ?cent\b", "%"),
        # 1\frac{1}{2} and \frac12 as 1 1/2 and 1/2; what has no plain numbers in it stays.
        (r"\\frac ?(\d) ?(\d)", r"\\frac{\1}{\2}"),
        (rf"\\frac ?\{{ ?([-+]?{_NUMERAL}) ?\}} ?\{{ ?({_NUMERAL}) ?\}}", r" \1/\2 "),
        # A power of ten behind * where it is multiplied, behind a space where it belongs to the unit.
        (r"\{ *\}", ""),
        (r" *\^", "^"),
        (r"(?<=[\d.]) ?(?:\\times|\\cdot|[×·*x]) ?(?=10\^)", "*"),
        # The power of a unit or of a variable is no number of its own.
        (r"(?<=[^\W\d_])\^[-+]?\d+", ""),
    )
)
_SUPERSCRIPTS = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_AS_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")

_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)}}])(?<![\d)%]\ )[-+]\ ?)?
    (?<![\w.^])
    (?:
        (?:(?P<whole>\d++)\ +)?(?P<over>[-+]?{_NUMERAL})\ ?/\ ?(?P<under>{_NUMERAL})
      | (?P<base>\d{{1,6}})\^(?P<power>[-+]?\d{{1,3}})(?!\d)
      | (?P<numeral>{_NUMERAL})(?:[eE](?P<exponent>[-+]?\d{{1,3}})(?!\d))?
        (?:(?P<times>\ ?\*|\ +)10\^(?P<scale>[-+]?\d{{1,3}})(?!\d))?
    )
    (?P<per_cent>\ ?%)?
    """,
    re.VERBOSE,
)
_FORMULA = re.compile(r"\\(?:pi|sqrt|frac|log|ln|exp|sin|cos|tan|infty|pm|in|cup|leq?|geq?)(?![a-z])")
# What cannot stand behind a number that is all of an answer: it is a list, an interval, a sum.
_NO_UNIT = re.compile(r"[\d+=<>(),;\[\]]")


def tidied(text: str) -> str:
    """A formula without what makes no difference to it: spaces, dollars, case, a full stop."""
    return re.sub(r"\s+", "", _plain(text)).casefold().rstrip(".")


def begins_with_number(text: str) -> bool:
    """Whether the first thing in a text is one."""
    return _NUMBER.match(_plain(text).strip()) is not None


def read_number(text: str) -> Number | None:
    """The first one in a text; None where it is part of a formula."""
    plain = _plain(text)
    found = None if _FORMULA.search(plain) else _NUMBER.search(plain)
    return _number(found) if found else None


def number_alone(text: str) -> Number | None:
    """The one that, with its unit, is all of a text."""
    plain = _plain(text).strip()
    found = _NUMBER.match(plain)
    if found is None or _FORMULA.search(plain):
        return None
    unit = plain[found.end() :].rstrip(" ;.,")
    is_variable = unit[:1].isalpha() and found["times"] is None
    return None if is_variable or _NO_UNIT.search(unit) else _number(found)


def last_number(text: str) -> str | None:
    """The last one in a text, as it is written there but for LaTeX."""
    found = list(_NUMBER.finditer(_plain(text)))
    return found[-1][0].strip().rstrip(".") if found else None


def _plain(text: str) -> str:
    text = _SUPERSCRIPTS.sub(lambda found: "^" + found[0].translate(_AS_DIGITS), text)
    for pattern, by in _TIDYING:
        text = pattern.sub(by, text)
    return text


def _number(found: "re.Match[str]") -> Number | None:
    """None for what no number is, as 1/0, and for one of thousands of digits."""
    part = found.groupdict()
    sign = -1 if (part["sign"] or "").strip() == "-" else 1
    per_cent = part["per_cent"] is not None
    try:
        if part["over"]:
            value = Fraction(part["whole"] or 0) + _fraction(part["over"]) / _fraction(part["under"])
            return Number(sign * value, "." in part["over"] + part["under"], per_cent)
        if part["base"]:
            return Number(sign * Fraction(part["base"]) ** int(part["power"]), False, per_cent)
        mantissa = sign * _fraction(part["numeral"]) * Fraction(10) ** int(part["exponent"] or 0)
        rounded = "." in part["numeral"].rstrip(".") or part["exponent"] is not None
        if part["times"] is None:
            return Number(mantissa, rounded, per_cent)
        value = mantissa * Fraction(10) ** int(part["scale"])
        return Number(value, True, per_cent, None if "*" in part["times"] else mantissa)
    except (ValueError, ZeroDivisionError):
        return None


def _fraction(numeral: str) -> Fraction:
    return Fraction(numeral.replace(",", "").rstrip("."))
