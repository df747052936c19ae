"""A user's own functions over rows and conversations: by the name of an entry point, or as MODULE:FUNCTION."""

import hashlib
import inspect
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ftx.config.keys import did_you_mean
from ftx.errors import UserError

TRANSFORMS = "ftx.transforms"


def load_hook(group: str, key: str, name: str) -> Callable[..., Any]:
    """The function that ``name`` means; ``key`` is the user's key. Raises UserError where there is none."""
    installed = {point.name: point for point in entry_points(group=group)}
    try:
        if name in installed:
            found = installed[name].load()
        elif ":" in name:
            found = pkgutil.resolve_name(name)
        else:
            known = f"there are {', '.join(installed)}" if installed else "none is installed"
            raise UserError(
                f"{key}={name}: no such entry point of {group}{did_you_mean(name, list(installed))}; {known}; or write "
                "MODULE:FUNCTION"
            )
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}={name}: cannot be loaded: {error}; it must be importable from here") from error
    if not callable(found):
        raise UserError(f"{key}={name}: is no function")
    hook: Callable[..., Any] = found
    return hook


def hook_fingerprint(group: str, key: str, name: str) -> str:
    """Changes with the name and with the source file that the function is defined in."""
    function = inspect.unwrap(load_hook(group, key, name))
    try:
        source = Path(inspect.getsourcefile(function) or "").read_bytes()
    except (TypeError, OSError) as error:
        raise UserError(
            f"{key}={name}: has no source file by which a change to it could be told; write a function of a module"
        ) from error
    return f"{name}@{hashlib.sha256(source).hexdigest()[:16]}"
