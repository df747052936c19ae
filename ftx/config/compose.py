"""Words on the command line become checked RunConfigs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ftx.config.checks import check_every_key_is_read, check_run
from ftx.config.data_checks import looks_like_a_file
from ftx.config.evaluation_schema import EvaluationConfig
from ftx.config.export_checks import SWITCHES
from ftx.config.export_schema import ExportConfig
from ftx.config.hardware_schema import HardwareConfig
from ftx.config.help import groups
from ftx.config.identity import identity_keys
from ftx.config.keys import flat
from ftx.config.made_up import is_made_up
from ftx.config.publish_checks import check_can_stand_alone
from ftx.config.schema import DataConfig, DataSizeConfig, RunConfig
from ftx.config.scoring_run import OWN, keeps_a_cluster_waiting, scoring_run
from ftx.config.stand_ins import evaluation_with_stand_ins, with_stand_ins
from ftx.config.tracking_checks import with_wandb_mode
from ftx.errors import UserError

if TYPE_CHECKING:
    from ftx.config.arms import Arm

NAMED_AFTER = ("model", "method", "data")
SQLITE = "sqlite:///"


@dataclass(frozen=True)
class ComposedRun:
    """A run as the words describe it, the words that are its own, and the choice made in each group.

    ``scoring``: the run as a job of its own scores it; None where the job that trains does.
    ``stand_ins``: what debug=tiny has put in the place of what.
    """

    run: RunConfig
    words: tuple[str, ...]
    choices: dict[str, str | None]
    scoring: RunConfig | None = None
    stand_ins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Composition:
    """All runs that the words ask for; ``swept`` names the keys that differ among them ('' for a single run)."""

    runs: tuple[ComposedRun, ...]
    swept: tuple[str, ...]
    is_sweep: bool


def compose_all(words: Sequence[str], *, multirun: bool = False, config_dir: Path | None = None) -> Composition:
    """Compose and check every run that ``words`` describe; an experiment may declare that it is a sweep.

    Raises UserError for anything the user has to mend; with several runs none is returned unless all are right.
    """
    # Late, because Hydra comes with it: --help and reading a run.yaml do without.
    from ftx.config.arms import expand

    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir={config_dir}: no such folder; give one that holds GROUP/CHOICE.yaml")
    expanded = expand(words, multirun=multirun, config_dir=config_dir)
    experiment = _experiment_of(expanded.arms)
    hardware = _Hardware(config_dir)
    runs = tuple(_checked_run(arm, experiment, hardware, in_sweep=len(expanded.arms) > 1) for arm in expanded.arms)
    _check_all_differ(runs, expanded.swept)
    return Composition(runs, expanded.swept, expanded.is_sweep)


def compose(*words: str, config_dir: Path | None = None) -> RunConfig:
    """One run from words as on the command line: ``compose("model=tiny", "schedule.epochs=1")``."""
    composition = compose_all(words, config_dir=config_dir)
    if composition.is_sweep:
        raise UserError("these words describe a sweep of several runs; compose() returns one")
    return composition.runs[0].run


def scoring_of(run: RunConfig, config_dir: Path | None = None) -> RunConfig | None:
    """The run as a job of its own scores it, where ``evaluation.hardware`` asks for one."""
    return _Hardware(config_dir).scoring_of(run)


def evaluation_for(run: RunConfig, words: Sequence[str]) -> EvaluationConfig:
    """What ``words`` (``evaluation=…``, ``evaluation.…=…``) make of the evaluation of a run that is there.

    Raises UserError for what they, or the run with them, make impossible.
    """
    from ftx.config.arms import expand

    kept = (
        []
        if any(word.startswith("evaluation=") for word in words)
        else _said("evaluation", run.evaluation, EvaluationConfig())
    )
    tasks = f"data.tasks=[{','.join(run.data.tasks)}]"
    (arm,) = expand([tasks, *kept, *words], multirun=False, config_dir=None).arms
    found = evaluation_with_stand_ins(arm.run.evaluation) if run.stand_ins else arm.run.evaluation
    check_run(replace(run, evaluation=found))
    check_every_key_is_read(replace(run, evaluation=found), [word.split("=", 1)[0] for word in words])
    return found


def export_for(run: RunConfig, steps: Sequence[str], words: Sequence[str]) -> RunConfig:
    """A run that is there, with these ``steps`` to export and what ``words`` (``export.…=…``) say of how.

    What its own words said of how goes on to count. Raises UserError for what is impossible.
    """
    from ftx.config.arms import expand

    strange = next((word for word in words if not word.startswith("export.")), None)
    if strange is not None:
        raise UserError(f"{strange}: the run is what it is; only what to export, and export.KEY=VALUE, can be said")
    kept = [word for word in _said("export", run.export, ExportConfig()) if not _begins_a_step(word)]
    (arm,) = expand([f"export=[{','.join(steps)}]", *kept, *words], multirun=False, config_dir=None).arms
    found = replace(run, export=arm.run.export)
    check_run(found)
    check_every_key_is_read(found, [word.split("=", 1)[0] for word in words])
    return found


def _begins_a_step(word: str) -> bool:
    return word.partition("=")[0].removeprefix("export.") in (*SWITCHES, "register")


def _said(section: str, settings: object, defaults: object) -> list[str]:
    """The words that give these settings again."""
    values, usual = flat(settings), flat(defaults)
    return [f"{section}.{name}={_as_word(value)}" for name, value in values.items() if value != usual[name]]


def _as_word(value: object) -> str:
    """As Hydra reads it back: JSON, which its grammar takes but for the quotes of keys."""
    return json.dumps(value)


class _Hardware:
    """Hardware choices by name, each composed once."""

    def __init__(self, config_dir: Path | None) -> None:
        self._config_dir = config_dir
        self._known: dict[str, HardwareConfig] = {}

    def scoring_of(self, run: RunConfig) -> RunConfig | None:
        name = run.evaluation.hardware
        if name == OWN or not run.evaluation.tasks:
            return None
        if name is None:
            return scoring_run(run, run.hardware) if keeps_a_cluster_waiting(run) else None
        from ftx.config.arms import hardware_choice

        if name not in self._known:
            self._known[name] = hardware_choice(name, self._config_dir)
        return scoring_run(run, self._known[name])


def _checked_run(arm: "Arm", experiment: str, hardware: _Hardware, *, in_sweep: bool) -> ComposedRun:
    check_every_key_is_read(arm.run, [*_keys_of(arm.words), *_binding_keys(arm)])
    run, stand_ins = with_stand_ins(arm.run, _keys_of(arm.words), in_sweep=in_sweep)
    check_run(run)
    check_can_stand_alone(run, is_merged=False, merge_too="say export=[merge] too")
    tracking = with_wandb_mode(replace(run.tracking, experiment=run.tracking.experiment or experiment))
    run = replace(run, data=_of_known_size(run.data, _keys_of(arm.words)))
    run = _independent_of_folder(replace(run, name=_name(arm), tracking=tracking))
    return ComposedRun(run, arm.words, arm.choices, hardware.scoring_of(run), tuple(stand_ins))


def _of_known_size(data: DataConfig, keys: Sequence[str]) -> DataConfig:
    """What a choice of data knows of its size is not so of other data that the words put in its place."""
    other = any(
        key.startswith(("data.path", "data.subset", "data.split", "data.sources", "data.filter")) for key in keys
    )
    told = any(key.startswith("data.size") for key in keys)
    return replace(data, size=DataSizeConfig()) if other and not told else data


def _keys_of(words: Sequence[str]) -> list[str]:
    """The keys and groups that words set."""
    return [word.split("=", 1)[0] for word in words]


def _binding_keys(arm: "Arm") -> list[str]:
    """The experiment's keys, but those of a group that the words choose anew: on other hardware they mean nothing.

    What it says of jobs on a cluster waits for one, and what it says of training for a run that trains.
    """
    replaced = {word for word in _keys_of(arm.words) if word in groups()}
    replaced |= {"launcher"} if arm.run.launcher.name == "local" else set()
    replaced |= {"schedule"} if arm.run.schedule.epochs == 0 else set()
    return [key for key in arm.experiment_keys if key.split(".", 1)[0] not in replaced]


def _name(arm: "Arm") -> str:
    name = arm.run.name or _joined(str(arm.choices[group]) for group in NAMED_AFTER)
    return f"{name}-tiny" if arm.run.stand_ins and "name" not in _keys_of(arm.words) else name


def _experiment_of(arms: Sequence["Arm"]) -> str:
    """The name without what differs among the arms, so that MLflow shows all of them side by side."""
    names = {_name(arm) for arm in arms}
    if len(names) == 1:
        return names.pop()
    chosen = [{str(arm.choices[group]) for arm in arms} for group in NAMED_AFTER]
    return _joined(choices.pop() for choices in chosen if len(choices) == 1) or "sweep"


def _joined(choices: Iterable[str]) -> str:
    """A choice in a subfolder of its group has a slash in it, which a folder's name cannot have."""
    return "-".join(choice.replace("/", "-") for choice in choices)


