"""``python -m ftx.plan WORDS``: what a run or a sweep will take, before anything queues; no weights are loaded."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ftx.config.command_line import read_command_line
from ftx.config.compose import Composition, compose_all
from ftx.config.schema import RunConfig
from ftx.errors import ExitCode, UserError
from ftx.micro_batch import settled
from ftx.planning.duration import Time
from ftx.planning.report import Plan, plan_of
from ftx.planning.text import describe, describe_sweep
from ftx.train import show
from ftx.verb import verb

PURPOSE = (
    "Say what a run or a sweep takes before anything starts: parameters, memory of each device and what makes it fit, "
    "steps, time, GPU-hours, disk. --json prints the numbers; --as-published puts the memory beside it that the "
    "original projects' way of computing takes; --mfu SHARE says how well the devices are used."
)


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """The story of a plan."""
    flags, words = _flags(arguments)
    line = read_command_line("plan", PURPOSE, words)
    composition = settled(compose_all(line.words, multirun=line.multirun, config_dir=line.config_dir))
    if line.show_config:
        return show(composition)
    plans = list(_plans(composition, flags, line.config_dir))
    arms = [_arm(composed.words, composition.swept) for composed in composition.runs]
    sys.stdout.write(_as_json(plans) if flags.json else _as_text(plans, arms))
    return ExitCode.FINISHED


def _plans(composition: Composition, flags: argparse.Namespace, config_dir: Path | None) -> Iterator[Plan]:
    """Of a sweep only the first run that does not fit has its advice tried: to compose takes its time."""
    trying = True
    for composed in composition.runs:
        follow = partial(followed, composed.words, config_dir) if trying else None
        time = measured(composed.run)
        plan = plan_of(composed.run, as_published=flags.as_published, mfu=flags.mfu, measured=time, follow=follow)
        trying = trying and plan.fits is not False
        yield plan


def followed(words: Sequence[str], config_dir: Path | None, more: Sequence[str]) -> RunConfig:
    """The run of ``words`` with some more. Raises UserError where these cannot be."""
    (composed,) = settled(compose_all([*words, *more], config_dir=config_dir)).runs
    return composed.run


def measured(run: RunConfig) -> Time | None:
    """By the tokens a second of earlier runs of the same kind; None where there are none."""
    from launchers.cost import earlier_pace, training_hours

    pace = earlier_pace(run) if run.schedule.epochs != 0 else None
    if pace is None:
        return None
    runs = f"{pace.runs} earlier run{'s' if pace.runs > 1 else ''}"
    return Time(training_hours(run, pace), f"by the tokens/s of {runs}", measured=True)


def _flags(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--as-published", action="store_true")
    parser.add_argument("--mfu")
    flags, words = parser.parse_known_args(list(arguments))
    if flags.mfu is not None:
        flags.mfu = _share(flags.mfu)
    return flags, words


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UserError(f"--mfu {text}: must be a share above 0 and up to 1, as in --mfu 0.35")
    return share


def _as_json(plans: Sequence[Plan]) -> str:
    values = [plan.as_json() for plan in plans]
    return json.dumps(values[0] if len(values) == 1 else values, indent=2) + "\n"


def _arm(words: Sequence[str], swept: Sequence[str]) -> str:
    return " ".join(word for word in words if word.partition("=")[0] in swept)


def _as_text(plans: Sequence[Plan], arms: Sequence[str]) -> str:
    if len(plans) == 1:
        return describe(plans[0]) + "\n"
    # Runs of a sweep differ in few things: those that do not fit are shown whole.
    whole = [describe(plan) for plan in plans if plan.fits is False]
    return "\n\n".join([*whole[:1], describe_sweep(plans, arms)]) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
