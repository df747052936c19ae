"""What ends a run early, and the exit code that says so."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a verb's process returns; schedulers and scripts rely on these numbers."""

    FINISHED = 0
    FAILED = 1
    USER_MISTAKE = 2
    INTERRUPTED = 75


class UserError(Exception):
    """A mistake that only the user can mend: its text names what is wrong, the value and the way out."""


class ExportFailed(Exception):
    """What was exported does not do what was trained, or could not be made; the run itself is as it was."""


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or a time limit: the run stops here and can be resumed.

    Not an ``Exception``, so that no broad handler on the way swallows it.
    """


class Fenced(BaseException):
    """Another process has taken this run over: this one must not write another word about it.

    Not an ``Exception`` either: whoever explains a failure would write that down.
    """