def _independent_of_folder(run: RunConfig) -> RunConfig:
    """The run with absolute paths: the process that works on it may be started elsewhere."""
    uri, name = run.tracking.uri, run.model.name
    if uri.startswith(SQLITE):
        uri = SQLITE + _absolute(uri.removeprefix(SQLITE))
    if name and (name.startswith((".", "/", "~")) or Path(name).is_dir()):
        name = _absolute(name)
    return replace(
        run,
        run_root=_absolute(run.run_root),
        model=replace(run.model, name=name, adapter=run.model.adapter and _absolute(run.model.adapter)),
        data=_data_independent_of_folder(run.data),
        evaluation=_evaluation_independent_of_folder(run.evaluation),
        tracking=replace(run.tracking, uri=uri),
    )


def _data_independent_of_folder(data: DataConfig) -> DataConfig:
    path, held_out = data.path, data.holdout_path
    sources = {
        name: replace(source, path=_absolute(source.path)) if looks_like_a_file(source.path) else source
        for name, source in data.sources.items()
    }
    return replace(
        data,
        path=_absolute(path) if path and data.source == "jsonl" and not is_made_up(path) else path,
        holdout_path=_absolute(held_out)
        if held_out and (data.source == "jsonl" or looks_like_a_file(held_out))
        else held_out,
        sources=sources,
        cache=data.cache and _absolute(data.cache),
    )


