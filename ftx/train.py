"""``python -m ftx.train WORDS``: compose a run, or a sweep of them with -m, and bring it to its end."""

import sys
from collections.abc import Sequence

from ftx.config.command_line import read_command_line
from ftx.config.compose import Composition, compose_all
from ftx.errors import ExitCode
from ftx.verb import verb

PURPOSE = "Train one run, or every run of a sweep; a finished run is not trained again, an unfinished one resumes."


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """The story of a training from words to an exit code."""
    line = read_command_line("train", PURPOSE, arguments)
    composition = compose_all(line.words, multirun=line.multirun, config_dir=line.config_dir)
    if line.show_config:
        return show(composition)
    from ftx.preflight import check_here

    for composed in composition.runs:
        check_here(composed.run)
    from launchers import local

    return local.launch_sweep(composition) if composition.is_sweep else local.launch_run(composition.runs[0])


def show(composition: Composition) -> ExitCode:
    """``--cfg job``: every run of the composition as yaml."""
    from omegaconf import OmegaConf

    texts = [OmegaConf.to_yaml(OmegaConf.structured(composed.run)) for composed in composition.runs]
    sys.stdout.write("---\n".join(texts))
    return ExitCode.FINISHED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
