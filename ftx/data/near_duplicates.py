"""Texts that say nearly the same thing, found exactly: no hashing trick, no sampling."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

Shingle = tuple[str, ...]

SHINGLE_WORDS = 3
THRESHOLD = 0.7

_WORD = re.compile(r"\w+")


def shingles(text: str) -> frozenset[Shingle]:
    """All runs of three successive words, case and punctuation ignored.

    A text of fewer words is one shingle as a whole, so that it equals only texts with the same words; never empty.
    """
    words = tuple(_WORD.findall(text.lower()))
    last_start = max(0, len(words) - SHINGLE_WORDS)
    return frozenset(words[start : start + SHINGLE_WORDS] for start in range(last_start + 1))


def distinct(texts: Iterable[str], threshold: float = THRESHOLD) -> list[int]:
    """Positions of the texts to keep: each text whose Jaccard similarity to every kept earlier one is below threshold.

    The similarity of two texts is the share of their shingles that both have. Only earlier texts with a shingle in
    common are looked at, which loses nothing for a threshold above 0.
    """
    kept_sizes: dict[int, int] = {}
    holders: defaultdict[Shingle, list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        own = shingles(text)
        shared = Counter(earlier for shingle in own for earlier in holders.get(shingle, ()))
        if any(both >= threshold * (len(own) + kept_sizes[earlier] - both) for earlier, both in shared.items()):
            continue
        kept_sizes[position] = len(own)
        for shingle in own:
            holders[shingle].append(position)
    return list(kept_sizes)
