"""The model card: a README.md beside the weights, from what the run recorded."""

import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftx.config.export_schema import ExportConfig
from ftx.config.schema import RunConfig
from ftx.errors import UserError
from ftx.exports.card_facts import Facts, gather_facts
from ftx.exports.card_metadata import card_metadata
from ftx.exports.card_text import card_body
from ftx.exports.parts import CARD, parts_there, place_of, root_of
from ftx.run_folder import RunFolder

log = logging.getLogger(__name__)

# The last line of a card that nobody has changed since ftx wrote it.
MARK = "\n<!-- Written by ftx ({digest}). A card that was changed by hand is left as it is. -->\n"
MARKED = re.compile(r"\n<!-- Written by ftx \((?P<digest>[0-9a-f]{16})\)\..*-->\n\Z")
BY_FTX = re.compile(r"<!-- Written by ftx \([0-9a-f]{16}\)\.")

# Of peft's form; one that somebody has begun to fill in has fewer gaps.
BLANK_FORM, TO_FILL_IN, MOSTLY_BLANK = "# Model Card for Model ID", "[More Information Needed]", 30


def write_card(folder: RunFolder, run: RunConfig, export: ExportConfig) -> Path:
    """Write README.md beside each part of the run that is there; returns that of ``model/``.

    One that somebody has changed by hand stays. Raises UserError for a run that is not trained.
    """
    if not folder.model.is_dir():
        raise UserError(f"{folder.name}: has no model/ to describe; the command that trained it goes on with it")
    facts = gather_facts(folder, run, export)
    for part in parts_there(folder):
        _write(facts, part)
    return folder.model / CARD


def _write(facts: Facts, part: str) -> None:
    folder = facts.folder
    file = place_of(folder, part) / CARD
    if file.is_file() and not written_by_us(file.read_text(encoding="utf-8")):
        log.warning("%s was changed by hand, so it stays as it is; without the file it is written anew", file)
        return
    figures = _draw(facts, file.parent / "figures")
    others = [one for one in facts.export.upload if one != part] if part == root_of(facts.export.upload) else []
    text = f"---\n{card_metadata(facts, part)}\n---\n\n{card_body(facts, part, others, figures)}"
    folder.write_text(file, signed(text))


def signed(text: str) -> str:
    """With a last line by which a change shows."""
    return text + MARK.format(digest=_digest(text))


def written_by_us(text: str) -> bool:
    """Whether nobody has changed it since; the blank form that peft leaves beside an adapter is nobody's work."""
    if BLANK_FORM in text and text.count(TO_FILL_IN) >= MOSTLY_BLANK:
        return True
    found = MARKED.search(text)
    return found is not None and _digest(text[: found.start()]) == found["digest"]


def by_ftx(text: str) -> bool:
    """Whether ftx wrote it once, for whatever run, however it was changed since."""
    return BY_FTX.search(text) is not None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _draw(facts: Facts, place: Path) -> list[Path]:
    """Learning curves, and the confusion matrices that scoring drew; their files, for the card."""
    from ftx.figures import save_png
    from ftx.learning_curves import Curve, learning_curves

    place.mkdir(exist_ok=True)
    curves = learning_curves([Curve(facts.folder.name, facts.rows, "loss")], facts.run.name or facts.folder.name)
    drawn = []
    if curves is not None:
        drawn.append(_complete(facts, place / "learning_curves.png", lambda path: save_png(curves, path)))
    for figure in sorted(facts.folder.figures.glob("*.png")):
        drawn.append(_complete(facts, place / figure.name, lambda path, png=figure: path.write_bytes(png.read_bytes())))  # type: ignore[misc]
    return drawn


def _complete(facts: Facts, file: Path, write: Callable[[Path], Any]) -> Path:
    """It appears complete, while the run is ours."""
    temporary = file.with_name(f".{file.name}.tmp")
    write(temporary)
    facts.folder.check_ours()
    temporary.replace(file)
    return file
