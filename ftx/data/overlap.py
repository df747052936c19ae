"""Conversations that training data repeats, and evaluation conversations that it gives away.

Texts are compared as words: lower-cased runs of letters, digits and underscores. So ``2+2`` and ``2-2`` are the same,
and a script without blanks has few, long words: of it whole messages are found at best, no passages. What the system
says (role system or developer) does not count, for all rows of a set share it.
"""

import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ftx.data.conversation import Conversation, Message

# Words in a row that two texts hardly ever share by chance (Brown et al., 2020, appendix C).
GRAM_WORDS = 13
# A message of fewer words ("Yes, please!") gives nothing away.
FEWEST_WORDS = 5
# An evaluation conversation is near when this share of its user's grams occurs in training conversations.
NEAR_FROM = 0.5
# Grams that more evaluation conversations have than this share, and than this number, are the task's instructions.
BOILERPLATE_SHARE, BOILERPLATE_FROM = 0.01, 10
EXAMPLES = 5

_WORD = re.compile(r"\w+")
_NOT_COUNTED = ("system", "developer")
_BATCH_WORDS = 2**13  # what the processor's caches hold; larger batches take up to twice as long
_REMEMBERED_WORDS = 2**20
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word's bits are multiplied away
_SLOTS_PER_GRAM = 16


@dataclass(frozen=True)
class Pairs:
    """How many conversations, and the first few of them, each with the id of the earliest one that it equals."""

    count: int = 0
    examples: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Near:
    """How many conversations, and the first few of them, each with the share of its grams that was found."""

    count: int = 0
    examples: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Overlap:
    """What ``overlap`` finds among ``train`` and ``evaluation`` conversations with grams of ``n`` words.

    ``train_duplicates`` and ``evaluation_exact`` equal a training conversation, an earlier one or any, in every role
    and word. ``evaluation_near`` and ``evaluation_touched`` look at the distinct grams of the user's messages: at least
    half of them (``NEAR_FROM``), or at least one, stand in a message of some training conversation. The counts do not
    exclude each other: most exact conversations are near, and all near ones are touched.
    """

    train: int
    evaluation: int
    n: int
    train_duplicates: Pairs
    evaluation_exact: Pairs
    evaluation_near: Near
    evaluation_touched: int


def overlap(
    train: Iterable[Conversation],
    evaluation: Sequence[Conversation],
    n: int = GRAM_WORDS,
    on_done: Callable[[int], None] | None = None,
) -> Overlap:
    """Compare ``train``, read once, with itself and with ``evaluation``; ``on_done`` hears how many were read.

    A gram is ``n`` words in a row within one message, or all of a message with fewer; a message of fewer than
    ``FEWEST_WORDS`` words has none. Grams that occur in more than max(10, 1 %) of the evaluation conversations are
    boilerplate and do not count. Grams and conversations are told apart by 64-bit hashes, the same in every process.

    Memory grows with the evaluation conversations' grams, and by 8 bytes and the id with each training conversation.
    """
    if n < 1:
        raise ValueError(f"a gram has at least one word, not {n}")
    batches = list(_batches(evaluation, n, only_user=True))
    wanted = _EvaluationGrams(batches)
    digests = [digest for batch in batches for digest in batch.digests]
    found, seen = _read(train, n, wanted, frozenset(digests), on_done)
    exact = [(one.id, found[digest]) for one, digest in zip(evaluation, digests, strict=True) if digest in found]
    shares = wanted.shares_met()
    near = np.flatnonzero(shares >= NEAR_FROM)
    return Overlap(
        train=len(seen.digests),
        evaluation=len(evaluation),
        n=n,
        train_duplicates=seen.duplicates(),
        evaluation_exact=Pairs(len(exact), tuple(exact[:EXAMPLES])),
        evaluation_near=Near(len(near), tuple((evaluation[at].id, float(shares[at])) for at in near[:EXAMPLES])),
        evaluation_touched=int((shares > 0).sum()),
    )


def _read(
    train: Iterable[Conversation],
    n: int,
    wanted: "_EvaluationGrams",
    digests: frozenset[int],
    on_done: Callable[[int], None] | None,
) -> tuple[dict[int, str], "_Seen"]:
    """The earliest conversation with each of the ``digests``, and all of them; ``wanted`` meets their grams."""
    found: dict[int, str] = {}
    seen = _Seen()
    for batch in _batches(train, n, only_user=False):
        wanted.meet(batch.grams)
        seen.add(batch)
        for digest, id in zip(batch.digests, batch.ids, strict=True):
            if digest in digests:
                found.setdefault(digest, id)
        if on_done is not None:
            on_done(len(seen.digests))
    return found, seen


@dataclass(frozen=True)
class _Spoken:
    """A conversation as who says which words."""

    id: str
    said: tuple[tuple[str, list[str]], ...]


@dataclass(frozen=True)
class _Batch:
    """Some conversations in their order, hashed; ``owners`` says which of them each of the ``grams`` is from."""

    ids: tuple[str, ...]
    digests: tuple[int, ...]
    grams: np.ndarray
    owners: np.ndarray


def _batches(conversations: Iterable[Conversation], n: int, *, only_user: bool) -> Iterator[_Batch]:
    """All conversations in batches; grams are of the user's messages only, or of all messages."""
    hashes = _WordHashes()
    for part in _parts(map(_spoken, conversations)):
        messages = [
            (owner, words)
            for owner, one in enumerate(part)
            for role, words in one.said
            if len(words) >= FEWEST_WORDS and (role == "user" or not only_user)
        ]
        grams, sources = _grams([words for _, words in messages], n, hashes)
        owners = np.array([owner for owner, _ in messages], dtype=np.int64)[sources]
        yield _Batch(tuple(one.id for one in part), tuple(map(_digest, part)), grams, owners)


