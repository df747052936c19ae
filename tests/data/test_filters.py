"""``data.filter``: conditions on rows."""

import pytest

from ftx.data.filters import filter_columns, parse_filter
from ftx.errors import UserError

ROW = {"score": 4, "text": "12.5", "language": "en", "good": True, "note": None}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("score>=4", True),
        ("score > 4", False),
        ("score<5", True),
        ("score<=3", False),
        ("score==4", True),
        ("score!=4", False),
        ("text>12", True),
        ("text<12.4", False),
        ("language==en", True),
        ('language=="en"', True),
        ("language!=de", True),
        ("language~^e", True),
        ("language~n.", False),
        ("good==true", True),
        ("note==null", True),
    ],
)
def test_a_condition(condition, holds):
    assert parse_filter([condition])(ROW) is holds


def test_all_conditions_have_to_hold():
    assert parse_filter(["score>=4", "language==en"])(ROW)
    assert not parse_filter(["score>=4", "language==de"])(ROW)
    assert parse_filter([])(ROW)
    assert filter_columns(["score>=4", "language ~ e=", "a.b!=1"]) == ["score", "language", "a.b"]


@pytest.mark.parametrize("text", ["score", "", ">=4", "score is 4"])
def test_what_is_no_condition_is_said(text):
    with pytest.raises(UserError, match=r"data\.filter=\[.*no condition; write COLUMN, one of == != >= <= > < ~"):
        parse_filter([text])


def test_a_broken_pattern_is_said():
    with pytest.raises(UserError, match=r"data\.filter=\[\"language~\(\"\]: \( is no regular expression"):
        parse_filter(["language~("])


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("missing>1", "has no missing, which data.filter asks for"),
        ("language>1", "language is 'en', no number"),
        ("note>1", "note is None, which cannot be compared with 1"),
    ],
)
def test_a_row_that_cannot_be_judged_says_why(condition, reason):
    with pytest.raises(ValueError, match=reason):
        parse_filter([condition])(ROW)
