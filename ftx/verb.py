"""What every verb shares: a user's mistake is a clear line and code 2, an interruption is code 75."""

import functools
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from ftx.errors import ExitCode, Interrupted, UserError
from ftx.progress import start_console


def verb(story: Callable[[Sequence[str]], ExitCode]) -> Callable[[Sequence[str]], int]:
    """Run ``story`` on the arguments and turn what ends it into an exit code."""

    @functools.wraps(story)
    def wrapped(arguments: Sequence[str]) -> int:
        signal.signal(signal.SIGTERM, _interrupt)
        start_console()
        try:
            return int(story(arguments))
        except UserError as mistake:
            sys.stderr.write(f"error: {mistake}\n")
            return ExitCode.USER_MISTAKE
        except (KeyboardInterrupt, Interrupted):
            sys.stderr.write("interrupted; the same command goes on where it stopped\n")
            return ExitCode.INTERRUPTED
        except BrokenPipeError:
            sys.stderr.close()
            return ExitCode.FAILED

    return wrapped


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number).name)
