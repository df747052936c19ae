"""``--as-published``: the settings of the projects' own recipes, in which their runs went through."""

from math import ceil

import pytest

from ftx.config.compose import compose
from ftx.planning.memory import GIB
from ftx.planning.originals import as_the_originals
from ftx.planning.report import plan_of
from ftx.planning.text import describe

# Experiment → strategy, whether Liger's kernels compute it, and whether 32-bit weights are held: facts of the recipes.
SETTINGS = {
    "jupyter_agent": ("zero2", True, "fp32"),
    "tulu3_8b": ("zero3", True, "fp32"),
    "olmo2_7b": ("zero3", True, "fp32"),
    "olmo2_13b": ("zero3", True, "fp32"),
    "olmo2_32b": ("zero3", True, "fp32"),
    "ag_news": ("auto", False, "none"),
    "deepseek_r1_math_science": ("auto", False, "fp32"),
    "glaive_function_calling": ("auto", False, "fp32"),
}


@pytest.mark.parametrize("experiment", SETTINGS)
def test_an_originals_settings_are_those_of_its_recipe(experiment):
    run = as_the_originals(compose(f"experiment={experiment}"))
    strategy, liger, masters = SETTINGS[experiment]
    assert (run.hardware.strategy, run.method.master_weights) == (strategy, masters)
    assert (run.model.kernels, run.model.loss) == (("liger", "liger") if liger else ("none", "plain"))


@pytest.mark.parametrize("experiment", SETTINGS)
def test_what_was_run_fits_where_it_ran(experiment):
    plan = plan_of(compose(f"experiment={experiment}"), as_published=True)
    assert plan.published_memory.total <= plan.capacity
    assert f"as published: {plan.published_settings}" in describe(plan)


def test_ligers_loss_holds_a_chunk_of_the_logits():
    """Of the next power of two above positions × hidden size ÷ vocabulary; the head's gradient is in 32 bits."""
    plan = plan_of(compose("experiment=jupyter_agent"), as_published=True)
    positions, hidden, vocabulary = 32_768, 2560, 151_936
    assert 512 < ceil(positions / ceil(vocabulary / hidden)) <= 1024
    by_hand = 1024 * vocabulary * (2 + 2) + positions * hidden * 2 + vocabulary * hidden * 4
    assert plan.published_memory.logits == by_hand < 3 * GIB


def test_zero3_shares_the_weights_out():
    plan = plan_of(compose("experiment=tulu3_8b"), as_published=True)
    small = sum(shape for shape in [4096] * (2 * 32 + 1))
    assert plan.published_memory.weights == pytest.approx(2 * (8_030_261_248 / 64 + small))
    assert plan.memory.weights == 2 * 8_030_261_248
