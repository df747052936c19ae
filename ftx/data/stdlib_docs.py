"""Chat examples made from the documentation strings of the Python standard library that runs this program.

The task: name the one of four areas that a documentation string belongs to, as JSON. The sources are parsed, never
imported, so nothing runs and nothing is downloaded.
"""

import ast
import hashlib
import json
import random
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftx.data.conversation import Conversation
from ftx.data.near_duplicates import SHINGLE_WORDS, THRESHOLD, distinct
from ftx.data.stdlib_areas import AREA_OF, AREAS
from ftx.errors import UserError

__all__ = ["AREAS", "DocString", "conversations", "fingerprint", "scan", "shorten"]

LONGER_THAN = 30
SHOWN_CHARS = 240
SYSTEM = f'Which area: {", ".join(AREAS[:-1])} or {AREAS[-1]}? Answer {{"area":"..."}}.'

_SKIPPED_FOLDERS = {"test", "tests", "__pycache__"}

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class DocString:
    """One documentation string, whole, with the indentation of its source removed.

    ``name`` is qualified within the module (``JSONDecoder.decode``) and ``owner`` is its first part: the outermost
    class or function. Both are empty for the module's own string.
    """

    module: str
    owner: str
    name: str
    text: str
    area: str


@dataclass(frozen=True)
class _Source:
    path: Path
    relative: str
    module: str
    area: str


def scan(root: Path | None = None) -> list[DocString]:
    """Every distinct documentation string of the modules in the area table, in order of file and line.

    ``root`` is a library folder; by default that of the running interpreter. Texts of at most LONGER_THAN characters
    are left out, and of two definitions with one name (in the branches of an ``if``) the later one.
    """
    docs: list[DocString] = []
    texts: set[str] = set()
    for source in _sources(_library(root)):
        names: set[str] = set()
        for name, text in _documented(ast.parse(source.path.read_bytes(), source.relative)):
            if len(shorten(text)) <= LONGER_THAN or name in names or text in texts:
                continue
            names.add(name)
            texts.add(text)
            docs.append(DocString(source.module, name.partition(".")[0], name, text, source.area))
    return docs


def conversations(
    docs: Sequence[DocString], *, seed: int, holdout: float
) -> tuple[list[Conversation], list[Conversation]]:
    """The training and the held-out examples, each in an order shuffled by the seed.

    Near-duplicates are removed first, as the model would see them: of the shortened texts. Then whole classes and
    functions go to the held-out side, area by area, until it has ``holdout`` of each area's examples, rounded (or a
    little less where only big classes are left).
    """
    if not 0 <= holdout < 1:
        raise ValueError(f"holdout is the held-out share of the examples, at least 0 and below 1, not {holdout}")
    kept = [docs[position] for position in distinct(shorten(doc.text) for doc in docs)]
    rng = random.Random(seed)
    held_groups: set[str] = set()
    for area in AREAS:
        held_groups |= _choose_groups([doc for doc in kept if doc.area == area], holdout, rng)
    train = [_conversation(doc) for doc in kept if _group(doc) not in held_groups]
    held = [_conversation(doc) for doc in kept if _group(doc) in held_groups]
    rng.shuffle(train)
    rng.shuffle(held)
    return train, held


def fingerprint(root: Path | None = None) -> str:
    """A hash that changes whenever ``scan`` or the examples made from it could: file contents, Python, the rules here.

    Modification times and files that are not read play no part.
    """
    rules = [*sys.version_info[:2], SYSTEM, LONGER_THAN, SHOWN_CHARS, SHINGLE_WORDS, THRESHOLD]
    total = hashlib.sha256(json.dumps(rules).encode())
    for source in _sources(_library(root)):
        content = hashlib.sha256(source.path.read_bytes()).hexdigest()
        total.update(f"\n{source.relative} {source.area} {content}".encode())
    return total.hexdigest()


def shorten(text: str) -> str:
    """What the prompt shows: one line, at most SHOWN_CHARS long, cut between words where there is a border."""
    line = " ".join(text.split())
    if len(line) <= SHOWN_CHARS:
        return line
    border = line.rfind(" ", LONGER_THAN + 1, SHOWN_CHARS + 1)
    return line[:border] if border > 0 else line[:SHOWN_CHARS]


def _library(root: Path | None) -> Path:
    return Path(sysconfig.get_paths()["stdlib"]) if root is None else root


def _sources(root: Path) -> list[_Source]:
    """The files of the area table, by their path below root."""
    found = [
        _source(root, path, area)
        for module, area in AREA_OF.items()
        for path in (*_files(root / module), root / f"{module}.py")
        if path.is_file()
    ]
    if not found:
        raise UserError(
            f"data=stdlib_docs: no standard library sources in {root}\n"
            "use a Python whose library is installed as .py files, or data=jsonl"
        )
    return sorted(found, key=lambda source: source.relative)


def _source(root: Path, path: Path, area: str) -> _Source:
    relative = path.relative_to(root)
    parts = relative.with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return _Source(path, relative.as_posix(), module, area)


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.suffix == ".py":
            yield path
        elif path.name not in _SKIPPED_FOLDERS:
            yield from _files(path)


def _documented(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Qualified name and text of each documentation string in a module, its own (named '') first."""
    yield "", ast.get_docstring(module) or ""
    yield from _documented_below(module, "")


def _documented_below(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Definition):
            name = prefix + child.name
            yield name, ast.get_docstring(child) or ""
            yield from _documented_below(child, f"{name}.")
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _documented_below(child, prefix)


def _choose_groups(docs: Sequence[DocString], share: float, rng: random.Random) -> set[str]:
    """Groups drawn at random that together have at most ``share`` of the documents; what would overshoot is passed."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for doc in docs:
        sizes[_group(doc)] += 1
    drawn = list(sizes)
    rng.shuffle(drawn)
    room = round(share * len(docs))
    chosen: set[str] = set()
    for group in drawn:
        if sizes[group] <= room:
            room -= sizes[group]
            chosen.add(group)
    return chosen


def _group(doc: DocString) -> str:
    return f"{doc.module}:{doc.owner}"


def _conversation(doc: DocString) -> Conversation:
    return Conversation(
        id=f"stdlib:{doc.module}.{doc.name}".removesuffix("."),
        messages=(
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": shorten(doc.text)},
            {"role": "assistant", "content": json.dumps({"area": doc.area}, separators=(",", ":"))},
        ),
        group=_group(doc),
    )
