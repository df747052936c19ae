"""Pieces of text → token ids: exactly what the tokenizer gives, by a faster engine where one is known to agree.

A piece border is a border between tokens. The tokenizer alone would merge across one, as a header's newline with a
newline that the answer begins with; but a model that has to answer gets a prompt that ends there.
"""

import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ftx.data.guard import BORDER
from ftx.data.render import Rendered

log = logging.getLogger(__name__)

# What a fast engine's answers are compared on: the first texts, then every so many.
COMPARED_FIRST, COMPARED_EVERY = 512, 101


@dataclass(frozen=True)
class TokenBatch:
    """Conversations as tokens, one after another.

    ``lengths`` has the tokens of each conversation. Its tokens come in ``runs``: so many that are not supervised, so
    many that are, and so on; ``run_counts`` has the number of runs of each conversation.
    """

    input_ids: np.ndarray
    lengths: np.ndarray
    runs: np.ndarray
    run_counts: np.ndarray


class Encoder(Protocol):
    """Anything that makes a TokenBatch of rendered conversations."""

    def __call__(self, rendered: Sequence[Rendered]) -> TokenBatch: ...


class EnginesDisagree(Exception):
    """The fast engine gave other tokens than the tokenizer itself."""


def exact_encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """The tokenizer itself."""
    backend = _as_it_splits(tokenizer)
    if not is_piecewise(backend):
        return _InContext(backend, tuple(control_tokens(tokenizer)))

    def encode(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        return _flat(ids), np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))

    return _Piecewise(encode)


