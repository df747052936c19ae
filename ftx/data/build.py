"""The second half of preparing: chosen conversations as tokens, and rows made of them."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from ftx.config.data_checks import SHUFFLED
from ftx.config.schema import RunConfig
from ftx.data.conversation import Conversation
from ftx.data.conversation_store import ConversationStore
from ftx.data.encode import Encoder, EnginesDisagree, control_tokens, exact_encoder
from ftx.data.fit import Fitted, fit
from ftx.data.gather import Gathered, gathered_on_disk, read_gathered, select
from ftx.data.guard import Noticed
from ftx.data.model_parts import ModelParts, load_encoder, pretrained_parts, random_parts
from ftx.data.packing import pack, pack_in_order
from ftx.data.prepare import Counts
from ftx.data.render import BatchRenderer, RenderedBatch
from ftx.data.select import Selection
from ftx.data.store import RowStore, TokenStore, TokenWriter, write_members
from ftx.data.tokenize import encode_batches
from ftx.data.workers import MANY_BYTES, Workers, collecting_seldom, processes_for
from ftx.errors import UserError
from ftx.progress import Progress
from ftx.templates import Template
from ftx.writing import write_json

log = logging.getLogger(__name__)


def build_prepared(run: RunConfig, folder: Path) -> PreTrainedTokenizerFast:
    """Tokens, rows, tokenizer, template and counts of the run's conversations, into ``folder``; the tokenizer back."""
    with ThreadPoolExecutor(1) as loading, collecting_seldom():
        parts = None if run.model.weights == "random" else pretrained_parts(run)
        encoder = load_encoder(run, parts.tokenizer, loading) if parts else None
        gathered_folder = gathered_on_disk(run)
        (folder / "conversations").write_text(gathered_folder.name, encoding="utf-8")
        gathered = read_gathered(gathered_folder)
        store = ConversationStore(gathered_folder / "conversations.arrow")
        selection = select(run, gathered, store)
        parts = parts or random_parts(run, _texts(store.stream(np.sort(selection.train))))
        encoder = encoder or load_encoder(run, parts.tokenizer, loading)
        origins, fitted, noticed = _write_tokens(run, store, selection, parts, encoder, folder)
    _say_what_was_noticed(noticed, fitted, parts.template, run)
    tokens = TokenStore(folder / "tokens.arrow")
    train = _in_order(_entries(selection.train, origins), tokens, origins, store, run.data.order)
    evaluation = _entries(selection.held_out, origins)
    if not len(train):
        raise UserError(f"data: no conversation is left to train on ({_what_was_left_out(gathered, fitted, noticed)})")
    write_members(folder / "train.arrow", _rows(train, tokens, run))
    write_members(folder / "evaluation.arrow", _evaluation_rows(evaluation, tokens, run))
    np.save(folder / "train_conversations.npy", _without_repeats(origins[train]))
    np.save(folder / "held_out.npy", _without_repeats(origins[evaluation]))
    if run.model.weights == "random":
        parts.tokenizer.save_pretrained(folder / "tokenizer")
    write_json(folder / "template.json", asdict(parts.template))
    counts = Counts(
        train_conversations=len(_without_repeats(origins[train])),
        evaluation_conversations=len(_without_repeats(origins[evaluation])),
        train_rows=len(RowStore.open(tokens, folder / "train.arrow")),
        train_tokens=int(tokens.lengths[train].sum()),
        train_supervised_tokens=int(tokens.supervised[train].sum()),
        skipped_rows=gathered.skipped,
        filtered_out=gathered.filtered_out,
        lost_reasoning=noticed.without_their_reasoning,
        refused=noticed.refused,
        not_drawn=len(store) - len(np.union1d(selection.train, selection.held_out)),
        **asdict(fitted),
    )
    write_json(folder / "counts.json", asdict(counts))
    return parts.tokenizer


def _write_tokens(
    run: RunConfig, store: ConversationStore, selection: Selection, parts: ModelParts, encoder: Encoder, folder: Path
) -> tuple[np.ndarray, Fitted, Noticed]:
    """Write ``tokens.arrow``; returns the position in the store that each of its entries comes from, ascending."""
    positions = np.unique(np.concatenate([selection.train, selection.held_out]))
    try:
        return _write_tokens_with(encoder, run, store, positions, parts, folder)
    except EnginesDisagree as error:
        log.warning("%s; once more with the tokenizer itself, which takes longer", error)
        return _write_tokens_with(exact_encoder(parts.tokenizer), run, store, positions, parts, folder)


