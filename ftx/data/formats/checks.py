"""What every format asks of a row, its texts and its messages, and the reasons given where it is not so."""

from typing import Any

from ftx.data.conversation import Message
from ftx.data.rows import json_type, parse_json

Parts = tuple[tuple[Message, ...], tuple[dict[str, Any], ...]]


def required(row: dict[str, Any], key: str) -> Any:
    """The value of a key that the format cannot do without."""
    if key not in row:
        raise ValueError(f"has no {key}; it has {keys_of(row)}")
    return row[key]


def required_text(row: dict[str, Any], key: str) -> str:
    """A text that is not blank, as it is."""
    text = required(row, key)
    check_is_string(key, text)
    if not text.strip():
        raise ValueError(f"{key} is empty")
    return str(text)


def optional_text(row: dict[str, Any], key: str) -> str:
    """A text; the empty one where the key is absent."""
    text = row.get(key, "")
    check_is_string(key, text)
    return str(text)


def check_is_string(where: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{where} must be a string, not {json_type(value)}")


def check_objects(where: str, values: Any) -> None:
    if not isinstance(values, list):
        raise ValueError(f"{where} must be a list of objects, not {json_type(values)}")
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise ValueError(f"{where}[{index}] must be an object, not {json_type(value)}")


def check_has_answer(messages: tuple[Message, ...], where: str = "messages") -> None:
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError(f"{where} has no assistant message; there is nothing to learn from")


def parsed(where: str, value: Any) -> Any:
    """``value``, or what it is JSON text of."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise ValueError(f"{where} is {error}") from None


def keys_of(row: dict[str, Any]) -> str:
    names = ", ".join(shown(key) for key in list(row)[:8])
    return f"the keys {names}{', ...' if len(row) > 8 else ''}" if row else "no keys"


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
