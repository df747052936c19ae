"""The tasks by name."""

from pkgutil import resolve_name
from typing import cast

from ftx.tasks.task import Task

TASKS = ("classification", "data_agent", "loss")


def task_called(name: str) -> Task:
    """The module of a task."""
    return cast(Task, resolve_name(f"ftx.tasks.{name}"))
