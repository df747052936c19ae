"""``python -m ftx.chat RUN|MODEL``: talk to a run's model, or serve it to whatever speaks OpenAI's API."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ftx.config.compose import compose
from ftx.config.hardware_schema import HardwareConfig
from ftx.config.schema import RunConfig
from ftx.config.scoring_run import scoring_run
from ftx.errors import ExitCode, Interrupted, UserError
from ftx.evaluate import words_for
from ftx.preflight import check_model_folder, list_gpus
from ftx.run_folder import RunFolder
from ftx.runs_on_disk import run_called
from ftx.verb import add_run_root, verb

# Loaded as it is, a model's own precision is not known before its files are read.
PRECISION_OF_MODELS = {"cpu": "fp32", "cuda": "bf16"}


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """Find out whom to talk to, load it, and talk, or serve."""
    given = _read_arguments(arguments)
    folder, run = _find(given)
    name = folder.name if folder is not None else Path(given.who).name.replace("@", "-")
    if given.serve:
        return _serve(folder, run, name, given)
    from ftx.chatting.loading import load_partner
    from ftx.chatting.streaming import Settings
    from ftx.chatting.terminal import Chat, note, on_terminal, through_pipes, write

    _quiet()
    settings = Settings(given.temperature, given.top_p, given.seed, given.max_tokens)
    chat = Chat(load_partner(folder, run, name), settings, write, note, system=given.system)
    if sys.stdin.isatty():
        on_terminal(chat)
    else:
        through_pipes(chat, iter(sys.stdin))
    return ExitCode.FINISHED


def _serve(folder: RunFolder | None, run: RunConfig, name: str, given: argparse.Namespace) -> ExitCode:
    """The address is said once the model is loaded; a signal is how it is meant to end."""
    from ftx.chatting.serving import LOOPBACK, check_can_serve, open_port, serve
    from ftx.chatting.vllm import become_vllm

    if given.engine == "vllm":
        become_vllm(folder, run, name, given.port)
    check_can_serve()
    with open_port(given.port) as listening:
        from ftx.chatting.loading import load_partner

        _quiet()
        partner = load_partner(folder, run, name)
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/v1"
        sys.stdout.write(f"serving: {address} (model {name}; Ctrl-C ends it)\n")
        sys.stdout.flush()
        try:
            serve(partner, listening)
        except Interrupted:
            sys.stdout.write("ended\n")
    return ExitCode.FINISHED


def _find(given: argparse.Namespace) -> tuple[RunFolder | None, RunConfig]:
    """A run by its folder or name, else a model; as it is computed here. Raises UserError."""
    device = given.device or ("cuda" if list_gpus() else "cpu")
    folder = run_called(given.who, given.run_root)
    if folder is None:
        run = compose(*words_for(given.who), *given.words, "schedule.epochs=0")
        check_model_folder(run)
        run = replace(run, hardware=replace(run.hardware, precision=PRECISION_OF_MODELS[device]))
        return None, scoring_run(run, HardwareConfig(device=device))
    if given.words:
        raise UserError(f"{given.words[0]}: {folder.name} is what it is; words are for models that are no run's")
    run = folder.read_run()
    if run.schedule.epochs != 0 and not folder.model.is_dir():
        raise UserError(f"{folder.name}: has no model/ to talk to; the command that trained it goes on with it")
    if run.schedule.epochs == 0 and run.model.weights == "random":
        raise UserError(f"{folder.name}: its model is random and was not trained; there is nobody to talk to")
    return folder, scoring_run(run, HardwareConfig(device=device))


def _quiet() -> None:
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def _read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ftx.chat", description=__doc__)
    parser.add_argument("who", metavar="RUN|MODEL", help="a run's folder or name, a model's or adapter's, OWNER/MODEL")
    parser.add_argument("words", nargs="*", help="of a model: such as model.template=chatml")
    parser.add_argument("--system", default="", help="what the model is told first")
    parser.add_argument("--temperature", type=_at_least(0.0), default=0.0, help="0 takes the likeliest (default)")
    parser.add_argument(
        "--top-p", type=_at_least(0.0), default=1.0, help="draw from the likeliest that together have this share"
    )
    parser.add_argument("--seed", type=int, default=0, help="what is drawn (default: %(default)s)")
    parser.add_argument(
        "--max-tokens", type=_at_least(1, int), default=1024, help="of one answer (default: %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="(default: a GPU where there is one)")
    parser.add_argument("--serve", action="store_true", help="answer OpenAI's API on this machine instead")
    parser.add_argument("--port", type=int, default=8000, help="of --serve; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--engine",
        choices=("transformers", "vllm"),
        default="transformers",
        help="whose server --serve starts; that of vLLM was not tried (default: %(default)s)",
    )
    add_run_root(parser)
    return parser.parse_intermixed_args(list(arguments))


def _at_least(lowest: float, kind: Callable[[str], float] = float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{text}: must be at least {lowest:g}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
