"""Where a run's model and data come from, by names that others know, and under which licence as far as their own cards
that lie here say so: nothing is looked up."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftx.config.schema import RunConfig
from ftx.data.hub_names import cache_of
from ftx.data.sources import held_out_source, is_file, sources_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Licence:
    """As a card's front matter has it: ``id`` of the hub's list, or ``other`` with a name and perhaps a link."""

    id: str
    name: str | None = None
    link: str | None = None

    def describe(self) -> str:
        named = self.name if self.id == "other" and self.name else self.id
        return f"[{named}]({self.link})" if self.link else named


@dataclass(frozen=True)
class Origin:
    """A model or data set: ``repository`` is None for what is not on the hub."""

    title: str
    repository: str | None = None
    revision: str | None = None
    licence: Licence | None = None

    def describe(self, kind: str) -> str:
        """In words; ``kind`` is ``datasets/`` or nothing."""
        if self.repository is None:
            return f"`{self.title}`"
        at = f" at revision `{self.revision}`" if self.revision not in (None, "main") else ""
        return f"[{self.repository}](https://huggingface.co/{kind}{self.repository}){at}"


def base_of(run: RunConfig) -> Origin | None:
    """The model that was trained; None for random weights."""
    if run.model.weights == "random":
        return None
    name = str(run.model.name)
    folder = Path(name).expanduser()
    if folder.is_absolute():
        return Origin(folder.name, licence=_licence_in(folder / "README.md"))
    card = _cached_card(name, run.model.revision, "model")
    return Origin(name, name, run.model.revision, _licence_in(card))


def data_of(run: RunConfig) -> list[Origin]:
    """Every source that was learned from or held out."""
    if run.data.source == "stdlib_docs":
        return [Origin("documentation strings of Python's standard library", licence=Licence("psf-2.0", None))]
    held_out = held_out_source(run.data)
    origins = []
    for source in [*sources_of(run.data).values(), *([held_out] if held_out else [])]:
        if is_file(source):
            origins.append(Origin(Path(source.path).name))
        else:
            card = _cached_card(source.path, source.revision, "dataset")
            origins.append(Origin(source.path, source.path, source.revision, _licence_in(card)))
    return list(dict.fromkeys(origins))


def _cached_card(name: str, revision: str, kind: str) -> Path:
    """Where the hub's cache has the card, if it has it."""
    cache = cache_of(name, kind)
    known = cache / "refs" / revision
    commit = known.read_text(encoding="utf-8").strip() if known.is_file() else revision
    return cache / "snapshots" / commit / "README.md"


def _licence_in(card: Path) -> Licence | None:
    if not card.is_file():
        return None
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        said: dict[str, Any] = metadata_load(card) or {}
    except (ValueError, OSError, YAMLError) as error:
        log.warning("%s: its front matter cannot be read (%s); no licence is taken from it", card, error)
        return None
    known = said.get("license")
    if isinstance(known, list):
        known = known[0] if known else None
    return Licence(str(known), said.get("license_name"), said.get("license_link")) if known else None
