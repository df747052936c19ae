"""``python -m ftx.evaluate``: score a run, or a model as it is; put two scored runs beside each other."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftx.config.command_line import CommandLine, read_command_line
from ftx.config.compose import ComposedRun, compose_all, evaluation_for, scoring_of
from ftx.config.schema import RunConfig
from ftx.environment import CHECKOUT
from ftx.errors import ExitCode, UserError
from ftx.run_folder import RunFolder
from ftx.runs_on_disk import find_run, run_called
from ftx.train import launch, show, train
from ftx.verb import act_as, add_run_root, verb

PURPOSE = (
    "Score what the words describe as it is, without training; a first word without = names it: a run (its folder or "
    "name), a model's folder, an adapter's, or OWNER/MODEL on the hub. compare BASE TUNED puts two scored runs beside "
    "each other, import RUN FILE takes in what a leaderboard returned."
)
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """Choose between the three, and tell a run from a model."""
    if arguments and arguments[0] in OTHERS:
        return OTHERS[arguments[0]](arguments[1:])
    line = read_command_line("evaluate", PURPOSE, arguments)
    named = [word for word in line.words if "=" not in word]
    if len(named) > 1:
        raise UserError(f"{named[1]}: one run or model at a time; -m with model.name=A,B scores several")
    words = tuple(word for word in line.words if "=" in word)
    if named and (folder := run_named(named[0], words)) is not None:
        return score_run(folder, words, line)
    return score_model((*(words_for(named[0]) if named else ()), *words), line)


def score_run(folder: RunFolder, words: Sequence[str], line: CommandLine) -> ExitCode:
    """A run that is trained, by the evaluation that the words ask for; all else of it stays as it is."""
    strange = [word for word in words if not re.match(r"evaluation[.=]|run_root=", word)]
    if strange or line.multirun:
        raise UserError(
            f"{strange[0] if strange else '-m'}: {folder.name} is what it is, only evaluation words apply to a run "
            "(evaluation.hardware=CHOICE says where it is scored)"
        )
    composed = _rescored(folder, words, line.config_dir)
    from ftx.preflight import check_here
    from launchers import local

    check_here(replace(composed.run, launcher=replace(composed.run.launcher, name="local")))
    return local.launch_run(composed, folder)


def _rescored(folder: RunFolder, words: Sequence[str], config_dir: Path | None) -> ComposedRun:
    """The run as it is, but for its evaluation."""
    stored = folder.read_run()
    if stored.schedule.epochs != 0 and not folder.model.is_dir():
        raise UserError(f"{folder.name}: has no model/ to score; the command that trained it goes on with it")
    run = replace(stored, evaluation=evaluation_for(stored, [word for word in words if "run_root" not in word]))
    return ComposedRun(run, _words_of(folder), {}, scoring_of(run, config_dir))


def score_model(words: Sequence[str], line: CommandLine) -> ExitCode:
    """A model as it is, as a run without training: in a folder and an MLflow run of its own."""
    if any(word.startswith("schedule.epochs=") for word in words):
        raise UserError("schedule.epochs: ftx.evaluate trains nothing; python -m ftx.train does, and scores as well")
    composition = compose_all([*words, "schedule.epochs=0"], multirun=line.multirun, config_dir=line.config_dir)
    return show(composition) if line.show_config else launch(composition)


def compare(arguments: Sequence[str]) -> ExitCode:
    """``compare BASE TUNED``."""
    from ftx.comparison import compare as beside_each_other

    names, run_root = _read_names(arguments, "compare", "base", "tuned")
    base, tuned = (find_run(name, run_root) for name in names)
    sys.stdout.write(beside_each_other(base, tuned) + "\n")
    return ExitCode.FINISHED


def import_scores(arguments: Sequence[str]) -> ExitCode:
    """``import RUN FILE``: into the run's folder, and to MLflow."""
    from ftx.report import sync
    from ftx.returned_scores import import_returned
    from ftx.scores import describe

    (name, file), run_root = _read_names(arguments, "import", "run", "file")
    folder = find_run(name, run_root)
    scores = import_returned(folder, Path(file).expanduser())
    sys.stdout.write(f"{folder.path}\n{describe({'data_agent': scores})}\n")
    return sync([str(folder.path)], folder.path.parent)


OTHERS = {"compare": compare, "import": import_scores}


def run_named(name: str, words: Sequence[str]) -> RunFolder | None:
    """A run by its folder or its name; None where there is none such."""
    given = [word.partition("=")[2] for word in words if word.startswith("run_root=")]
    return run_called(name, Path(given[-1]).expanduser() if given else CHECKOUT / "runs")


def words_for(name: str) -> tuple[str, ...]:
    """The words that choose a model by its folder, its adapter's folder or its name on the hub."""
    folder = Path(name).expanduser()
    if (folder / "adapter_config.json").is_file():
        described = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base = described.get("base_model_name_or_path")
        if not base:
            raise UserError(f"{name}: this adapter does not say of which model; name the run that it was trained in")
        return ("model=hub", f"model.name={base}", f"model.adapter={folder.absolute()}")
    if (folder / "config.json").is_file():
        return ("model=hub", f"model.name={folder.absolute()}")
    if HUB_NAME.fullmatch(name) and not folder.exists():
        return ("model=hub", f"model.name={name}")
    raise UserError(
        f"{name}: no run of this name, no folder with a model or adapter, and no OWNER/MODEL of the hub; "
        "runs are looked for in runs/, or where run_root=FOLDER says"
    )


def evaluate(what: RunConfig | RunFolder, *words: str) -> dict[str, Any]:
    """The same for notebooks: the scores of a composed run's model without training, or of a run that is there.

    ``words`` (``evaluation.tasks=[loss]``) are for a run that is there. Raises what ``ftx.train`` raises.
    """
    if isinstance(what, RunFolder):
        code = score_run(what, words, CommandLine(words, multirun=False, show_config=False, config_dir=None))
        if code != ExitCode.FINISHED:
            raise RuntimeError(f"{what.path}: {what.read_status().reason}")
        return what.read_scores()
    return train(replace(what, schedule=replace(what.schedule, epochs=0))).read_scores()


def _read_names(arguments: Sequence[str], what: str, *names: str) -> tuple[list[str], Path]:
    """The two names after ``what``, and where runs are."""
    parser = argparse.ArgumentParser(prog=f"python -m ftx.evaluate {what}")
    for name in names:
        parser.add_argument(name)
    add_run_root(parser)
    given = parser.parse_args(arguments)
    return [getattr(given, name) for name in names], given.run_root


def _words_of(folder: RunFolder) -> tuple[str, ...]:
    return tuple((folder.path / "overrides.txt").read_text(encoding="utf-8").splitlines())


act_as(__name__, evaluate)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
