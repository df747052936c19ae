"""What a model is shown of a cell: its parts, cut where they are long, with a mark."""

import pytest

from ftx.agent.cells import CellOutcome, shown


def lines(count: int) -> str:
    return "".join(f"line {number}\n" for number in range(count))


@pytest.mark.parametrize(
    ("part", "most"), [("result", 25), ("stdout", 10), ("stderr", 10)], ids=["result", "stdout", "stderr"]
)
def test_a_long_part_is_cut_to_its_first_lines_with_a_mark(part, most):
    whole = shown(CellOutcome("ok", **{part: lines(most)}), 60)
    cut = shown(CellOutcome("ok", **{part: lines(most + 3)}), 60)

    assert whole.splitlines() == [f"{part}:", *lines(most).splitlines()]
    assert cut.splitlines() == [f"{part}:", *lines(most).splitlines(), "[… 3 more lines cut]"]


def test_of_a_long_traceback_the_end_is_kept():
    cut = shown(CellOutcome("error", traceback=lines(30)), 60).splitlines()
    assert cut == ["traceback:", "[… 20 lines before these cut]", *lines(30).splitlines()[20:]]


def test_a_line_without_end_is_cut_with_a_mark():
    cut = shown(CellOutcome("ok", result="x" * 12_345), 60)
    assert cut == "result:\n" + "x" * 10_000 + " [… 2,345 more characters cut]"


def test_the_parts_stand_under_their_names_and_empty_ones_are_left_out():
    cell = CellOutcome("error", stdout="a\n", traceback="b")
    assert shown(cell, 60) == "stdout:\na\ntraceback:\nb"
    assert shown(CellOutcome("ok"), 60) == "[the cell ran and printed nothing]"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("interrupted", "longer than 7 s and was interrupted; variables are kept"),
        (
            "killed",
            "longer than 7 s and did not stop when interrupted; the kernel was started again",
        ),
        ("died", "the kernel died; it was started again"),
        ("ended", "because it took too much memory; it was started again, all variables and files are gone"),
    ],
)
def test_the_model_is_told_how_a_cell_was_ended(state, words):
    assert words in shown(CellOutcome(state, stdout="a", why="it took too much memory"), 7)
