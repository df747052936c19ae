"""``python -m ftx.diff RUN RUN``: how two runs differ in configuration, data, code and results."""

import argparse
import sys
from collections.abc import Sequence

from ftx.errors import ExitCode
from ftx.run_differences import Difference, code_differences, config_differences, data_differences, metric_differences
from ftx.run_folder import RunFolder
from ftx.runs_on_disk import find_run
from ftx.verb import add_run_root, verb

PARTS = {
    "config": config_differences,
    "data": data_differences,
    "code": code_differences,
    "metrics": metric_differences,
}


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """Print what differs, part by part."""
    given = _read_arguments(arguments)
    first, second = (find_run(name, given.run_root) for name in (given.first, given.second))
    sys.stdout.write(describe(first, second) + "\n")
    return ExitCode.FINISHED


def describe(first: RunFolder, second: RunFolder) -> str:
    """The differences only; of what is alike, the part's name."""
    found = {part: differences(first, second) for part, differences in PARTS.items()}
    alike = [part for part, differences in found.items() if not differences]
    texts = [f"first:  {first.path}\nsecond: {second.path}"]
    texts += [f"{part}\n{_aligned(differences)}" for part, differences in found.items() if differences]
    if alike:
        texts.append(f"no difference in {', '.join(alike)}")
    return "\n\n".join(texts)


def _aligned(differences: Sequence[Difference]) -> str:
    """A line for each, in columns; details below it."""
    widths = [max(len(one.name) for one in differences), max(len(one.first) for one in differences)]
    return "\n".join(
        "\n".join([f"  {one.name:<{widths[0]}}  {one.first:<{widths[1]}}  {one.second}".rstrip(), *one.details])
        for one in differences
    )


def _read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ftx.diff", description=__doc__)
    parser.add_argument("first", metavar="RUN", help="a run's folder or name")
    parser.add_argument("second", metavar="RUN", help="the other one")
    add_run_root(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
