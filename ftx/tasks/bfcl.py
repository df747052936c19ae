"""Questions of the Berkeley function-calling board, of its categories with one turn and functions in Python."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftx.data.conversation import Message
from ftx.data.file_checks import opened
from ftx.data.rows import parse_json
from ftx.errors import UserError
from ftx.tasks.call_rules import Accepted
from ftx.tasks.question_rows import told_of

log = logging.getLogger(__name__)

_KINDS = ("simple", "multiple", "parallel", "parallel_multiple", "irrelevance")
CATEGORIES = ("simple_python", *_KINDS, *(f"live_{kind}" for kind in _KINDS))
_FILE = re.compile(r"(?:BFCL_v\d+_)?(\w+)\.jsonl?(?:\.gz)?")
WORD = "evaluation.function_calling.path"


@dataclass(frozen=True)
class Question:
    """``accepted``: the calls to make, none where no function fits. ``functions`` have the board's names of types.

    ``declared``: the functions by whose declarations calls are judged.
    """

    id: str
    category: str
    messages: tuple[Message, ...]
    functions: tuple[dict[str, Any], ...]
    accepted: tuple[Accepted, ...]
    declared: tuple[dict[str, Any], ...]


def read_board(folder: Path) -> Iterator[Question]:
    """Every question of the categories that are known; the others that are there are named in the log.

    The files are the board's: a JSON object a line, questions in ``folder`` or its ``question``, and those of the same
    names in ``possible_answer``. Raises UserError for what cannot be read.
    """
    files = _files(folder / "question" if (folder / "question").is_dir() else folder)
    if unknown := sorted(set(files) - set(CATEGORIES)):
        log.warning("%s=%s: not of one turn and Python, left out: %s", WORD, folder, ", ".join(unknown))
    if not set(files) & set(CATEGORIES):
        raise UserError(f"{WORD}={folder}: no questions of the board in it; it needs files such as simple_python.jsonl")
    for category in CATEGORIES:
        if category in files:
            yield from _questions(category, files[category], folder / "possible_answer" / files[category].name)


def check_board(folder: Path) -> None:
    """Raise UserError where not even the first question can be read."""
    next(read_board(folder))


def _files(folder: Path) -> dict[str, Path]:
    """Files of questions by their category."""
    if not folder.is_dir():
        raise UserError(f"{WORD}={folder}: no such folder; give the one with the board's questions")
    found = {file: _FILE.fullmatch(file.name) for file in sorted(folder.iterdir())}
    return {match[1]: file for file, match in found.items() if match}


def _questions(category: str, asked: Path, answered: Path) -> Iterator[Question]:
    calls_nothing = category.endswith("irrelevance")
    if not calls_nothing and not answered.is_file():
        raise UserError(f"{WORD}: {asked} has no possible answers, {answered} is missing; give the folder with both")
    golds = {} if calls_nothing else {row["id"]: row["ground_truth"] for row in _rows(answered, "ground_truth")}
    for row in _rows(asked):
        if not calls_nothing and row["id"] not in golds:
            raise UserError(f"{WORD}: {answered} has no answer to {row['id']}; take both files of one version")
        try:
            messages, functions = tuple(row["question"][0]), tuple(row["function"])
        except (KeyError, TypeError, IndexError) as error:
            raise UserError(f"{WORD}: {asked}: {row.get('id')} is no question of the board ({error!r})") from error
        yield Question(str(row["id"]), category, messages, functions, tuple(golds.get(row["id"], ())), functions)


def _rows(path: Path, key: str = "id") -> Iterator[dict[str, Any]]:
    with told_of(WORD.rpartition(".")[0]), opened(path, compressed=path.suffix == ".gz") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = parse_json(line.decode())
                if not isinstance(row, dict) or not {"id", key} <= set(row):
                    raise ValueError(f"is no object with {key}")
            except ValueError as error:
                raise UserError(f"{WORD}: {path}:{number}: {error}; download it again") from error
            yield row
