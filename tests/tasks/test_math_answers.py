"""Final answers as models write them, and every gold answer of the real sets against itself and against wrong ones."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_data import real_rows

from ftx.data.formats import to_conversation
from ftx.data.rows import BadRow, Row
from ftx.tasks.math_answers import FinalAnswer, final_answer, is_right
from ftx.tasks.math_numbers import number_alone, read_number


@pytest.mark.parametrize(
    ("text", "answer", "marked"),
    [
        ("She has 3.\n#### 18", "18", True),
        ("#### Step 1\nWe add.\n#### 1,800 eggs\n", "1,800 eggs", True),
        (r"So \boxed{5} at first, then \boxed{\frac{3}{4}} in all. 7", r"\frac{3}{4}", True),
        (r"\boxed{2} and \boxed{3", "2", True),
        (r"\fbox{ 12 }", "12", True),
        (r"#### 3" + "\n" + r"\boxed{4}", "4", True),
        ("The answer is 18. I hope that helps.", "18", True),
        ("Answer: 18 dollars\nGoodbye 3", "18 dollars", True),
        ("**Final answer:** $3.5$ m", "$3.5$ m", True),
        ("The answer is 2? No, the answer is:\n\n3.25.", "3.25", True),
        ("<think>\n2 + 2, the answer is 5\n</think>\n\n4", "4", True),
        ("thought\n</think>\n\nx = 4 apples", "x = 4 apples", True),
        ("18 dollars", "18 dollars", True),
        ("She makes 9 * 2 = 18 dollars.", "18", False),
        ("First 5 eggs.\nThen 1,250 more m^2.", "1,250", False),
        ("They differ by 10-4.", "4", False),
    ],
)
def test_where_an_answer_is_found(text, answer, marked):
    assert final_answer(text) == FinalAnswer(answer, marked)


@pytest.mark.parametrize(
    "text", ["", "  \n", "I do not know.\nSorry.", "<think>\nThe answer is 4", "<think>4</think>\n "]
)
def test_texts_without_an_answer(text):
    assert final_answer(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("+65.49", Fraction("65.49")),
        ("−2", -2),
        ("-$5.50", Fraction("-5.5")),
        (r"-\$1,234", -1234),
        ("$ -3 $", -3),
        ("10 - 5", 10),
        ("89,034.79 $", Fraction("89034.79")),
        (r"10\,000", 10000),
        ("12{,}500", 12500),
        ("1,2", 1),
        ("3/4", Fraction(3, 4)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        (r"\dfrac12", Fraction(1, 2)),
        (r"\left(\frac{-2}{3}\right)", Fraction(-2, 3)),
        ("1 1/2", Fraction(3, 2)),
        (r"-2\frac{1}{4}", Fraction(-9, 4)),
        ("0.5 / 2", Fraction(1, 4)),
        ("3e8", 3 * 10**8),
        ("1.5E-3", Fraction("0.0015")),
        (r"3.0 \times 10^{8}", 3 * 10**8),
        ("3.0 × 10⁸ m/s", 3 * 10**8),
        ("2*10**-3", Fraction("0.002")),
        ("6.02x10^23", 602 * 10**21),
        ("10^{-3}", Fraction(1, 1000)),
        ("2^{10}", 1024),
        (r"\text{about } 18\text{ dollars}", 18),
        (r"9.8 \mathrm{~m} / \mathrm{s}^{2}", Fraction("9.8")),
        (r"27^{\circ} \mathrm{C}", 27),
        ("18.", 18),
        (".5", Fraction(1, 2)),
    ],
)
def test_numbers_as_they_are_written(text, value):
    assert read_number(text).value == value


@pytest.mark.parametrize("text", ["none", r"\frac{\sqrt{2}}{x}", "x", "1/0", "m^2", "9" * 5000])
def test_what_is_no_number(text):
    assert read_number(text) is None


@given(st.decimals(-(10**9), 10**9, allow_nan=False, places=4))
def test_a_number_is_read_back_with_commas_and_without(number):
    for text in (f"{number:f}", f"{number:,f}", f"${number:,f}$ kg", rf"\boxed{{{number:f}}}"):
        assert read_number(text).value == Fraction(number)


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("18", "18", True),
        ("18.0 eggs", "18", True),
        ("18.01", "18", False),
        ("-18", "18", False),
        ("x = 2 + 3 = 5", "5", True),
        ("0.75", r"\frac{3}{4}", True),
        ("0.7500001", r"\frac{3}{4}", False),
        # Rounded numbers within 5 % of the right one.
        ("52.5", "50.0", True),
        ("52.6", "50.0", False),
        ("47.5", "50.0", True),
        ("47.4", "50.0", False),
        ("-50.0", "50.0", False),
        ("0.001", "0.0", False),
        # A power of ten is multiplied, or is left to the unit that was asked for.
        (r"7.5 \times 10^6", "7.5 $10^6$ m", True),
        ("7500000", "7.5 $10^6$ m", True),
        ("7.5", "7.5 $10^6$ m", True),
        ("7.5", r"7.5 \times 10^6 m", False),
        ("7.5 $10^6$ m", "7.5", False),
        # Per cent.
        ("5 %", "5", True),
        ("5", r"5 \%", True),
        ("0.05", "5%", True),
        ("50%", "0.5", True),
        ("5", "500%", True),
        ("50", "5%", False),
        # Formulas as texts.
        (r"$ X^2 + 1 $", "x^2+1", True),
        ("x^2+2", "x^2+1", False),
        ("5", "5x", False),
        ("(2, 3)", "(2,3)", True),
        ("2", "(2,3)", False),
        ("no", "5", False),
    ],
)
def test_right_and_wrong_answers(answer, gold, right):
    assert is_right(answer, gold) is right


def test_the_tolerance_may_be_said():
    assert is_right("18.9", "18", 0.05)
    assert not is_right("19", "18", 0.05)
    assert not is_right("50.01", "50.0", 0)
    assert is_right("50.01", "50.0", 0.001)


def gold_answers(name: str, format: str) -> list[tuple[dict, str]]:
    """Rows, and the final answer of what is learned from each; rows that are no conversation are left out."""
    found = []
    for number, row in enumerate(real_rows(name), 1):
        try:
            learned = to_conversation(Row(number, row), Path(name), format).messages[-1]["content"]
        except BadRow:
            continue
        answer = final_answer(learned)
        assert answer is not None and answer.marked
        found.append((row, answer.text))
    return found


def assert_only_the_right_one(given: str, gold: str) -> None:
    """By the default and by SciBench's tolerance."""
    number = number_alone(given)
    assert number is not None
    off = [Fraction(-1), Fraction(0), Fraction("0.94"), Fraction("1.06"), Fraction(7)]
    wrong = [number.value * times for times in off] if number.value else [Fraction(1)]
    for tolerance in (None, 0.05):
        assert is_right(given, gold, tolerance)
        for value in wrong:
            assert not is_right(f"{value.numerator}/{value.denominator}", gold, tolerance)


