"""Hydra's and OmegaConf's exceptions in one line that a user can act on."""

import re
from collections.abc import Sequence

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    MissingMandatoryValue,
    ValidationError,
)

from ftx.config.help import choices_of, groups
from ftx.config.keys import did_you_mean, schema_fields

KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}


def explain(error: Exception, words: Sequence[str]) -> str:
    """What is wrong, the value, and the way out; ``words`` are what the user wrote."""
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) and error.__cause__ else error
    if isinstance(cause, MissingConfigException):
        return _unknown_choice(cause)
    if isinstance(cause, OverrideParseException):
        return f"cannot read the word '{cause.override}': write key=value, with quotes around special characters"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return _unknown_key(cause.full_key or str(cause.key))
    if isinstance(cause, MissingMandatoryValue):
        name = cause.full_key or _quoted(str(cause))
        return f"{name} is not set, and this run needs it: add {name}=VALUE"
    if isinstance(cause, InterpolationKeyError):
        return f"{cause.full_key}: {_first_line(cause)}"
    if isinstance(cause, ValidationError):
        return _wrong_type(cause, words)
    match = re.match(r"Could not (?:override|append) '([^']+)'", str(error))
    if match and "No match in the defaults list" in str(error):
        return _unknown_key(match[1])
    return _first_line(error)


def _unknown_choice(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    known = list(choices_of(group))
    if not group or not known:
        return _first_line(error)
    return f"{group}={choice}: no such choice{did_you_mean(choice, known)}; there are {', '.join(known)}"


def _unknown_key(name: str) -> str:
    known = [known_name for known_name, _, _ in schema_fields()] + groups()
    name = name.split("@", maxsplit=1)[0]
    return f"{name}: no such key{did_you_mean(name, known)}; --cfg job shows all keys of a run"


def _wrong_type(error: ValidationError, words: Sequence[str]) -> str:
    name = error.full_key or ""
    text = _first_line(error)
    if "is not a subclass of" in text:
        return f"{name} is a section with keys of its own: set {name}.KEY=VALUE"
    match = re.match(r"Value '(.*)' of type '\w+' (?:could not be converted to|is not a valid) (\w+)", text)
    if match:
        return f"{name}={match[1]}: must be {KINDS.get(match[2], match[2])}"
    match = re.match(r"Value '(.*)' of type '\w+' is incompatible with type hint '(.+)'", text)
    if match:
        return f"{name}={match[1]}: must be a whole number or a word"
    if "is not a ListConfig" in text:
        word = next((word for word in words if word.lstrip("+").startswith(f"{name}=")), name)
        value = word.partition("=")[2]
        return f"{word}: must be a list: {name}=[{value}]"
    if "is not Optional" in text:
        return f"{name}=null: must have a value"
    return f"{name}: {text}" if name else text


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _quoted(text: str) -> str:
    match = re.search(r"[:'\"] ?([\w.]+)", text)
    return match[1] if match else text
