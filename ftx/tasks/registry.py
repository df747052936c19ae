"""The tasks by name: those here, and a user's own by an entry point of ftx.tasks or as a module."""

from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, cast

from ftx.config.evaluation_checks import OWN_TASKS, TASKS
from ftx.errors import UserError

if TYPE_CHECKING:
    from ftx.tasks.task import Task

FUNCTIONS = ("check", "items", "answer", "score")


def task_called(name: str) -> "Task":
    """The module of a task; raises UserError for one of the user's own that cannot be loaded, or is none."""
    if name in TASKS:
        return cast("Task", resolve_name(f"ftx.tasks.{name}"))
    return _own_task(name)


def check_own_tasks(names: list[str]) -> None:
    """Raise UserError for tasks of the user's own that cannot be loaded; those that are here are not imported."""
    for name in names:
        if name not in TASKS:
            _own_task(name)


def _own_task(name: str) -> "Task":
    installed = {point.name: point for point in entry_points(group=OWN_TASKS)}
    try:
        found: Any = installed[name].load() if name in installed else resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"evaluation.tasks=[{name}]: cannot be loaded: {error}; it must be importable from here"
        ) from error
    if missing := [function for function in FUNCTIONS if not callable(getattr(found, function, None))]:
        raise UserError(
            f"evaluation.tasks=[{name}]: is no task, it has no {', '.join(missing)}; a task is a module with "
            f"{', '.join(FUNCTIONS)}"
        )
    return cast("Task", found)
