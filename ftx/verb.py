"""What every verb shares: a user's mistake is a clear line and code 2, an interruption is code 75."""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ftx.environment import CHECKOUT
from ftx.errors import ExitCode, Interrupted, UserError
from ftx.progress import start_console
from ftx.stopping import listening

# Also where a value of the user's has line breaks in it.
MOST_LINES = 3


class _CallableModule(ModuleType):
    """``from ftx import train`` finds the module, since ``python -m ftx.train`` needs one of that name: let it act."""

    def __call__(self, *arguments: Any) -> Any:
        return self.acts_as(*arguments)


def act_as(module: str, function: Callable[..., Any]) -> None:
    """Let a verb's module be called like its function, for notebooks."""
    sys.modules[module].__class__ = _CallableModule
    sys.modules[module].acts_as = function  # type: ignore[attr-defined]


def add_run_root(parser: argparse.ArgumentParser) -> None:
    """``--run-root``, for verbs that take a run or a sweep by its name."""
    parser.add_argument(
        "--run-root", type=Path, default=CHECKOUT / "runs", help="where runs are (default: %(default)s)"
    )


def verb(story: Callable[[Sequence[str]], ExitCode]) -> Callable[[Sequence[str]], int]:
    """Run ``story`` on the arguments and turn what ends it into an exit code."""

    @functools.wraps(story)
    def wrapped(arguments: Sequence[str]) -> int:
        start_console()
        try:
            with listening() as stop, stop.at_once():
                return int(story(arguments))
        except UserError as mistake:
            lines = f"error: {mistake}".splitlines()
            sys.stderr.write("\n".join(lines[:MOST_LINES]) + "\n")
            return ExitCode.USER_MISTAKE
        except Interrupted:
            sys.stderr.write("interrupted; the same command goes on where it stopped\n")
            return ExitCode.INTERRUPTED
        except BrokenPipeError:
            sys.stderr.close()
            return ExitCode.FAILED

    return wrapped
