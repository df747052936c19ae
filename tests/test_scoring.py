"""The tasks that the words may name are those that can be scored."""

import pytest

from ftx.config.checks import TASKS
from ftx.tasks.registry import task_called


@pytest.mark.parametrize("name", TASKS)
def test_every_task_that_can_be_named_can_be_scored(name):
    task = task_called(name)
    assert all(callable(getattr(task, part)) for part in ("check", "items", "answer", "score"))
