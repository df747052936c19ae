"""The benchmarks of notebook agents: their questions, and the files that the answers are in."""

import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftx.agent.hub import fetch_dabstep
from ftx.agent.made_up import dabstep_files
from ftx.config.evaluation_schema import DataAgentConfig
from ftx.config.made_up import is_made_up
from ftx.errors import UserError

PATH = "evaluation.data_agent.path"
# Of DABStep, as its own folder and the hub have them; {} is the split.
_TASKS = ("{}.jsonl", "data/tasks/{}.jsonl")
_CONTEXT = ("context", "data/context")
_ON_HUB = {"dev": "dev", "test": "all"}


@dataclass(frozen=True)
class Question:
    """One question. ``files``: names of those that it is about. ``gold``: None where the answer is withheld."""

    id: str
    text: str
    guidelines: str
    level: str
    files: tuple[str, ...]
    gold: str | dict[str, str] | None


@dataclass(frozen=True)
class Benchmark:
    """All questions, and where their files are: as they are, or in a tar archive; ``texts``: made-up ones, by name."""

    questions: tuple[Question, ...]
    files: Mapping[str, Path]
    archive: Path | None = None
    texts: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def opened(self) -> Iterator[Mapping[str, Path]]:
        """Every file by its name; what was in an archive, or is made up, is there for as long as the context."""
        if self.archive is None and not self.texts:
            yield self.files
            return
        with tempfile.TemporaryDirectory(prefix="ftx-tables-") as folder:
            if self.archive is not None:
                with tarfile.open(self.archive) as archive:
                    archive.extractall(folder, filter="data")
            write_files(Path(folder), self.texts)
            yield {file.name: file for file in sorted(Path(folder).rglob("*")) if file.is_file()}


def open_benchmark(config: DataAgentConfig) -> Benchmark:
    """The benchmark that ``evaluation.data_agent`` names; raises UserError for files that are not there."""
    if config.benchmark == "dabench":
        assert config.path is not None
        return _dabench(Path(config.path))
    if config.path is not None and is_made_up(config.path):
        return _made_up_dabstep(config.split)
    return _dabstep(Path(config.path) if config.path else fetch_dabstep(), config.split)


def _dabstep(folder: Path, split: str) -> Benchmark:
    names = list(dict.fromkeys(pattern.format(name) for pattern in _TASKS for name in (split, _ON_HUB[split])))
    tasks = _first(folder, names, f"with the tasks of evaluation.data_agent.split={split}")
    context = _first(folder, _CONTEXT, "with the files that the tasks are about")
    files = {file.name: file for file in sorted(context.iterdir()) if file.is_file()}
    questions = (
        Question(
            id=str(row["task_id"]),
            text=row["question"],
            guidelines=row["guidelines"],
            level=row["level"],
            files=tuple(files),
            # The test split has the key, and nothing in it.
            gold=row.get("answer") if split == "dev" else None,
        )
        for row in _rows(tasks, ("task_id", "question", "guidelines", "level"))
    )
    return Benchmark(tuple(questions), files)


def _made_up_dabstep(split: str) -> Benchmark:
    """Read as the real one is."""
    with tempfile.TemporaryDirectory(prefix="ftx-made-up-") as folder:
        write_files(Path(folder), dabstep_files())
        found = _dabstep(Path(folder), split)
        texts = {name: file.read_text(encoding="utf-8") for name, file in found.files.items()}
    return Benchmark(found.questions, {}, texts=texts)


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Texts as files, by their paths in the folder."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _dabench(folder: Path) -> Benchmark:
    questions = tuple(
        Question(
            id=str(row["id"]),
            text=row["question"],
            guidelines=f"{row['constraints']}\nAnswer in this form: {row['format']}",
            level=row["level"],
            files=(row["file_name"],),
            gold={str(name): str(value) for name, value in row["answers"]},
        )
        for row in _rows(
            _first(folder, ["questions.jsonl"], "with the questions"),
            ("id", "question", "constraints", "format", "level", "file_name", "answers"),
        )
        if row.get("table_available", True)
    )
    return Benchmark(questions, {}, _first(folder, ["tables.tar.xz"], "with the tables"))


def _first(folder: Path, names: list[str] | tuple[str, ...], what: str) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{PATH}={folder}: has no {' or '.join(names)} {what}")


def _rows(file: Path, needed: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{PATH}: {file}:{number} is not JSON ({error})") from error
        if not isinstance(row, dict) or (missing := [name for name in needed if name not in row]):
            raise UserError(f"{PATH}: {file}:{number} has no {', '.join(missing) if isinstance(row, dict) else 'keys'}")
        yield row
