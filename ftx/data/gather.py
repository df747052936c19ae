"""The first half of preparing: every source's rows as conversations on disk, once for each state of the sources."""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ftx.config.schema import RunConfig, SourceConfig
from ftx.data import cache
from ftx.data.conversation import to_stored
from ftx.data.conversation_store import ConversationStore, ConversationWriter, numbered_as_they_appear
from ftx.data.fingerprint import cache_folder
from ftx.data.select import Selection, draw, mixture_counts, split
from ftx.data.sources import Converted, held_out_source, is_file, read_source, read_stdlib, sources_of
from ftx.errors import UserError
from ftx.progress import Progress
from ftx.writing import write_json

log = logging.getLogger(__name__)

SHOWN_REASONS = 10


@dataclass(frozen=True)
class Gathered:
    """What became of the sources. Conversations of a source stand together, those of evaluation alone at the end.

    ``borders`` has the begin and end of each source, ``held_out_from`` where those for evaluation begin, None where
    they are to be split off.
    """

    borders: dict[str, tuple[int, int]]
    held_out_from: int | None
    skipped: int
    filtered_out: int


def gathered_on_disk(run: RunConfig) -> Path:
    """The folder of the run's conversations, built where it is not there."""
    folder = cache.gathered_folder(run)
    with cache.build(folder, folder.is_dir) as writing:
        if writing is not None:
            gather(run, writing)
    cache.mark_used(folder)
    return folder


def gather(run: RunConfig, folder: Path) -> Gathered:
    """Write all conversations, the reasons of skipped rows, and what came of the sources into ``folder``."""
    borders: dict[str, tuple[int, int]] = {}
    skipped = filtered_out = 0
    held_out_from = None
    with ExitStack() as stack:
        writer = stack.enter_context(ConversationWriter(folder / "conversations.arrow"))
        reasons = stack.enter_context((folder / "skipped.txt").open("w", encoding="utf-8"))
        for name, chunks, is_held_out in _parts(run):
            begin, filtered_before, first_reason = writer.written, filtered_out, ""
            for converted in chunks:
                for stored in converted.conversations:
                    writer.add(stored)
                filtered_out += converted.filtered_out
                for reason in converted.skipped:
                    skipped += 1
                    first_reason = first_reason or reason
                    reasons.write(f"{reason}\n")
                    if skipped <= SHOWN_REASONS:
                        log.warning("skipped: %s", reason)
            if writer.written == begin:
                raise UserError(_nothing_in(name, run, first_reason, filtered_out - filtered_before))
            borders[name] = (begin, writer.written)
            held_out_from = begin if is_held_out else held_out_from
    if skipped > SHOWN_REASONS:
        log.warning("skipped %d rows in all; each is listed in %s", skipped, folder.with_suffix("") / "skipped.txt")
    gathered = Gathered(borders, held_out_from, skipped, filtered_out)
    write_json(folder / "gathered.json", asdict(gathered))
    return gathered


def read_gathered(folder: Path) -> Gathered:
    stored = json.loads((folder / "gathered.json").read_text(encoding="utf-8"))
    borders = {name: (begin, end) for name, (begin, end) in stored["borders"].items()}
    return Gathered(borders, stored["held_out_from"], stored["skipped"], stored["filtered_out"])


def select(run: RunConfig, gathered: Gathered, store: ConversationStore) -> Selection:
    """Draw the mixture, keep some aside, apply ``data.limit``; raises UserError where too little is left."""
    sources = sources_of(run.data)
    end = gathered.held_out_from if gathered.held_out_from is not None else len(store)
    candidates = _drawn(run, sources, gathered) if run.data.source == "mixture" else np.arange(end)
    if run.data.source == "stdlib_docs":
        chosen = Selection(candidates, np.arange(end, len(store)))
    else:
        holdout = 0.0 if gathered.held_out_from is not None else run.data.holdout
        if holdout >= len(candidates):
            raise UserError(f"data.holdout={holdout:g}: there are {len(candidates)} conversations; keep fewer aside")
        inside = split(numbered_as_they_appear(store.groups()[candidates]).tolist(), holdout=holdout, seed=run.seed)
        aside = candidates[inside.held_out] if holdout else np.arange(end, len(store))
        chosen = Selection(candidates[inside.train], aside)
    if run.evaluation.tasks and not len(chosen.held_out):
        raise UserError("data.holdout: too little data to keep any aside; say evaluation.tasks=[] data.holdout=0")
    return Selection(chosen.train[: run.data.limit], chosen.held_out)


def _drawn(run: RunConfig, sources: dict[str, SourceConfig], gathered: Gathered) -> np.ndarray:
    available = {name: end - begin for name, (begin, end) in gathered.borders.items() if name in sources}
    counts = mixture_counts(sources, available)
    for name, count in counts.items():
        if not count:
            raise UserError(f"data.sources.{name}.weight={sources[name].weight:g}: so small a share is no conversation")
    for name, source in sources.items():
        if source.rows and counts[name] < source.rows:
            log.warning(
                "data.sources.%s.rows=%d: it has %d, all of which are taken", name, source.rows, available[name]
            )
    drawn = [
        draw(*gathered.borders[name], counts[name], (run.seed, number)) for number, name in enumerate(sorted(sources))
    ]
    return np.sort(np.concatenate(drawn))


def _parts(run: RunConfig) -> Iterator[tuple[str, Iterable[Converted], bool]]:
    """Name, converted rows, and whether they are for evaluation alone, of each part that is read."""
    if run.data.source == "stdlib_docs":
        train, held_out = read_stdlib(run)
        yield "stdlib_docs", [Converted(list(map(to_stored, train)))], False
        if held_out:
            yield "held out", [Converted(list(map(to_stored, held_out)))], True
        return
    for name, source in sources_of(run.data).items():
        yield name, _watched(name, source, run), False
    if evaluation := held_out_source(run.data):
        yield "held out", _watched("", evaluation, run), True


def _watched(name: str, source: SourceConfig, run: RunConfig) -> Iterator[Converted]:
    """A source's rows with a progress bar: of the bytes of a file, or of the conversations of a data set on the hub."""
    is_here = is_file(source) and Path(source.path).is_file()
    title = f"read {Path(source.path).name if is_here else source.path}"
    total = Path(source.path).stat().st_size if is_here else None
    position = conversations = 0

    def on_position(at: int) -> None:
        nonlocal position
        position = at

    with Progress(title, total, unit="byte" if total else "conversation", delay=1) as progress:
        for converted in read_source(name, source, run.data, cache=cache_folder(run), on_position=on_position):
            conversations += len(converted.conversations)
            progress.show(position if total else conversations, f"{conversations:,} conversations" if total else "")
            yield converted


def _nothing_in(name: str, run: RunConfig, first_reason: str, filtered_out: int) -> str:
    source = sources_of(run.data).get(name)
    word = f"data.sources.{name}.path" if name and source else "data.path"
    path = source.path if source else run.data.holdout_path or run.data.holdout_split
    if first_reason:
        return f"{word}={path}: not one usable row; the first was refused with: {first_reason}"
    return f"{word}={path}: not one row is left; data.filter and transforms left {filtered_out} out"
