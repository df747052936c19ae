"""What of a run can leave the platform, where it lies, and where in a repository it goes."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftx import progress
from ftx.config.export_schema import UPLOADS
from ftx.errors import UserError
from ftx.run_folder import RunFolder

log = logging.getLogger(__name__)

# Which of several parts lies at the root of a repository, where libraries look: the most complete one.
ROOT_FIRST = ("merged", "model", "gguf")
CARD, ADAPTER = "README.md", "adapter_config.json"
BLOCK = 1 << 20
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
    instead: bytes | None = None
    """What is uploaded instead of the file's own content, where that has a path of this machine in it."""

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.instead is None else len(self.instead)

    def hashed(self, digest: Any) -> str:
        """In hexadecimal digits, added to what ``digest`` of hashlib has been given already."""
        if self.instead is None:
            return hash_of(self.file, digest)
        digest.update(self.instead)
        return str(digest.hexdigest())


def place_of(folder: RunFolder, part: str) -> Path:
    """Where a part of export.upload lies."""
    return {"model": folder.model, "merged": folder.exports / "merged", "gguf": folder.exports / "gguf"}[part]


def parts_there(folder: RunFolder) -> list[str]:
    """Those that have files."""
    return [part for part in UPLOADS if next(_files_of(folder, part), None) is not None]


def is_adapter(place: Path) -> bool:
    return (place / ADAPTER).is_file()


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
        check_passed(folder, part)
        files = list(_files_of(folder, part))
        if not files:
            raise UserError(
                f"export.upload=[{part}]: {folder.name} has no {place_of(folder, part).relative_to(folder.path)}/; "
                f"{HOW_TO_GET[part]}"
            )
        below = "" if part in (root, "gguf") else "adapter/"
        of_card = [] if part != root else _card_files(place_of(folder, part))
        place = place_of(folder, part)
        uploads += [_upload(file, below + file.relative_to(place).as_posix()) for file in (*of_card, *files)]
    return uploads


def hash_of(file: Path, digest: Any) -> str:
    """In hexadecimal digits, added to what ``digest`` of hashlib has been given already."""
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return str(digest.hexdigest())


def check_passed(folder: RunFolder, part: str) -> None:
    """Raise UserError for what exports.json does not say of that it is the model that was trained.

    A file is there before it is compared, so that one whose check never ended lies there as well. Of several files for
    llama.cpp those that passed may go, and the others are left out, which is said.
    """
    names = {"merged": "merge", "gguf": "gguf-"}.get(part)
    if names is None:
        return
    failed = {
        name: "failed its check" if entry.get("wrong") else "was not checked to the end"
        for name, entry in folder.read_exports().items()
        if name.startswith(names) and not has_passed(entry)
    }
    if not failed:
        return
    name, what = next(iter(failed.items()))
    if part != "gguf" or next(_files_of(folder, part), None) is None:
        raise UserError(
            f"export.upload=[{part}]: {name} {what}, so it may not be what was trained; python -m ftx.export makes "
            "it anew, exports.json says what was wrong"
        )
    for name, what in failed.items():
        progress.say(f"{name} {what}: it is left out; python -m ftx.export makes it anew")


def has_passed(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of exports.json lets its export leave."""
    return entry.get("state") in ("ok", "unchecked")


def _files_of(folder: RunFolder, part: str) -> Iterator[Path]:
    """Without the card and its figures; of gguf/ only the models whose own check did not go wrong."""
    place = place_of(folder, part)
    if part == "gguf":
        entries = folder.read_exports().items()
        endings = tuple(
            f"-{name.removeprefix('gguf-')}.gguf"
            for name, entry in entries
            if name.startswith("gguf-") and not has_passed(entry)
        )
        yield from (file for file in sorted(place.glob("*.gguf")) if not file.name.endswith(endings))
        return
    for file in sorted(place.rglob("*")):
        inside = file.relative_to(place)
        hidden = any(name.startswith(".") for name in inside.parts)
        if file.is_file() and not hidden and inside.parts[0] not in (CARD, "figures"):
            yield file


def _upload(file: Path, path: str) -> Upload:
    """An adapter names its base: of a folder here, only the last part is anybody's business."""
    if file.name != ADAPTER:
        return Upload(file, path)
    described = json.loads(file.read_text(encoding="utf-8"))
    base = str(described.get("base_model_name_or_path") or "")
    if not Path(base).is_absolute():
        return Upload(file, path)
    log.warning("%s: the base is a folder of this machine, of which only the name %s is sent", path, Path(base).name)
    described["base_model_name_or_path"] = Path(base).name
    return Upload(file, path, (json.dumps(described, indent=2, sort_keys=True) + "\n").encode())


def _card_files(place: Path) -> list[Path]:
    return [file for file in (place / CARD, *sorted((place / "figures").glob("*.png"))) if file.is_file()]
