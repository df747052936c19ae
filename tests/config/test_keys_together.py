"""Sweeps whose keys are set row by row, and not each value of one with each of the other."""

import pytest

from ftx.config.compose import compose_all
from ftx.errors import UserError

EXPERIMENT = """# @package _global_
# Rows.
name: rows
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      {params}
"""


@pytest.fixture
def swept(tmp_path):
    """(swept keys, each run's own words) of an experiment with these parameters, and further words."""
    (tmp_path / "experiment").mkdir()

    def expand(params, *words):
        (tmp_path / "experiment/rows.yaml").write_text(EXPERIMENT.format(params=params))
        found = compose_all(["experiment=rows", *words], config_dir=tmp_path)
        return found.swept, [[word for word in one.words if word != "experiment=rows"] for one in found.runs]

    return expand


def test_each_row_is_a_run(swept):
    keys, runs = swept("schedule.epochs method: 0 full, 2 full, 2 lora")
    assert keys == ("schedule.epochs", "method")
    assert runs == [
        ["schedule.epochs=0", "method=full"],
        ["schedule.epochs=2", "method=full"],
        ["schedule.epochs=2", "method=lora"],
    ]


def test_rows_go_with_every_value_of_other_keys(swept):
    keys, runs = swept("schedule.epochs method: 0 full, 2 lora", "seed=1,2")
    assert set(keys) == {"seed", "schedule.epochs", "method"}
    assert runs == [
        [f"seed={seed}", *row]
        for seed in (1, 2)
        for row in (["schedule.epochs=0", "method=full"], ["schedule.epochs=2", "method=lora"])
    ]


def test_a_word_for_one_of_the_keys_replaces_the_rows(swept):
    keys, runs = swept("schedule.epochs method: 0 full, 2 lora", "schedule.epochs=1,3")
    assert (keys, runs) == (("schedule.epochs",), [["schedule.epochs=1"], ["schedule.epochs=3"]])


def test_a_row_that_lacks_a_value_is_a_mistake(swept):
    with pytest.raises(
        UserError, match=r"schedule\.epochs method: 2: each of its rows is a value for each of the 2 keys"
    ):
        swept("schedule.epochs method: 0 full, 2")
