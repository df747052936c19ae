"""``python -m ftx.export RUN merge|gguf|card|hub …``: what leaves the platform, compared with what was trained."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from ftx import progress
from ftx.config.compose import export_for
from ftx.config.export_checks import asked_exports
from ftx.config.help import choices_of
from ftx.config.publish_checks import check_can_stand_alone
from ftx.config.schema import RunConfig
from ftx.errors import ExitCode, ExportFailed, UserError
from ftx.lock import Held, lock
from ftx.preflight import check_exports
from ftx.run_folder import RunFolder
from ftx.runs_on_disk import find_run, remove_leftovers
from ftx.verb import add_run_root, verb


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """Find the run, see what is asked for, and make it while nobody else is at the run."""
    given = _read(arguments)
    folder = find_run(given.run, given.run_root)
    steps = [word for word in given.words if "=" not in word]
    run = export_for(folder.read_run(), steps, [word for word in given.words if "=" in word])
    names = _to_make(folder, run, steps)
    merge_too = f"merge it too: python -m ftx.export {folder.name} merge export.register={run.export.register}"
    check_can_stand_alone(run, is_merged=_has_merged(folder), merge_too=merge_too)
    check_exports(run)
    if not folder.model.is_dir():
        raise UserError(f"{folder.name}: has no model/ to export; the command that trained it goes on with it")
    try:
        with lock(folder.lock) as held, progress.also_into(folder.log):
            return _make(replace(folder, held=held), run, names)
    except Held as at_it:
        progress.say(f"{folder.name} is {at_it}; left alone")
        return ExitCode.FAILED


def _make(folder: RunFolder, run: RunConfig, names: Sequence[str]) -> ExitCode:
    from transformers.utils.logging import disable_progress_bar

    from ftx.exports.steps import make_exports

    disable_progress_bar()
    remove_leftovers(folder)
    progress.say(f"run: {folder.path}")
    try:
        make_exports(folder, run, names)
    except ExportFailed as failure:
        sys.stderr.write(f"error: {failure}\n")
        return ExitCode.FAILED
    trained = folder.read_run()
    is_all_there = not folder.missing_tasks(trained) and not folder.missing_exports(trained)
    if folder.read_status().state == "failed" and is_all_there:
        folder.write_status(state="finished", reason="")
    return ExitCode.FINISHED


def _to_make(folder: RunFolder, run: RunConfig, steps: Sequence[str]) -> list[str]:
    """What is named is made anew; what it needs is taken where it is there."""
    missing = folder.missing_exports(run)
    names = [name for name in asked_exports(run) if name != "merge" or name in steps or name in missing]
    if not names:
        raise UserError(f"what to export is not said: name one or more of {', '.join(choices_of('export'))}")
    return names


def _has_merged(folder: RunFolder) -> bool:
    """Merged, and as it was trained as far as anybody looked."""
    entry = folder.read_exports().get("merge", {})
    return entry.get("state") in ("ok", "unchecked") and (folder.path / entry["made"]).is_dir()


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    choices = "\n".join(f"  {name:<7} {text}" for name, text in choices_of("export").items())
    parser = argparse.ArgumentParser(
        prog="python -m ftx.export",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Export a trained run's model, and compare what came out with what was trained:\n{choices}",
    )
    parser.add_argument("run", help="a run: its folder or its name")
    parser.add_argument("words", nargs="*", help="what to export, and keys, as in gguf export.quantization=[q8_0]")
    add_run_root(parser)
    return parser.parse_intermixed_args(list(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