def _write_tokens_with(
    encoder: Encoder, run: RunConfig, store: ConversationStore, positions: np.ndarray, parts: ModelParts, folder: Path
) -> tuple[np.ndarray, Fitted, Noticed]:
    fitted, noticed = Fitted(), Noticed()
    origins = [np.zeros(0, dtype=np.int64)]
    done = 0
    with (
        TokenWriter(folder / "tokens.arrow") as writer,
        (folder / "refused.txt").open("w", encoding="utf-8") as refused,
        Progress("tokenize", len(positions), unit="conversation", delay=1) as progress,
    ):
        batches = _rendered(run, store, positions, parts)
        for batch, tokens in encode_batches(batches, parts.template, encoder, noticed):
            policy, longest = run.data.too_long, run.data.max_length
            sources, kept = fit(batch.ids, tokens, max_length=longest, policy=policy, fitted=fitted)
            writer.write([batch.ids[at] for at in sources], kept)
            places = np.array(batch.places, dtype=np.int64)
            origins.append(positions[done + places[sources]])
            refused.writelines(f"{reason}\n" for reason in batch.refused)
            done += batch.size
            progress.show(done)
    return np.concatenate(origins), fitted, noticed


def _rendered(
    run: RunConfig, store: ConversationStore, positions: np.ndarray, parts: ModelParts
) -> Iterator[RenderedBatch]:
    stored = store.stream_batches(positions)
    processes = processes_for(run.data, many=store.size_of(positions) >= MANY_BYTES)
    special_tokens, control = dict(parts.tokenizer.special_tokens_map), control_tokens(parts.tokenizer)
    settings = (parts.template, special_tokens, control, run.data.on_bad_row == "skip")
    if processes == 1:
        yield from map(BatchRenderer(*settings), stored)
        return
    with Workers(processes, BatchRenderer, *settings) as workers:
        yield from workers.map(stored)


def _texts(conversations: Iterable[Conversation]) -> Iterator[str]:
    return (f"{message['role']}\n{message.get('content') or ''}" for one in conversations for message in one.messages)


def _entries(positions: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """The entries of the tokens that come from these positions: none, one, or the pieces of one that was split."""
    first, last = np.searchsorted(origins, positions), np.searchsorted(origins, positions, side="right")
    counts = last - first
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(first, counts) + within


def _in_order(
    entries: np.ndarray, tokens: TokenStore, origins: np.ndarray, store: ConversationStore, order: str
) -> np.ndarray:
    """In the order of a curriculum; what is equal in it stays in the seeded order."""
    if order in SHUFFLED:
        return entries
    if order == "source":
        return np.sort(entries)
    if order in ("shortest_first", "longest_first"):
        lengths = tokens.lengths[entries]
        return entries[np.argsort(lengths if order == "shortest_first" else -lengths, kind="stable")]
    return entries[np.argsort(store.ranks()[origins[entries]], kind="stable")]


def _rows(entries: np.ndarray, tokens: TokenStore, run: RunConfig) -> list[Sequence[int]]:
    if not run.data.packing or run.data.packing_scope == "global_batch":
        return [entries[at : at + 1].tolist() for at in range(len(entries))]
    lengths, longest = tokens.lengths[entries], run.data.max_length
    with Progress("pack", len(lengths), unit="conversation", delay=1) as progress:
        shuffled = run.data.order in SHUFFLED
        packs = pack(lengths, longest, progress.show) if shuffled else pack_in_order(lengths, longest)
    return [entries[members].tolist() for members in packs]


def _evaluation_rows(entries: np.ndarray, tokens: TokenStore, run: RunConfig) -> list[Sequence[int]]:
    if not run.data.packing:
        return [[int(entry)] for entry in entries]
    return [entries[members].tolist() for members in pack(tokens.lengths[entries].tolist(), run.data.max_length)]


def _without_repeats(positions: np.ndarray) -> np.ndarray:
    """In the order of their first appearance; a conversation that was split has several entries."""
    return positions[np.sort(np.unique(positions, return_index=True)[1])]


def _say_what_was_noticed(noticed: Noticed, fitted: Fitted, template: Template, run: RunConfig) -> None:
    if noticed.refused:
        log.warning(
            "skipped %d conversations that template '%s' cannot render; each is listed in refused.txt",
            noticed.refused,
            template.name,
        )
    if noticed.with_control_tokens:
        log.warning("%d conversations spell control tokens out; they are read as text", noticed.with_control_tokens)
    if noticed.with_noncharacters:
        log.warning("%d conversations hold U+FDD0 to U+FDD2; they are read as U+FFFD", noticed.with_noncharacters)
    if noticed.without_their_reasoning:
        log.warning(
            "%d conversations lose reasoning in <think>, as template '%s' renders them; data.thinking=keep keeps it",
            noticed.without_their_reasoning,
            template.name,
        )
    if any(asdict(fitted).values()):
        log.warning(
            "longer than data.max_length=%d: %d dropped, %d truncated, %d split, %d dropped because nothing supervised "
            "was left; %d tokens are in no row",
            run.data.max_length,
            fitted.dropped_too_long,
            fitted.truncated,
            fitted.split,
            fitted.dropped_unsupervised,
            fitted.cut_tokens,
        )


def _what_was_left_out(gathered: Gathered, fitted: Fitted, noticed: Noticed) -> str:
    return (
        f"{gathered.skipped} bad rows skipped, {noticed.refused} refused by the template, {fitted.dropped_too_long} "
        f"dropped as too long, {fitted.dropped_unsupervised} because nothing supervised was left"
    )
