"""From a source to packed rows on disk: prepared once for each fingerprint, whoever needs it next maps it."""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ftx.config.schema import RunConfig
from ftx.data.collate import Row
from ftx.data.conversation import Conversation
from ftx.data.fingerprint import cache_folder, data_fingerprint, model_fingerprint
from ftx.data.packing import pack
from ftx.data.sources import load_conversations
from ftx.data.store import RowStore, write_rows
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.data.tokenize import Tokenized, tokenize
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.lock import acquire_or_wait
from ftx.run_folder import publish_folder, write_json
from ftx.templates import Template, choose_template, load_template

log = logging.getLogger(__name__)

# Raised when the same input would become other rows than before.
PREPARE_VERSION = 2


@dataclass(frozen=True)
class Counts:
    """What became of the source: nothing is left out without being counted."""

    train_conversations: int
    evaluation_conversations: int
    train_rows: int
    train_tokens: int
    train_supervised_tokens: int
    skipped_rows: int
    dropped_too_long: int
    truncated: int


@dataclass(frozen=True)
class Prepared:
    """Rows to train on and to evaluate on, the held-out conversations themselves, and what renders and reads them."""

    train: RowStore
    evaluation: RowStore
    held_out: tuple[Conversation, ...]
    tokenizer: PreTrainedTokenizerFast
    template: Template
    counts: Counts


def prepare(run: RunConfig) -> Prepared:
    """The run's data, from the cache where it is there, else built once under a lock."""
    folder = cache_folder(run) / "prepared" / _prepared_fingerprint(run)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with acquire_or_wait(folder.with_suffix(".lock"), folder.is_dir) as must_build:
        if must_build:
            _build(run, folder)
    prepared = _open(folder)
    if run.evaluation.tasks and not prepared.held_out:
        raise UserError(
            f"evaluation.tasks=[{', '.join(run.evaluation.tasks)}]: no conversation is left to score on, "
            f"{prepared.counts.dropped_too_long} were too long; raise data.max_length or say evaluation.tasks=[]"
        )
    return prepared


def _build(run: RunConfig, folder: Path) -> None:
    loaded = load_conversations(run)
    for reason in loaded.skipped[:10]:
        log.warning("skipped: %s", reason)
    if len(loaded.skipped) > 10:
        log.warning("skipped %d rows in all; each is listed in %s", len(loaded.skipped), folder / "skipped.txt")
    tokenizer, template = _tokenizer_and_template(run, loaded.train)
    train, fitted = _fit(tokenize(loaded.train, tokenizer, template), run)
    evaluation, evaluation_fitted = _fit(tokenize(loaded.held_out, tokenizer, template), run)
    if not train:
        raise UserError(f"data: no conversation is left to train on ({_what_was_left_out(loaded.skipped, fitted)})")
    rows = _rows(train, run)
    kept = {one.id for one in evaluation}
    held_out = [conversation for conversation in loaded.held_out if conversation.id in kept]
    counts = Counts(
        train_conversations=len(train),
        evaluation_conversations=len(evaluation),
        train_rows=len(rows),
        train_tokens=sum(len(one.input_ids) for one in train),
        train_supervised_tokens=int(sum(one.supervised.sum() for one in train)),
        skipped_rows=len(loaded.skipped),
        dropped_too_long=fitted.dropped + evaluation_fitted.dropped,
        truncated=fitted.truncated + evaluation_fitted.truncated,
    )
    writing = folder.with_suffix(".writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    tokenizer.save_pretrained(writing / "tokenizer")
    write_rows(writing / "train.arrow", rows)
    write_rows(writing / "evaluation.arrow", _rows(evaluation, run))
    write_json(writing / "held_out.json", [asdict(conversation) for conversation in held_out])
    write_json(writing / "template.json", asdict(template))
    write_json(writing / "counts.json", asdict(counts))
    (writing / "skipped.txt").write_text("".join(f"{reason}\n" for reason in loaded.skipped), encoding="utf-8")
    publish_folder(writing, folder)


def _open(folder: Path) -> Prepared:
    def read(name: str) -> object:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    held_out = tuple(
        Conversation(one["id"], tuple(one["messages"]), tuple(one["tools"]), one["group"])
        for one in read("held_out.json")  # type: ignore[attr-defined]
    )
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder / "tokenizer")  # type: ignore[assignment]
    template = Template(**read("template.json"))  # type: ignore[arg-type]
    tokenizer.chat_template = template.text
    counts = Counts(**read("counts.json"))  # type: ignore[arg-type]
    return Prepared(
        RowStore(folder / "train.arrow"), RowStore(folder / "evaluation.arrow"), held_out, tokenizer, template, counts
    )


def _prepared_fingerprint(run: RunConfig) -> str:
    templates = sorted((CHECKOUT / "templates").glob("*.jinja"))
    text = [file.read_text("utf-8") for file in templates if run.model.template in ("auto", file.stem)]
    data = run.data
    parts = {
        "version": PREPARE_VERSION,
        "data": data_fingerprint(run),
        "model": model_fingerprint(run) or f"tokenizer of {run.model.architecture.vocabulary_size} entries",
        "template": [run.model.template, *text],
        "options": [data.source, data.limit, data.holdout, data.max_length, data.packing, data.too_long, run.seed],
        "rows": [data.on_bad_row, data.format, list(data.columns), data.group_by],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _tokenizer_and_template(run: RunConfig, train: Sequence[Conversation]) -> tuple[PreTrainedTokenizerFast, Template]:
    if run.model.weights == "random":
        texts = (f"{message['role']}\n{message.get('content') or ''}" for one in train for message in one.messages)
        tokenizer = train_tokenizer(texts, run.model.architecture.vocabulary_size)
        return tokenizer, load_template(run.model.template)
    name = str(run.model.name)
    try:
        own: Any = AutoTokenizer.from_pretrained(name, revision=run.model.revision)
    except (OSError, ValueError) as error:
        raise UserError(f"model.name={name}: its tokenizer cannot be loaded: {str(error).splitlines()[0]}") from error
    return own, choose_template(run.model.template, own)


@dataclass(frozen=True)
class _Fitted:
    dropped: int
    truncated: int


def _fit(tokenized: Sequence[Tokenized], run: RunConfig) -> tuple[list[Tokenized], _Fitted]:
    """What ``data.too_long`` says about conversations longer than ``data.max_length``."""
    longest, policy = run.data.max_length, run.data.too_long
    kept: list[Tokenized] = []
    dropped = truncated = 0
    for one in tokenized:
        if len(one.input_ids) <= longest:
            kept.append(one)
        elif policy == "error":
            raise UserError(
                f"{one.id} has {len(one.input_ids)} tokens, more than data.max_length={longest}; raise it, or say "
                "data.too_long=drop or truncate"
            )
        elif policy == "truncate" and one.supervised[1:longest].any():
            kept.append(Tokenized(one.id, one.input_ids[:longest], one.supervised[:longest]))
            truncated += 1
        else:
            dropped += 1
    if dropped or truncated:
        log.warning("longer than data.max_length=%d: %d dropped, %d truncated", longest, dropped, truncated)
    return kept, _Fitted(dropped, truncated)


def _rows(tokenized: Sequence[Tokenized], run: RunConfig) -> list[Row]:
    lengths = [len(one.input_ids) for one in tokenized]
    packs = pack(lengths, run.data.max_length) if run.data.packing else [[at] for at in range(len(tokenized))]
    return [_row([tokenized[at] for at in indices]) for indices in packs]


def _row(segments: Sequence[Tokenized]) -> Row:
    return Row(
        np.concatenate([one.input_ids for one in segments]),
        np.concatenate([one.supervised for one in segments]),
        np.array([len(one.input_ids) for one in segments], dtype=np.int32),
        tuple(one.id for one in segments),
    )


def _what_was_left_out(skipped: Sequence[str], fitted: _Fitted) -> str:
    return f"{len(skipped)} bad rows skipped, {fitted.dropped} dropped as too long"
