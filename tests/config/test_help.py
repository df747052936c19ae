"""--help: every group, choice and experiment with its description, without Hydra."""

import json
import re
import subprocess
import sys

import pytest

from ftx.config.help import choices_of, groups, render
from ftx.environment import CHECKOUT

HELP = """
import json, sys
sys.argv = ["ftx.train", *json.loads(sys.argv[1])]
from ftx.train import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(json.dumps([end.code, sorted({"torch", "hydra", "transformers"} & set(sys.modules))]))
"""


def helped(*words: str) -> tuple[str, list]:
    process = subprocess.run(
        [sys.executable, "-c", HELP, json.dumps(words)], capture_output=True, text=True, check=True
    )
    *lines, end = process.stdout.splitlines()
    return "\n".join(lines), json.loads(end)


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("model=nonsense", "--help")])
def test_help_ends_well_and_imports_nothing_heavy(words):
    text, end = helped(*words)
    assert end == [0, []]
    assert text.startswith("usage: python -m ftx.train")


def test_help_lists_everything_with_its_description():
    text, _ = helped("--help")
    for folder in (CHECKOUT / "conf", CHECKOUT / "experiments", CHECKOUT / "launchers"):
        for file in folder.rglob("*.yaml"):
            if file.name != "train.yaml":
                lines = file.read_text(encoding="utf-8").splitlines()
                comment = next(line for line in lines if "@package" not in line)
                assert f"  {file.stem} " in text
                assert comment.removeprefix("# ") in text
    for group in groups():
        assert f"\n{group}=\n" in text


def test_every_choice_is_described():
    assert {(group, choice) for group in groups() for choice, said in choices_of(group).items() if not said} == set()


def test_choices_of_ones_own_are_listed(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("# @package _global_\n# A model of mine.\nweights: random\n")
    (tmp_path / "model" / "bare.yaml").write_text("weights: random\n")
    text = render("train", "Trains.", tmp_path)
    assert re.search("^  mine +A model of mine.$", text, re.MULTILINE)
    assert "\n  bare " in text
    assert "mine" not in render("train", "Trains.").replace("DIR/model/mine.yaml is model=mine", "")
