"""What inspect shows, against the same numbers computed another way."""

import json
import math
import re
import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image
from matplotlib.colors import to_rgb
from test_formats_real import answers, conversations

from ftx.data.inspection import (
    Side,
    _edges,
    class_balance,
    class_figure,
    class_table,
    coloured,
    length_figure,
    length_table,
    overlap_table,
    printable,
)
from ftx.data.overlap import Near, Overlap, Pairs
from ftx.figures import save

NOTHING = Side(*(np.array([], dtype=np.int64) for _ in range(3)))


def side(tokens, supervised=(), row_tokens=()) -> Side:
    return Side(*(np.array(numbers, dtype=np.int32) for numbers in (tokens, supervised, row_tokens)))


def cells(table: str) -> list[list[str]]:
    """The lines of a table as their cells, without the rule; every line is equally long."""
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert re.fullmatch(r"\| -+ (\| -+: )+\|", lines[1])
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in rows if row != rows[1]]


def column(table: str, name: str) -> dict[str, str]:
    header, *rows = cells(table)
    return {row[0]: row[header.index(name)] for row in rows}


lengths = st.lists(st.integers(1, 3000), min_size=1, max_size=300)


@given(lengths, lengths)
def test_lengths_are_those_of_sorted_lists(tokens, row_tokens):
    supervised = [length // 3 for length in tokens]
    ordered, n = sorted(tokens), len(tokens)
    for name, table in (
        ("training", length_table(side(tokens, supervised, row_tokens), NOTHING, 3000)),
        ("evaluation", length_table(NOTHING, side(tokens, supervised, row_tokens), 3000)),
    ):
        assert column(table, name) == {
            "conversations": f"{n}",
            "tokens": f"{sum(tokens):,}",
            "supervised tokens": f"{sum(supervised):,}",
            "supervised share": f"{100 * sum(supervised) / sum(tokens):.1f} %",
            "rows of up to 3,000": f"{len(row_tokens)}",
            "packing efficiency": f"{sum(row_tokens) / len(row_tokens) / 30:.1f} %",
            "shortest conversation": f"{ordered[0]:,}",
            "median": f"{statistics.median_low(tokens):,}",
            "mean": f"{statistics.fmean(tokens):,.1f}",
            "95 % at most": f"{ordered[math.ceil(95 * n / 100) - 1]:,}",
            "99 % at most": f"{ordered[math.ceil(99 * n / 100) - 1]:,}",
            "longest conversation": f"{ordered[-1]:,}",
        }


def test_a_side_without_conversations_has_counts_of_0_and_no_lengths():
    shown = column(length_table(side([10], [5], [10]), NOTHING, 20), "evaluation")
    assert [name for name, cell in shown.items() if cell == "0"] == [
        *("conversations", "tokens", "supervised tokens", "rows of up to 20")
    ]
    assert set(shown.values()) == {"0", "–"}


def test_many_tokens_do_not_overflow():
    many = side([2**31 - 1] * 3, [2**31 - 1] * 3, [2**31 - 1] * 3)
    assert column(length_table(many, NOTHING, 2**31 - 1), "training")["tokens"] == f"{3 * (2**31 - 1):,}"


@given(st.integers(1, 50), st.integers(0, 100_000), st.booleans())
def test_bars_lie_between_whole_numbers_and_hold_every_length(low, more, logarithmic):
    edges = _edges(low, low + more, logarithmic=logarithmic)
    assert edges[0] == low - 0.5
    assert edges[-1] > low + more
    assert np.all(edges % 1 == 0.5)
    widths = np.diff(edges)
    assert widths.min() >= 1
    assert np.all(np.diff(widths) >= 0)
    assert len(widths) <= 90
    if more >= 400:
        assert len(widths) >= 20


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_figure_of_lengths_shows_shares_of_each_side_and_the_longest_row():
    train, evaluation = side([10] * 30 + [20] * 10), side([15] * 4)
    figure = length_figure(train, evaluation, 64)
    (axes,) = figure.axes
    ours, theirs = (patch.get_data() for patch in axes.patches)
    heights = {edge + 0.5: height for height, edge in zip(ours.values, ours.edges[:-1], strict=True) if height}
    assert heights == {10: 75.0, 20: 25.0}
    assert theirs.values.sum() == 100
    assert theirs.edges[:-1][theirs.values > 0] == [14.5]
    assert axes.lines[0].get_xdata()[0] == 64
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("length (tokens)", "share of conversations (%)")
    assert legend(figure) == ["training (n = 40)", "evaluation (n = 4)", "max_length (64)"]
    assert axes.get_xscale() == "linear"


@pytest.mark.parametrize(
    ("longest", "max_length", "scale"), [(249, 249, "linear"), (250, 100, "log"), (11, 250, "log")]
)
def test_a_wide_range_is_shown_on_a_logarithmic_axis(longest, max_length, scale):
    (axes,) = length_figure(side([10, longest]), NOTHING, max_length).axes
    assert axes.get_xscale() == scale


def test_sides_can_be_told_apart_in_grey():
    (axes,) = length_figure(side([5, 9]), side([5, 6]), 20).axes
    filled, outline = axes.patches
    assert filled.get_fill()
    assert not outline.get_fill()

    def grey(colour):
        return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))

    assert grey(filled.get_facecolor()[:3]) - grey(outline.get_edgecolor()[:3]) > 0.2


