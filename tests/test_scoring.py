"""The tasks that the words may name are those that can be scored."""

from ftx.config.checks import TASKS
from ftx.scoring import CHECKS, SCORES


def test_every_task_that_can_be_named_can_be_scored():
    assert set(TASKS) == set(SCORES)
    assert set(CHECKS) <= set(SCORES)
