"""Hydra's, OmegaConf's and yaml's exceptions in one line that a user can act on."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_args

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    ConfigTypeError,
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    ValidationError,
)
from yaml import MarkedYAMLError

from ftx.config.help import choices_of, groups
from ftx.config.keys import did_you_mean, schema_fields
from ftx.config.schema import SourceConfig

KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
# What to write where somebody gives a group the thing itself.
OWN_THING = {"model": ("model=hub", "model.name"), "data": ("data=jsonl", "data.path")}
LIKE_A_PATH = re.compile(r"[/.~]")
PLAIN = re.compile(r"[\w./+-]*")


def explain(error: Exception, words: Sequence[str], config_dir: Path | None = None) -> str:
    """What is wrong, the value, and the way out; ``words`` are what the user wrote."""
    if isinstance(error, MarkedYAMLError):
        return _broken_yaml(error)
    if isinstance(error, MissingConfigException):
        group, _, choice = str(error.missing_cfg_file).partition("/")
        return no_such_choice(group, choice, config_dir)
    cause = (error.__cause__ or error.__context__ or error) if isinstance(error, ConfigCompositionException) else error
    if isinstance(cause, OverrideParseException):
        return unreadable(cause.override)
    if isinstance(cause, InterpolationKeyError | InterpolationResolutionError):
        return f"{_word_of(cause.full_key or '', words)}: {_first_line(cause)}; write the value itself"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return no_such_key(cause.full_key or str(cause.key)) + _place(error)
    if isinstance(cause, ConfigTypeError | ValidationError):
        return _wrong_type(cause, words) + _place(error)
    if isinstance(cause, MissingMandatoryValue):
        name = cause.full_key or _quoted(str(cause))
        return f"{name} is not set, and this run needs it: add {name}=VALUE"
    match = re.match(r"Could not (?:override|append) '([^']+)'", str(error))
    if match and "No match in the defaults list" in str(error):
        return no_such_key(match[1])
    return _first_line(error)


def no_such_choice(group: str, choice: str, config_dir: Path | None = None) -> str:
    """A group was given what is none of its choices."""
    known = list(choices_of(group, config_dir))
    guess = did_you_mean(choice, known)
    if group in OWN_THING and LIKE_A_PATH.search(choice):
        chooses, sets = OWN_THING[group]
        guess = f" (did you mean {chooses} {_readable(sets, choice)}?)"
    return f"{group}={choice}: no such choice{guess}; there are {', '.join(known)}"


def no_such_key(name: str) -> str:
    """A key that is not in the schema."""
    source = re.match(r"data\.sources\.[^.]+\.", name)
    if source:
        known = [f"{source[0]}{item.name}" for item in fields(SourceConfig)]
        return f"{name}: no such key{did_you_mean(name, known)}; there are {', '.join(known)}"
    known = [known_name for known_name, _, _ in schema_fields()]
    guess = did_you_mean(name, known if "." in name else known + groups())
    return f"{name}: no such key{guess}; --cfg job shows all keys of a run"


def unreadable(word: str) -> str:
    """A word that is not ``key=value``, or whose value needs quotes."""
    name, equals, value = word.partition("=")
    keys = {known: item for known, item, _ in schema_fields()}
    if not equals and name in [*keys, *groups()]:
        return f"cannot read the word '{word}': it has no value; write {name}=VALUE"
    if name in OWN_THING and LIKE_A_PATH.search(value):
        return no_such_choice(name, value)
    if name in keys and str in (get_args(keys[name].type) or [keys[name].type]) and '"' not in value:
        return f"cannot read the word '{word}': special characters need quotes; write {_readable(name, value)}"
    chosen = [f"{group}={word}" for group in groups() if word in choices_of(group)]
    hint = f" (did you mean {' or '.join(chosen)}?)" if chosen else ""
    return f"cannot read the word '{word}'{hint}: write key=value, as in model=tiny or schedule.epochs=3"


def _readable(name: str, value: str) -> str:
    """The word as a shell and Hydra take it."""
    return f"{name}={value}" if PLAIN.fullmatch(value) else shlex.quote(f'{name}="{value}"')


def _broken_yaml(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{mark.name}, line {mark.line + 1}" if mark else "a yaml file"
    return f"{place}: not valid yaml ({error.problem or error.context}); mend the file"


def _place(error: Exception) -> str:
    """The yaml file that a mistake stands in, where it is not in the words."""
    match = re.match(r"In '([^']+)'", str(error))
    if not match:
        return ""
    if match[1].startswith("experiment/"):
        return f"; mend {match[1]}.yaml (a file in --config-dir/experiment begins with '# @package _global_')"
    return f"; mend {match[1]}.yaml"


def _wrong_type(error: Exception, words: Sequence[str]) -> str:
    name = str(getattr(error, "full_key", None) or "")
    text = _first_line(error)
    whole = next((word for word in words if re.match(r"data\.sources(\.[^.=]+)?=", word)), None)
    if whole is not None and ("is not a subclass of" in text or not name):
        return f"{whole}: a source has keys of its own; set data.sources.NAME.path=FILE"
    options = next((word for word in words if re.match(r"launcher\.(sbatch|srun)=", word)), None)
    if options is not None and name in (options.partition("=")[0], ""):
        return f"{options}: options have names; set {options.partition('=')[0]}.NAME=VALUE"
    if "is not a subclass of" in text:
        return f"{_word_of(name, words)}: {name} is a section with keys of its own; set {name}.KEY=VALUE"
    match = re.match(r"Value '(.*?)'(?: of type '\w+')? (?:could not be converted to|is not a valid) (\w+)", text)
    if match:
        return f"{name}={_as_written(match[1])}: must be {KINDS.get(match[2], match[2])}"
    match = re.match(r"Value '(.*)' of type '\w+' is incompatible with type hint", text)
    if match:
        return f"{name}={match[1]}: must be a whole number or a word"
    if "is not a ListConfig" in text or "with ListConfig" in text:
        word = _word_of(name, words)
        value = word.partition("=")[2]
        return f"{word}: must be a list: {name}=[{'...' if value.startswith('{') else value}]"
    if "to string" in text:
        return f"{_word_of(name, words)}: must be one text, not a list or a section"
    if "is not Optional" in text:
        return f"{name}=null: must have a value; leave the word out for the default"
    return f"{_word_of(name, words)}: {text}" if name else text


def _as_written(value: str) -> str:
    return value.lower() if value in ("True", "False") else value


def _word_of(name: str, words: Sequence[str]) -> str:
    """The word that sets ``name``; the name alone where a file does."""
    return next((word for word in reversed(words) if word.startswith(f"{name}=")), name)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _quoted(text: str) -> str:
    match = re.search(r"[:'\"] ?([\w.]+)", text)
    return match[1] if match else text