def _parts(conversations: Iterable[_Spoken]) -> Iterator[list[_Spoken]]:
    """Lists of conversations of about ``_BATCH_WORDS`` words together."""
    part: list[_Spoken] = []
    size = 0
    for one in conversations:
        part.append(one)
        size += 1 + sum(len(words) for _, words in one.said)
        if size >= _BATCH_WORDS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _spoken(conversation: Conversation) -> _Spoken:
    counted = (message for message in conversation.messages if message["role"] not in _NOT_COUNTED)
    return _Spoken(conversation.id, tuple((message["role"], _words(message)) for message in counted))


def _words(message: Message) -> list[str]:
    """The words of a message: what is thought, said and called, a call without its number."""
    text = message.get("content") or ""
    if message.get("reasoning_content"):
        text = f"{message['reasoning_content']}\n{text}"
    if message.get("tool_calls"):
        calls = [call.get("function", call) for call in message["tool_calls"]]
        text = f"{text}\n{json.dumps(calls, ensure_ascii=False, sort_keys=True, default=str)}"
    return _WORD.findall(text.lower())


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _digest(conversation: _Spoken) -> int:
    return _hash("\0".join(f"{role}\0{' '.join(words)}" for role, words in conversation.said))


class _WordHashes(dict[str, int]):
    """A hash for each word that was asked for lately; the empty word, which only fills up, has 0."""

    def __missing__(self, word: str) -> int:
        found = self[word] = _hash(word) if word else 0
        return found

    def of(self, words: Sequence[str]) -> np.ndarray:
        if len(self) > _REMEMBERED_WORDS:
            self.clear()
        return np.fromiter(map(self.__getitem__, words), dtype=np.uint64, count=len(words))


def _grams(messages: Sequence[Sequence[str]], n: int, hashes: _WordHashes) -> tuple[np.ndarray, np.ndarray]:
    """The hash of every gram of the messages, given as words, and the position of the message that it is from."""
    words: list[str] = []
    for message in messages:
        words += message
        if len(message) < n:
            words += [""] * (n - len(message))
    if not words:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    lengths = np.maximum(n, np.fromiter(map(len, messages), dtype=np.int64, count=len(messages)))
    hashed = hashes.of(words)
    starts = len(words) - n + 1
    # Horner's scheme: a polynomial in _FACTOR modulo 2^64, at all starts at once.
    grams = hashed[:starts].copy()
    for offset in range(1, n):
        grams *= _FACTOR
        grams += hashed[offset : offset + starts]
    ends = np.repeat(np.cumsum(lengths), lengths)[:starts]
    return grams[np.arange(n, n + starts) <= ends], np.repeat(np.arange(len(messages)), lengths - n + 1)


class _EvaluationGrams:
    """The distinct grams of each of some conversations, and which grams were met in training."""

    def __init__(self, batches: Sequence[_Batch]) -> None:
        before = np.cumsum([0, *(len(batch.ids) for batch in batches)])
        every = np.concatenate([np.empty(0, dtype=np.uint64), *(batch.grams for batch in batches)])
        owners = [batch.owners + first for batch, first in zip(batches, before[:-1], strict=True)]
        self._conversations = int(before[-1])
        self._grams, places = np.unique(every, return_inverse=True)
        kinds = max(len(self._grams), 1)
        once = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *owners]) * kinds + places)
        self._owners, self._places = np.divmod(once, kinds)
        self._met = np.zeros(len(self._grams), dtype=bool)
        # Most grams of training end at this table of the first bits, without a search.
        bits = max(10, (_SLOTS_PER_GRAM * len(self._grams)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._maybe = np.zeros(2**bits, dtype=bool)
        self._maybe[self._grams >> self._shift] = True

    def meet(self, grams: np.ndarray) -> None:
        likely = grams[self._maybe[grams >> self._shift]]
        places = np.searchsorted(self._grams, likely)
        inside = places < len(self._grams)
        places, likely = places[inside], likely[inside]
        self._met[places[self._grams[places] == likely]] = True

    def shares_met(self) -> np.ndarray:
        """Of each conversation the share of its distinct grams that were met, boilerplate aside; 0 without any."""
        holders = np.bincount(self._places, minlength=len(self._grams))
        counted = holders <= max(BOILERPLATE_FROM, BOILERPLATE_SHARE * self._conversations)
        own = np.bincount(self._owners[counted[self._places]], minlength=self._conversations)
        met = np.bincount(self._owners[(counted & self._met)[self._places]], minlength=self._conversations)
        return met / np.maximum(own, 1)


class _Seen:
    """Training conversations by digest, with their ids in blocks: as separate texts those would take far more."""

    def __init__(self) -> None:
        self.digests = array("Q")
        self._ends: list[int] = []
        self._ids: list[str] = []

    def add(self, batch: _Batch) -> None:
        self.digests.extend(batch.digests)
        self._ends.append(len(self.digests))
        self._ids.append("\0".join(batch.ids))

    def duplicates(self) -> Pairs:
        digests = np.frombuffer(self.digests, dtype=np.uint64)
        _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
        earliest = first[inverse]
        later = np.flatnonzero(earliest < np.arange(len(digests)))
        return Pairs(len(later), tuple((self._id(at), self._id(earliest[at])) for at in later[:EXAMPLES]))

    def _id(self, at: int) -> str:
        block = int(np.searchsorted(self._ends, at, side="right"))
        from_the_end = at - self._ends[block]
        return self._ids[block].split("\0")[from_the_end]
