"""Near-duplicate removal against a comparison of every pair."""

import random
import re

import pytest

from ftx.data.near_duplicates import distinct, shingles


def similarity(left, right):
    """The definition, on joined strings instead of tuples."""

    def runs(text):
        words = [word for word in re.split(r"\W+", text.casefold()) if word]
        return {" ".join(words[i : i + 3]) for i in range(len(words) - 2)} or {" ".join(words)}

    a, b = runs(left), runs(right)
    return len(a & b) / len(a | b)


def kept_by_all_pairs(texts, threshold):
    kept = []
    for position, text in enumerate(texts):
        if all(similarity(text, texts[earlier]) < threshold for earlier in kept):
            kept.append(position)
    return kept


def test_shingles_are_runs_of_three_words_without_case_and_punctuation():
    assert shingles("Read, then CLOSE the file.") == {
        ("read", "then", "close"),
        ("then", "close", "the"),
        ("close", "the", "file"),
    }


@pytest.mark.parametrize("text", ["", "...", "one", "One two!"])
def test_a_text_too_short_for_a_run_is_one_shingle(text):
    assert shingles(text) == {tuple(re.findall(r"[a-z]+", text.lower()))}


def test_threshold_counts_as_a_duplicate_and_just_above_does_not():
    texts = ["a b c d e f g h i", "a b c d e f g h x"]  # 6 of 8 runs in common
    assert distinct(texts, threshold=0.75) == [0]
    assert distinct(texts, threshold=0.76) == [0, 1]


def test_first_of_equal_texts_is_kept_whatever_the_punctuation():
    assert distinct(["Close it", "close it!", "Closed it", "CLOSE  it", "", "--"]) == [0, 2, 4]


def test_a_text_is_compared_with_kept_texts_only():
    chain = ["a b c d e f g h i j", "b c d e f g h i j k", "c d e f g h i j k l"]  # neighbours 7/9, ends 6/10
    assert distinct(chain, threshold=0.7) == [0, 2]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_comparing_every_pair(seed, threshold):
    rng = random.Random(seed)
    vocabulary = ["the", "a", "file", "Socket", "value", "returns", "of", "Set"]
    originals = [rng.choices(vocabulary, k=rng.randint(0, 14)) for _ in range(60)]
    copies = [[word for word in rng.choice(originals) if rng.random() < 0.93] for _ in range(200)]
    texts = [" ".join(words) for words in originals + copies]
    expected = kept_by_all_pairs(texts, threshold)
    assert distinct(texts, threshold) == expected
    assert 0 < len(expected) < len(texts)
