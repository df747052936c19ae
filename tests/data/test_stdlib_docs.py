"""The embedded data set: a small made-up library, and the real one of this interpreter."""

import json
import os
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from ftx.data.stdlib_areas import AREA_OF
from ftx.data.stdlib_docs import (
    AREAS,
    LONGER_THAN,
    SHOWN_CHARS,
    DocString,
    conversations,
    fingerprint,
    scan,
    shorten,
)
from ftx.errors import UserError

HOLDOUT = 0.15

JSON_DECODER = '''"""Turn the text of a document into values."""
raise RuntimeError("the sources are parsed, never run")

class Decoder:
    """Reads one document after another.

        Indented in the source.
          And further in.
    """
    def decode(self, text):
        """Give back the value that the text stands for."""
        def scan_once():
            """Look at one token and say where it ends."""
    def just_too_short(self):
        """These are thirty characters..."""
    def just_long_enough(self):
        """These are 31 characters long..."""
    def empty(self):
        pass

if True:
    try:
        async def load():
            """Wait for the whole document to arrive."""
    except Exception:
        def load():
            """A second definition with the same name."""
        def load_slowly():
            """Only where the quick way is not there."""
else:
    def dump():
        """Turn the text of a document into values."""
'''


@pytest.fixture
def library(tmp_path):
    files = {
        "json/__init__.py": '"""The package has a text of its own too."""',
        "json/decoder.py": JSON_DECODER,
        "json/tests/test_decoder.py": '"""Tests are no part of the library proper."""',
        "smtplib.py": '# -*- coding: latin-1 -*-\n"""Hand letters to the post office (caf\xe9) today."""',
        "idlelib/run.py": '"""Folders outside of the table are not read."""',
        "antigravity.py": '"""Modules outside of the table are not read."""',
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("latin-1"))
    return tmp_path


def test_scan_of_a_small_library(library):
    decoder = "json.decoder"
    assert scan(library) == [
        DocString("json", "", "", "The package has a text of its own too.", "data"),
        DocString(decoder, "", "", "Turn the text of a document into values.", "data"),
        DocString(
            decoder,
            "Decoder",
            "Decoder",
            "Reads one document after another.\n\nIndented in the source.\n  And further in.",
            "data",
        ),
        DocString(decoder, "Decoder", "Decoder.decode", "Give back the value that the text stands for.", "data"),
        DocString(decoder, "Decoder", "Decoder.decode.scan_once", "Look at one token and say where it ends.", "data"),
        DocString(decoder, "Decoder", "Decoder.just_long_enough", "These are 31 characters long...", "data"),
        DocString(decoder, "load", "load", "Wait for the whole document to arrive.", "data"),
        DocString(decoder, "load_slowly", "load_slowly", "Only where the quick way is not there.", "data"),
        DocString("smtplib", "", "", "Hand letters to the post office (caf\xe9) today.", "network"),
    ]


def test_examples_made_of_a_small_library(library):
    train, held = conversations(scan(library), seed=0, holdout=0)
    assert not held
    by_id = {example.id: example for example in train}
    assert set(by_id) == {
        "stdlib:json",
        "stdlib:json.decoder",
        "stdlib:json.decoder.Decoder",
        "stdlib:json.decoder.Decoder.decode",
        "stdlib:json.decoder.Decoder.decode.scan_once",
        "stdlib:json.decoder.Decoder.just_long_enough",
        "stdlib:json.decoder.load",
        "stdlib:json.decoder.load_slowly",
        "stdlib:smtplib",
    }
    example = by_id["stdlib:json.decoder.Decoder"]
    assert example.group == "json.decoder:Decoder"
    assert [message["role"] for message in example.messages] == ["system", "user", "assistant"]
    assert example.messages[1]["content"] == "Reads one document after another. Indented in the source. And further in."
    assert example.messages[2]["content"] == '{"area":"data"}'
    assert not example.tools


def test_shortened_texts_are_compared_not_whole_ones():
    head = " ".join(f"word{number}" for number in range(60))
    docs = [DocString("json", name, name, f"{head} {name} and more", "data") for name in ("first", "second")]
    train, _ = conversations(docs, seed=0, holdout=0)
    assert [example.id for example in train] == ["stdlib:json.first"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("One\n\n  two\tthree", "One two three"),
        ("ab " * 200, ("ab " * 80).strip()),
        ("ab " * 79 + "cde tail", "ab " * 79 + "cde"),
        ("ab " * 79 + "cdef tail", ("ab " * 79).strip()),
        ("x" * 239 + " tail", "x" * 239),
        ("x" * 240 + " tail", "x" * 240),
        ("x" * 241 + " tail", "x" * 240),
        ("See " + "=" * 300, "See " + "=" * 236),
    ],
)
def test_shorten_cuts_between_words(text, shown):
    assert SHOWN_CHARS == 240
    assert shorten(text) == shown