def test_figures_without_data_are_refused_and_with_one_side_drawn():
    with pytest.raises(ValueError, match="at least one conversation"):
        length_figure(NOTHING, NOTHING, 10)
    with pytest.raises(ValueError, match="at least one label"):
        class_figure({}, {})
    assert legend(length_figure(NOTHING, side([3, 4]), 10)) == ["evaluation (n = 2)", "max_length (10)"]
    assert legend(class_figure({}, {"a": 3})) == ["evaluation (n = 3)"]


def test_figures_are_written_the_same_twice_with_their_words_as_text(tmp_path):
    for name, draw in {
        "lengths": lambda: length_figure(side([3, 3000, 70]), side([40, 50]), 4096),
        "classes": lambda: class_figure({"net": 1, "os": 3}, {"os": 1}),
    }.items():
        first, second = (save(draw(), tmp_path / f"{name}{i}") for i in range(2))
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
        assert "evaluation (n = " in first[1].read_text()
        height, width, _ = image.imread(first[0]).shape
        assert 1000 <= width <= 1500
        assert 300 <= height <= 1000
    assert ">1,000</text>" in (tmp_path / "lengths0.svg").read_text()


def test_labels_are_counted_the_most_frequent_first():
    given_answers = ['{"area":"os"}', '{"area": "net"}', ' {"area":"net"}\n', '{"area":"aio"}']
    assert list((class_balance(given_answers) or {}).items()) == [("net", 2), ("aio", 1), ("os", 1)]


@pytest.mark.parametrize(
    "other",
    [
        *("", "net", '"net"', "[]", '["a"]', '[["area","net"]]', "{}", '{"area":1}', '{"area":null}', '{"area":["a"]}'),
        *(
            '{"area":"net","why":"x"}',
            '{"area":"net","area":"os"}',
            '{"kind":"net"}',
            '{"area":"net"} yes',
            "[" * 10**5,
        ),
        json.dumps({"area": "x" * 65}),
    ],
)
def test_one_other_answer_and_it_is_no_classification(other):
    assert class_balance(['{"area":"net"}']) == {"net": 1}
    assert class_balance(['{"area":"net"}', other, '{"area":"net"}']) is None


def test_more_than_fifty_labels_are_texts():
    many = [json.dumps({"area": str(i % 51)}) for i in range(200)]
    assert class_balance(many) is None
    assert len(class_balance(text for text in many if '"50"' not in text) or {}) == 50
    assert class_balance([]) is None


def test_the_balance_of_real_news():
    found = answers(conversations("ag_news/test.csv.gz", "ag_news", ("class", "title", "description")))
    counted = Counter(re.findall(r'"([^"]+)"\}', "".join(found)))
    assert class_balance(found) == counted
    assert set(counted.values()) == {1900}


