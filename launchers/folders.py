"""Runs and their folders before anything is started, for every launcher alike."""

from ftx import progress
from ftx.config.compose import ComposedRun
from ftx.data.fingerprint import data_fingerprint, model_fingerprint
from ftx.lock import holder
from ftx.provenance import describe_provenance
from ftx.run_folder import RunFolder
from ftx.runs_on_disk import find_run_folder, move_aside, open_run_folder


def find(composed: ComposedRun) -> RunFolder:
    """The run's folder by its identity."""
    run = composed.run
    return find_run_folder(run, data_fingerprint(run), model_fingerprint(run))


def locate(composed: ComposedRun) -> RunFolder:
    """The same, free for ``fresh=true``: what is there is moved aside first unless somebody is at it."""
    folder = find(composed)
    if composed.run.fresh and holder(folder.lock) is None and (aside := move_aside(folder)):
        progress.say(f"fresh: moved {folder.name} to {aside}")
    return folder


def describe_on_disk(composed: ComposedRun, folder: RunFolder) -> None:
    """Make the run's folder with everything a job needs to know."""
    run = composed.run
    provenance = describe_provenance(data_fingerprint(run), model_fingerprint(run))
    open_run_folder(folder, run, composed.words, provenance, composed.scoring)