def test_fingerprint_follows_content_and_not_time(library):
    before = fingerprint(library)
    decoder = library / "json" / "decoder.py"
    os.utime(decoder, (1, 1))
    assert fingerprint(library) == before
    times = decoder.stat()
    decoder.write_bytes(decoder.read_bytes().replace(b"Wait", b"Stay"))
    os.utime(decoder, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = fingerprint(library)
    assert changed != before
    decoder.rename(decoder.with_name("reader.py"))
    assert fingerprint(library) not in {before, changed}


def test_fingerprint_ignores_files_that_scan_does_not_read(library):
    before = fingerprint(library)
    for name in ("antigravity.py", "idlelib/run.py", "json/tests/test_decoder.py", "json/notes.txt"):
        (library / name).write_text('"""Something else altogether, and long enough."""')
    assert fingerprint(library) == before


def test_fingerprint_depends_on_the_python_version(library, monkeypatch):
    before = fingerprint(library)
    monkeypatch.setattr(sys, "version_info", (3, 99, 0, "final", 0))
    assert fingerprint(library) != before


def test_a_folder_without_sources_is_refused(tmp_path):
    for read in (scan, fingerprint):
        with pytest.raises(UserError, match=str(tmp_path)):
            read(tmp_path)


@pytest.mark.parametrize("holdout", [-0.1, 1.0, 15])
def test_holdout_is_a_share(holdout):
    with pytest.raises(ValueError, match="holdout"):
        conversations([], seed=0, holdout=holdout)


@pytest.fixture(scope="module")
def docs():
    before = set(sys.modules)
    found = scan()
    imported = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not imported & set(AREA_OF), "scanning must not import what it scans"
    return found


@pytest.fixture(scope="module")
def split(docs):
    return conversations(docs, seed=0, holdout=HOLDOUT)


def area(example):
    return json.loads(example.messages[2]["content"])["area"]


def text(example):
    return example.messages[1]["content"]


def test_the_real_library_gives_enough_of_each_area(docs, split):
    train, held = split
    assert len(docs) >= len(train) + len(held) > 3000
    ids = [example.id for example in train + held]
    assert len(set(ids)) == len(ids)
    for side in split:
        counts = Counter(map(area, side))
        assert set(counts) == set(AREAS)
        assert max(counts.values()) < 0.4 * len(side)


def test_real_texts_are_distinct_and_long_enough(docs):
    assert len({doc.text for doc in docs}) == len(docs)
    assert all(len(doc.text) > LONGER_THAN for doc in docs)
    assert all(doc.owner == doc.name.split(".")[0] for doc in docs)
    assert all(doc.area == AREA_OF[doc.module.split(".")[0]] for doc in docs)
    assert not [doc for doc in docs if {"test", "tests", "idlelib", "site-packages"} & set(doc.module.split("."))]


def test_shown_texts_are_short_and_answers_name_an_area(split):
    for example in split[0] + split[1]:
        assert LONGER_THAN < len(text(example)) <= SHOWN_CHARS
        assert set(json.loads(example.messages[2]["content"])) == {"area"}
        assert area(example) in AREAS
    assert len({example.messages[0]["content"] for example in split[0] + split[1]}) == 1


def test_held_out_part_has_its_share_of_each_area(split):
    train, held = (Counter(map(area, side)) for side in split)
    for name in AREAS:
        assert held[name] == pytest.approx(HOLDOUT * (train[name] + held[name]), abs=2)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_class_or_function_is_on_both_sides(docs, seed):
    train, held = conversations(docs, seed=seed, holdout=HOLDOUT)
    owner = {f"stdlib:{doc.module}.{doc.name}".rstrip("."): (doc.module, doc.owner) for doc in docs}
    sides = defaultdict(set)
    for side, examples in enumerate((train, held)):
        for example in examples:
            sides[owner[example.id]].add(side)
    assert {len(seen) for seen in sides.values()} == {1}
    held_sizes = Counter(example.group for example in held)
    assert max(held_sizes.values()) > 1


def test_no_two_near_duplicates_are_left(split):
    texts = [text(example) for example in split[0] + split[1]]
    counter = CountVectorizer(ngram_range=(3, 3), token_pattern=r"\w+", binary=True, dtype=np.int32)
    runs = counter.fit_transform(texts)
    sizes = np.asarray(runs.sum(axis=1)).ravel()
    shared = (runs @ runs.T).tocoo()
    pairs = shared.row < shared.col
    rows, columns, both = shared.row[pairs], shared.col[pairs], shared.data[pairs]
    similarity = both / (sizes[rows] + sizes[columns] - both)
    assert 0.5 < similarity.max() < 0.7
    assert len({" ".join(counter.build_tokenizer()(shown.lower())) for shown in texts}) == len(texts)


def test_the_seed_alone_decides_the_split(docs, split):
    assert conversations(docs, seed=0, holdout=HOLDOUT) == split
    assert scan() == docs
    _, other = conversations(docs, seed=1, holdout=HOLDOUT)
    first, second = ({example.id for example in side} for side in (split[1], other))
    assert len(first & second) < 0.5 * len(first)


def test_examples_are_mixed_so_that_the_first_few_have_more_than_one_or_two_areas(split):
    for side in split:
        assert len(set(map(area, side[:50]))) >= 3  # the fourth is rare where tkinter is not installed


def test_words_tell_the_area_of_held_out_classes(split):
    train, held = split
    counter = CountVectorizer()
    model = MultinomialNB().fit(counter.fit_transform(map(text, train)), list(map(area, train)))
    assert model.score(counter.transform(map(text, held)), list(map(area, held))) >= 0.7
