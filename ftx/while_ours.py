"""Things outside of a run's folder that only whoever holds the run may touch."""

from typing import Any, TypeVar, cast

from ftx.run_folder import RunFolder

Thing = TypeVar("Thing")


def while_ours(thing: Thing, folder: RunFolder) -> Thing:
    """The same thing, but whoever reaches for anything of it gets Fenced once the run is not ours any more."""
    return cast("Thing", _WhileOurs(thing, folder))


class _WhileOurs:
    def __init__(self, thing: object, folder: RunFolder) -> None:
        self._thing, self._folder = thing, folder

    def __getattr__(self, name: str) -> Any:
        self._folder.check_ours()
        return getattr(self._thing, name)
