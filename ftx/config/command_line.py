"""The flags that every verb with words takes; everything else on the line is a word."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ftx.config.help import render
from ftx.errors import UserError


@dataclass(frozen=True)
class CommandLine:
    """What the user typed."""

    words: tuple[str, ...]
    multirun: bool
    show_config: bool
    config_dir: Path | None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            message = f"no such flag: {unknown}; keys are words without dashes, as in schedule.epochs=3"
        raise UserError(f"{message}; --help lists the flags")


def read_command_line(verb: str, purpose: str, arguments: Sequence[str]) -> CommandLine:
    """Parse; ``--help`` prints and exits 0."""
    parser = _Parser(prog=f"python -m ftx.{verb}", add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"])
    parser.add_argument("-cd", "--config-dir", type=Path)
    given = parser.parse_intermixed_args(list(arguments))
    if given.help:
        sys.stdout.write(render(verb, purpose, given.config_dir) + "\n")
        raise SystemExit(0)
    return CommandLine(tuple(given.words), given.multirun, given.cfg == "job", given.config_dir)
