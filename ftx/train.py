"""``python -m ftx.train WORDS``: compose a run, or a sweep of them with -m, and bring it to its end."""

import sys
from collections.abc import Sequence

from ftx.config.command_line import read_command_line
from ftx.config.compose import ComposedRun, Composition, compose_all, scoring_of
from ftx.config.schema import RunConfig
from ftx.errors import ExitCode, Interrupted
from ftx.micro_batch import settle, settled
from ftx.progress import say, start_console
from ftx.run_folder import RunFolder
from ftx.verb import act_as, verb

PURPOSE = "Train one run, or every run of a sweep; a finished run is not trained again, an unfinished one resumes."


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """The story of a training from words to an exit code."""
    line = read_command_line("train", PURPOSE, arguments)
    composition = settled(compose_all(line.words, multirun=line.multirun, config_dir=line.config_dir))
    return show(composition) if line.show_config else launch(composition)


def launch(composition: Composition) -> ExitCode:
    """Check every run against this machine, then hand them to their launcher."""
    from ftx.preflight import check_hardware, check_here

    for line in dict.fromkeys("; ".join(composed.stand_ins) for composed in composition.runs if composed.stand_ins):
        say(f"debug=tiny: {line}")
    for composed in composition.runs:
        check_here(composed.run)
        if composed.scoring is not None and composed.run.launcher.name == "local":
            check_hardware(composed.scoring, "evaluation.hardware")
    if composition.runs[0].run.launcher.name == "slurm":
        from launchers import slurm

        return slurm.launch(composition)
    from launchers import local

    if composition.is_sweep:
        return local.launch_sweep(composition)
    return local.launch_run(composition.runs[0], local.locate(composition.runs[0]))


def train(run: RunConfig) -> RunFolder:
    """The same for notebooks: bring one composed run to its end here and return its folder.

    Raises UserError, Interrupted (it can be resumed) or RuntimeError (with the reason in status.json).
    """
    from ftx.preflight import check_here
    from launchers import local

    start_console()
    run = settle(run)
    check_here(run)
    composed = ComposedRun(run, (), {}, scoring_of(run))
    folder = local.locate(composed)
    code = local.launch_run(composed, folder)
    if code == ExitCode.INTERRUPTED:
        raise Interrupted(folder.read_status().reason)
    if code != ExitCode.FINISHED:
        raise RuntimeError(f"{folder.path}: {folder.read_status().reason}")
    return folder


def show(composition: Composition) -> ExitCode:
    """``--cfg job``: every run of the composition as yaml."""
    from omegaconf import OmegaConf

    texts = [OmegaConf.to_yaml(OmegaConf.structured(composed.run)) for composed in composition.runs]
    sys.stdout.write("---\n".join(texts))
    return ExitCode.FINISHED


act_as(__name__, train)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
