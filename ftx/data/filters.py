"""``data.filter``: conditions on the columns of a row, such as ``score>=4`` or ``language==en``."""

import json
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from ftx.config.keys import did_you_mean
from ftx.errors import UserError

Condition = Callable[[dict[str, Any]], bool]

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "~": lambda value, pattern: re.search(str(pattern), str(value)) is not None,
}
_CONDITION = re.compile(r"\s*([^=!<>~]+?)\s*(==|!=|>=|<=|>|<|~)\s*(.*?)\s*", re.DOTALL)


def parse_filter(conditions: Sequence[str]) -> Condition:
    """Whether all conditions hold for a row.

    The wanted value is read as JSON where it is (a number, true, "text"), else as text; ``~`` searches a regular
    expression. The function raises ValueError for a row that lacks the column or whose value cannot be compared.
    """
    parts = [_parsed(text) for text in conditions]

    def holds(row: dict[str, Any]) -> bool:
        return all(_holds(row, *part) for part in parts)

    return holds


def filter_columns(conditions: Sequence[str]) -> list[str]:
    """The columns that the conditions look at."""
    return [_parsed(text)[0] for text in conditions]


def _parsed(text: str) -> tuple[str, str, Any]:
    match = _CONDITION.fullmatch(text)
    if not match:
        raise UserError(
            f'data.filter=["{text}"]: no condition; write COLUMN, one of {" ".join(_OPERATORS)} and a value, as in '
            '"score>=4"'
        )
    column, sign, wanted = match.groups()
    if sign == "~":
        try:
            re.compile(wanted)
        except re.error as error:
            raise UserError(f'data.filter=["{text}"]: {wanted} is no regular expression: {error}; mend it') from None
        return column, sign, wanted
    try:
        return column, sign, json.loads(wanted)
    except ValueError:
        return column, sign, wanted


def _holds(row: dict[str, Any], column: str, sign: str, wanted: Any) -> bool:
    if column not in row:
        guess = did_you_mean(column, list(row))
        raise ValueError(f"has no {column}{guess}, which data.filter asks for; it has {', '.join(row)}")
    value = row[column]
    if isinstance(value, str) and isinstance(wanted, int | float) and not isinstance(wanted, bool):
        # A csv file's numbers are text.
        value = _number(column, value)
    try:
        return bool(_OPERATORS[sign](value, wanted))
    except TypeError:
        raise ValueError(
            f"{column} is {value!r}, which cannot be compared with {wanted!r} as data.filter asks"
        ) from None


def _number(column: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{column} is {value!r}, no number as data.filter asks for") from None
