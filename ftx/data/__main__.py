"""``python -m ftx.data inspect|prepare WORDS`` and ``python -m ftx.data prune``: look at, build and clean data."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ftx import progress
from ftx.config.command_line import CommandLine, read_command_line
from ftx.config.compose import compose_all
from ftx.config.keys import did_you_mean
from ftx.config.schema import RunConfig
from ftx.environment import CHECKOUT
from ftx.errors import ExitCode, UserError
from ftx.verb import verb

USAGE = """usage: python -m ftx.data inspect WORD ...    tables and figures of a run's data, and one sample of it
       python -m ftx.data prepare WORD ...    do ahead of the job what it would do first, on any machine
       python -m ftx.data prune               remove prepared data that no run has used for a while

The words are those of python -m ftx.train; inspect --help lists them, prune --help its flags.
"""
INSPECT = "Show what a run's data is like once it is prepared: counts, lengths, classes, duplicates, one sample."
PREPARE = "Prepare a run's data, or that of every run of a sweep with -m: a job that finds it does not tokenize."


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """One of the three."""
    action, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if action in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return ExitCode.FINISHED
    if action not in ACTIONS:
        raise UserError(
            f"{action}: no such action{did_you_mean(action, list(ACTIONS))}; there are {', '.join(ACTIONS)}"
        )
    return ACTIONS[action](rest)


def prepare(arguments: Sequence[str]) -> ExitCode:
    """Every data set that the words ask for, once."""
    from ftx.data.prepare import prepare_on_disk, read_counts

    for run in _runs(read_words("prepare", PREPARE, arguments)):
        folder = prepare_on_disk(run)
        progress.say(read_counts(folder).describe())
        progress.say(f"prepared: {folder}")
    return ExitCode.FINISHED


def inspect(arguments: Sequence[str]) -> ExitCode:
    """The data of one run."""
    runs = _runs(read_words("inspect", INSPECT, arguments))
    if len(runs) > 1:
        raise UserError(f"these words describe {len(runs)} runs with data of their own; inspect looks at one")
    from ftx.data.inspect_run import inspect_run

    sys.stdout.write(inspect_run(runs[0], colour=sys.stdout.isatty()))
    return ExitCode.FINISHED


def prune(arguments: Sequence[str]) -> ExitCode:
    """Prints what was removed and how much that was."""
    from ftx.data.cache import prune as prune_cache

    parser = argparse.ArgumentParser(prog="python -m ftx.data prune", description="Remove unused prepared data.")
    parser.add_argument("--cache", type=Path, default=CHECKOUT / "runs" / ".cache", help="default: runs/.cache")
    parser.add_argument("--unused-for", type=float, default=30, metavar="DAYS", help="default: 30; 0 removes all")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    given = parser.parse_args(list(arguments))
    if not given.cache.is_dir():
        raise UserError(f"--cache={given.cache}: no such folder; give the cache of your runs (run_root/.cache)")
    removed = prune_cache(given.cache, unused_days=given.unused_for, dry_run=given.dry_run)
    for one in removed:
        days = f"unused for {one.days_unused:.0f} days"
        sys.stdout.write(f"{one.folder.parent.name}/{one.folder.name}  {one.size / 2**20:,.1f} MiB  {days}\n")
    what = "would be removed" if given.dry_run else "removed"
    sys.stdout.write(f"{len(removed)} sets, {sum(one.size for one in removed) / 2**20:,.1f} MiB {what}\n")
    return ExitCode.FINISHED


def read_words(action: str, purpose: str, arguments: Sequence[str]) -> CommandLine:
    line = read_command_line(f"data {action}", purpose, arguments)
    if line.show_config:
        raise UserError("--cfg=job: python -m ftx.train with the same words shows the composed run")
    return line


def _runs(line: CommandLine) -> list[RunConfig]:
    """One run for each data set among those that the words describe; it need not be one that can train here."""
    from ftx.data.cache import prepared_folder
    from ftx.preflight import check_data_here

    composition = compose_all(line.words, multirun=line.multirun, config_dir=line.config_dir)
    for composed in composition.runs:
        check_data_here(composed.run)
    by_data = {prepared_folder(composed.run): composed.run for composed in reversed(composition.runs)}
    return list(reversed(by_data.values()))


ACTIONS: dict[str, Callable[[Sequence[str]], ExitCode]] = {"inspect": inspect, "prepare": prepare, "prune": prune}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