def _evaluation_independent_of_folder(evaluation: EvaluationConfig) -> EvaluationConfig:
    math, calls, harness = evaluation.math, evaluation.function_calling, evaluation.lm_eval
    agent = evaluation.data_agent
    is_file = math.path is not None and looks_like_a_file(math.path)
    is_local = agent.path is not None and not is_made_up(agent.path)
    return replace(
        evaluation,
        math=replace(math, path=_absolute(str(math.path)) if is_file else math.path),
        function_calling=replace(calls, path=calls.path and _absolute(calls.path)),
        lm_eval=replace(harness, include_path=harness.include_path and _absolute(harness.include_path)),
        data_agent=replace(agent, path=_absolute(str(agent.path))) if is_local else agent,
    )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _check_all_differ(runs: Sequence[ComposedRun], swept: Sequence[str]) -> None:
    """Two arms with one identity would be one run, in one folder."""
    seen: dict[tuple[object, ...], ComposedRun] = {}
    for composed in runs:
        run = composed.run
        identity = (run.name, run.run_root, run.data.path, *sorted(map(repr, identity_keys(run).items())))
        if identity in seen:
            first, second = (
                " ".join(word for word in one.words if word.partition("=")[0] in swept)
                for one in (seen[identity], composed)
            )
            raise UserError(f"the sweep has one run twice: {first} and {second} give the same result; drop one of them")
        seen[identity] = composed
