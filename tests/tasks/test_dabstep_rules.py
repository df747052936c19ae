"""The leaderboard's rule with its quirks, each as it is known, and the strict one beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_data import real_rows

from ftx.tasks.dabstep_rules import official, strict


@pytest.mark.parametrize(
    ("answer", "gold", "right", "meant"),
    [
        # Quirks of the official rule.
        ("0.94000000000005", "-0.94000000000005", True, False),
        ("A:13.57", "E:13.57", True, False),
        ("fee 12", "12", True, False),
        ("Applicable", "Not Applicable", True, False),
        ("13.6", "13.57", True, False),
        ("N/A", "Not Applicable", False, False),
        ("", "Not Applicable", False, False),
        ("709,741,454", "709, 741, 454", False, True),
        ("709,741,454", "709741454", True, True),
        # Per cent are no ratio; dollars and thousands do not count.
        ("73.15%", "73.15", True, False),
        ("73.15%", "0.7315", False, False),
        ("$1,234.50", "1234.5", True, False),
        ("1,234.50", "1234.5", True, True),
        # Rounded to the smaller number of decimals, of which a whole number has one; below 1 to 1e-4 instead.
        ("13.566", "13.57", True, False),
        ("13.56", "13.57", False, False),
        ("12.04", "12", True, False),
        ("12.06", "12", False, False),
        ("0.12", "0.12005", True, False),
        ("0.12", "0.1202", False, False),
        ("100009", "100001", True, False),
        ("100012", "100001", False, False),
        # Lists in any order, with brackets or without, item by item.
        ("B, a; C", "[c, A, b]", True, True),
        ("a, b", "a, b, c", False, False),
        ("a, b, b", "a, b, c", False, False),
        ("NL: 1.5, BE: 2.0", "BE: 2.04, NL: 1.5", True, False),
        ("NL: 1.5, BE: 2.0", "BE: 2, NL: 1.50", True, True),
        (", ,", ",", True, True),
        # Texts: signs do not count; a single word is found in several; else nearly the same is the same.
        ("B. BE", "b be", True, False),
        ("B. BE", "b.  be ", True, True),
        ("BE", "B. BE", True, False),
        ("the fine of the merchant is higher", "the fine of the merchants is higher", True, False),
        ("the fine of the merchant is higher", "the fine of the merchant is lower", False, False),
        ("yes", "no", False, False),
        ("YES", "yes", True, True),
        ("", "", True, True),
        # Types and wholes, which only the strict rule knows.
        ("12", "12%", True, False),
        ("12.0", "12", True, True),
        (".5", "0.50", True, True),
        ("−0.5", "-0.5", True, True),
        ("1e2", "100", False, True),
        ("e5", "5", True, False),
        ("5, 5", "5", False, False),
        ("[5]", "5", True, False),
    ],
)
def test_verdicts_of_both_rules(answer, gold, right, meant):
    assert official(answer, gold) is right
    assert strict(answer, gold) is meant


@given(st.text("aZ1290.,;:$%-[] \n", max_size=14), st.text("aZ1290.,;:$%-[] \n", max_size=14))
def test_the_official_rule_treats_both_sides_alike(one, other):
    assert official(one, other) is official(other, one)


@given(st.text(max_size=20))
def test_every_answer_is_right_where_it_is_the_gold_one(text):
    assert official(text, text)
    assert strict(text, text)


@given(st.decimals(-(10**6), 10**6, places=3), st.integers(1, 9), st.booleans())
def test_strict_numbers_hold_to_the_last_decimal(number, last, minus):
    gold = f"{number:f}"
    assert strict(f"{number:,f}00", gold)
    assert not strict(f"{gold}{last}", gold)
    assert not strict(f"x{gold}", gold)
    assert strict(f"{-number:f}", gold) is (number == 0)


def test_the_published_answers_are_right_by_both_rules():
    for row in real_rows("dabstep/dev.jsonl"):
        assert official(row["answer"], row["answer"])
        assert strict(row["answer"], row["answer"])
        if row["answer"] != "Not Applicable":
            assert not strict("Not Applicable", row["answer"])
            assert not official("Not Applicable", row["answer"])