def test_gsm8ks_gold_solutions_are_right_and_changed_ones_are_not():
    found = gold_answers("gsm8k/test.jsonl.gz", "gsm8k")
    assert len(found) == 1319
    for row, gold in found:
        published = row["answer"].rpartition("####")[2].strip()
        solved = final_answer(row["answer"])
        assert solved.marked
        assert is_right(solved.text, gold)
        assert is_right(published, gold)
        value = int(published.replace(",", ""))
        for wrong in (value + 1, value - 1, -value if value else 2, value * 10 if value else 3, f"{value}.5"):
            assert not is_right(final_answer(f"{row['answer'].rpartition('####')[0]}#### {wrong}").text, gold)


def test_scibenchs_gold_answers_are_right_and_changed_ones_are_not():
    found = gold_answers("scibench/scibench.jsonl", "scibench")
    assert len(found) == 692
    for row, gold in found:
        assert is_right(gold, gold)
        assert_only_the_right_one(row["answer_number"], gold)


def test_mathcoders_gold_answers_are_the_published_ones():
    found = gold_answers("mathcoder/lce_solutions.jsonl.gz", "mathcodeinstruct")
    assert len(found) == 2808
    wrong = [(row["answer"], gold) for row, gold in found if not is_right(gold, gold)]
    assert wrong == []
    differing = [(str(row["answer"]), gold) for row, gold in found if not is_right(str(row["answer"]), gold)]
    assert len(differing) == 8, differing