def test_labels_of_either_side_stand_in_the_table():
    assert cells(class_table({"net": 1, "a|b": 2998}, {"net": 3, "\x1b[2J": 1})) == [
        ["label", "training", "share", "evaluation", "share"],
        [r"a\|b", "2,998", "100.0 %", "0", "0.0 %"],
        ["net", "1", "0.0 %", "3", "75.0 %"],
        [r"\x1b[2J", "0", "0.0 %", "1", "25.0 %"],
        ["all", "2,999", "100.0 %", "4", "100.0 %"],
    ]
    assert column(class_table({"net": 4}, {}), "evaluation") == {"net": "0", "all": "0"}
    assert cells(class_table({"net": 4}, {}))[1][-1] == "–"


def test_bars_of_labels_are_their_shares():
    (axes,) = class_figure({"net": 1, "os": 3}, {"os": 4}).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["os", "net"]
    ours, theirs = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert (ours, theirs) == ([75.0, 25.0], [100.0, 0.0])


def test_overlap_is_shown_with_its_examples():
    found = Overlap(
        4000, 80, 13, Pairs(2, (("a:5", "a:1"),)), Pairs(1, (("e:1", "a:\x1b5"),)), Near(40, (("e:2", 7 / 13),)), 44
    )
    table, _, examples = overlap_table(found).partition("\nFor example:\n\n")
    assert [row[1:] for row in cells(table)] == [
        ["found", "of", "share"],
        ["2", "4,000", "0.1 %"],
        ["1", "80", "1.2 %"],
        ["40", "80", "50.0 %"],
        ["44", "80", "55.0 %"],
    ]
    assert "50 % or more of the user's 13-grams" in table
    assert examples.splitlines() == [
        "- a:5 repeats a:1",
        r"- e:1 equals a:\x1b5",
        "- e:2: 53.8 % of the user's 13-grams are in training",
    ]
    nothing = overlap_table(Overlap(0, 0, 13, Pairs(), Pairs(), Near(), 0))
    assert [row[1:] for row in cells(nothing)[1:]] == [["0", "0", "–"]] * 4


def test_supervised_pieces_are_marked():
    pieces = ["<user>Hi\n", "", "<assistant>\t", "Yes.", "\n", ""]
    assert coloured(pieces, colour=True) == "<user>Hi\n<assistant>\t\x1b[1;32mYes.\x1b[0m\n"
    assert coloured(pieces, colour=False) == "<user>Hi\n<assistant>\t⟦Yes.⟧\n"
    assert coloured([], colour=True) == ""
    assert coloured(["", "⟦x⟧"], colour=False) == r"⟦\u27e6x\u27e7⟧"
    assert coloured(["", "⟦x⟧"], colour=True) == "\x1b[1;32m⟦x⟧\x1b[0m"


nasty = st.text(st.characters() | st.sampled_from("\x1b\x9b\r\x07\x08\x7f\u202e\ud800⟦⟧\n\t"))


@given(st.lists(nasty, max_size=6), st.booleans())
def test_data_cannot_drive_the_terminal(pieces, colour):
    shown = coloured(pieces, colour)
    shown.encode()
    own = shown.replace("\x1b[1;32m", "").replace("\x1b[0m", "")
    assert not [c for c in own if not c.isprintable() and (ord(c) < 0xA0 and c not in "\n\t")]
    supervised = [piece for piece in pieces[1::2] if piece]
    begin, end = ("\x1b[1;32m", "\x1b[0m") if colour else "⟦⟧"
    assert shown.count(begin) == shown.count(end) == len(supervised)
    between = re.findall(re.escape(begin) + "(.*?)" + re.escape(end), shown, re.DOTALL)
    if colour:
        assert between == [printable(piece) for piece in supervised]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("\x9b2J\x07\r\n\t", "\\x9b2J\\x07\\r\n\t"),
        ("abc\u202edef", r"abc\u202edef"),
        ("\udc80", r"\udc80"),
        ("Käse 🐈\u200d⬛ 東京", "Käse 🐈\u200d⬛ 東京"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown
