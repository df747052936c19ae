"""What of a run can leave the platform, where it lies, and where in a repository it goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftx.config.export_schema import UPLOADS
from ftx.errors import UserError
from ftx.run_folder import RunFolder

# Which of several parts lies at the root of a repository, where libraries look: the most complete one.
ROOT_FIRST = ("merged", "model", "gguf")
CARD = "README.md"
HOW_TO_GET = {
    "model": "the command that trained it goes on with it",
    "merged": "python -m ftx.export RUN merge makes it",
    "gguf": "python -m ftx.export RUN gguf makes it",
}


@dataclass(frozen=True)
class Upload:
    """A file here and its path in the repository."""

    file: Path
    path: str


def place_of(folder: RunFolder, part: str) -> Path:
    """Where a part of export.upload lies."""
    exports = folder.path / "exports"
    return {"model": folder.model, "merged": exports / "merged", "gguf": exports / "gguf"}[part]


def parts_there(folder: RunFolder) -> list[str]:
    """Those that have files."""
    return [part for part in UPLOADS if next(_files_of(folder, part), None) is not None]


def is_adapter(place: Path) -> bool:
    return (place / "adapter_config.json").is_file()


def root_of(parts: Sequence[str]) -> str:
    """The part whose files and card lie at the root of the repository."""
    return next(part for part in ROOT_FIRST if part in parts)


def files_to_upload(folder: RunFolder, parts: Sequence[str]) -> list[Upload]:
    """Every file of the parts, the card of the root part among them; raises UserError for a part that is not there.

    An adapter beside the merged model goes into ``adapter/``: at the root it would be put on the merged weights again.
    Files for llama.cpp are at the root in any case, since that is where llama.cpp looks.
    """
    root = root_of(parts)
    uploads = []
    for part in [root, *(one for one in dict.fromkeys(parts) if one != root)]:
        files = list(_files_of(folder, part))
        if not files:
            raise UserError(
                f"export.upload=[{part}]: {folder.name} has no {place_of(folder, part).relative_to(folder.path)}/; "
                f"{HOW_TO_GET[part]}"
            )
        below = "" if part in (root, "gguf") else "adapter/"
        of_card = [] if part != root else _card_files(place_of(folder, part))
        uploads += [
            Upload(file, below + file.relative_to(place_of(folder, part)).as_posix()) for file in (*of_card, *files)
        ]
    return uploads


def _files_of(folder: RunFolder, part: str) -> Iterator[Path]:
    """Without the card and its figures; of gguf/ only the models."""
    place = place_of(folder, part)
    if part == "gguf":
        yield from sorted(place.glob("*.gguf"))
        return
    for file in sorted(place.rglob("*")):
        inside = file.relative_to(place)
        hidden = any(name.startswith(".") for name in inside.parts)
        if file.is_file() and not hidden and inside.parts[0] not in (CARD, "figures"):
            yield file


def _card_files(place: Path) -> list[Path]:
    return [file for file in (place / CARD, *sorted((place / "figures").glob("*.png"))) if file.is_file()]