def fast_encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder | None:
    """fastokens, an order of magnitude faster, compared with the tokenizer on the way; None where it cannot be used.

    The encoder raises EnginesDisagree where the comparison fails. To load it takes a second.
    """
    backend = _as_it_splits(tokenizer)
    if not is_piecewise(backend):
        return None
    try:
        import fastokens

        engine = fastokens.Tokenizer.from_json_str(backend.to_str())
    except (ImportError, ValueError) as error:
        log.warning("fastokens cannot be used (%s); the tokenizer itself is, which takes longer", error)
        return None
    seen = 0

    def encode(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        nonlocal seen
        id_bytes, offset_bytes = engine.encode_batch_flat(list(texts))
        ids = np.frombuffer(id_bytes, np.uint32).astype(np.int32)
        offsets = np.frombuffer(offset_bytes, np.uint64).astype(np.int64)
        compared = [at for at in range(len(texts)) if seen + at < COMPARED_FIRST or (seen + at) % COMPARED_EVERY == 0]
        seen += len(texts)
        for at, right in zip(
            compared, backend.encode_batch_fast([texts[at] for at in compared], add_special_tokens=False), strict=True
        ):
            if ids[offsets[at] : offsets[at + 1]].tolist() != right.ids:
                raise EnginesDisagree(f"fastokens splits {texts[at][:60]!r} otherwise")
        return ids, np.diff(offsets)

    return _Piecewise(encode)


def _as_it_splits(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Without the padding and truncation that a tokenizer may have been saved with: they would change the tokens."""
    backend = tokenizer.backend_tokenizer
    if backend.padding is None and backend.truncation is None:
        return backend
    plain = copy.deepcopy(backend)
    plain.no_padding()
    plain.no_truncation()
    return plain


def is_piecewise(tokenizer: Tokenizer) -> bool:
    """Whether a piece's tokens depend on the piece alone: byte-level, nothing added in front, no spaces swallowed."""
    pre_tokenizer = _described(tokenizer.pre_tokenizer)
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return (
        isinstance(tokenizer.model, models.BPE)
        and _described(tokenizer.normalizer).get("type") in (None, "NFC", "NFD", "NFKC", "NFKD")
        and all(step.get("type") in ("Split", "Digits", "ByteLevel") for step in steps)
        and steps[-1].get("type") == "ByteLevel"
        and not any(step.get("add_prefix_space") for step in steps)
        and not any(
            token.lstrip or token.rstrip or token.single_word for token in tokenizer.get_added_tokens_decoder().values()
        )
    )


def _described(part: Any) -> dict[str, Any]:
    """A part of a tokenizer as tokenizer.json has it."""
    described: dict[str, Any] = json.loads(part.__getstate__()) if part is not None else {}
    return described


def control_tokens(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The longest first, so that a pattern of them finds the whole one.

    Some tokenizers have the tokens of turns (``<｜User｜>``) not among the special ones, where ``<think>`` is neither.
    """
    added = tokenizer.added_tokens_decoder.values()
    control = [token.content for token in added if token.special or token.content.startswith(("<|", "<｜"))]
    return sorted(control, key=len, reverse=True)


class _Piecewise:
    """Every piece by itself; ``encode`` gives the ids of many texts in one array, and how many each has."""

    def __init__(self, encode: Any) -> None:
        self._encode = encode

    def __call__(self, rendered: Sequence[Rendered]) -> TokenBatch:
        pieces = list(chain.from_iterable(one.pieces for one in rendered))
        if not pieces:
            nothing = np.zeros(0, dtype=np.int64)
            return TokenBatch(nothing.astype(np.int32), nothing, nothing, nothing)
        parts = [piece.split(BORDER) if BORDER in piece else (piece,) for piece in pieces]
        input_ids, counts = self._encode(list(chain.from_iterable(parts)))
        ends = np.concatenate([[0], np.cumsum(counts)])
        runs = np.diff(ends[np.concatenate([[0], np.cumsum([len(part) for part in parts])])])
        run_counts = np.array([len(one.pieces) for one in rendered], dtype=np.int64)
        return _batch(input_ids, runs, run_counts)


class _InContext:
    """For tokenizers whose tokens depend on what stands before, as those that mark the first word of a text."""

    def __init__(self, tokenizer: Tokenizer, control: tuple[str, ...]) -> None:
        self._control = control
        self._splitting = _splitting_at_borders(tokenizer)

    def __call__(self, rendered: Sequence[Rendered]) -> TokenBatch:
        texts, spans = zip(*(self._with_borders(one) for one in rendered), strict=True) if rendered else ((), ())
        encodings = self._splitting.encode_batch(list(texts), add_special_tokens=False)
        runs = [
            runs_of(supervised_tokens(encoding.offsets, own)).tolist()
            for encoding, own in zip(encodings, spans, strict=True)
        ]
        run_counts = np.array([len(one) for one in runs], dtype=np.int64)
        return _batch(_flat([encoding.ids for encoding in encodings]), _flat(runs), run_counts)

    def _with_borders(self, rendered: Rendered) -> tuple[str, list[tuple[int, int]]]:
        """The text with a BORDER between pieces, but for places where a control token splits it anyway.

        Not there, because tokenizers of the SentencePiece kind mark the first word after a control token.
        """
        text, spans, before = "", [], ""
        for number, piece in enumerate(rendered.pieces):
            splits_anyway = before.endswith(self._control) or piece.startswith(self._control)
            text += piece if not (text and piece) or splits_anyway else BORDER + piece
            before = piece or before
            if number % 2:
                spans.append((len(text) - len(piece), len(text)))
        return text, spans


def _splitting_at_borders(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, but it makes no token over a BORDER and drops it."""
    splitting = copy.deepcopy(tokenizer)
    steps: list[Any] = [pre_tokenizers.Split(BORDER, "removed")]
    own = splitting.pre_tokenizer
    if own is not None:
        # Metaspace may mark the first word of each part that it is given: it has to see the whole.
        steps.insert(0 if _described(own).get("type") == "Metaspace" else 1, own)
    splitting.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return splitting


def supervised_tokens(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Which tokens, given by their character offsets, lie in one of the spans."""
    starts, ends = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    inside = np.zeros(len(starts), dtype=bool)
    for start, end in spans:
        inside |= (starts < end) & (ends > start)
    return inside


def runs_of(supervised: np.ndarray) -> np.ndarray:
    """The lengths of the runs of equal marks; the first run is of tokens that are not supervised, if need be empty."""
    changes = np.flatnonzero(np.diff(supervised)) + 1
    borders = np.concatenate([[0], changes, [len(supervised)]]) if len(supervised) else np.array([0])
    runs = np.diff(borders)
    return np.concatenate([[0], runs]) if len(supervised) and supervised[0] else runs


def _batch(input_ids: np.ndarray, runs: np.ndarray, run_counts: np.ndarray) -> TokenBatch:
    """The first token of a conversation has none before it to be predicted from, so it is never supervised."""
    starts = np.concatenate([[0], np.cumsum(run_counts)])
    runs = runs.copy()
    may_begin_supervised = np.flatnonzero(run_counts > 0)
    for at in may_begin_supervised[runs[starts[may_begin_supervised]] == 0]:
        begin, end = int(starts[at]), int(starts[at + 1])
        first = begin
        while first < end and runs[first] == 0:
            first += 1
        if first < end and (first - begin) % 2:
            runs[first] -= 1
            runs[first - 1] += 1
    ends = np.concatenate([[0], np.cumsum(runs)])
    return TokenBatch(input_ids, np.diff(ends[starts]), runs, run_counts)


def _flat(lists: Sequence[Sequence[int]]) -> np.ndarray:
    count = sum(map(len, lists))
    return np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=count)
