"""Words on the command line become checked RunConfigs; Hydra composes, and leaves nothing behind."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, Node, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ftx.config.checks import check_every_key_is_read, check_run
from ftx.config.explain import explain
from ftx.config.help import groups
from ftx.config.keys import flat
from ftx.config.schema import RunConfig
from ftx.environment import CHECKOUT
from ftx.errors import UserError

CONF = CHECKOUT / "conf"
# Groups whose files lie outside conf/: each yaml is one choice.
OUTSIDE_CONF = {"experiment": (CHECKOUT / "experiments", "_global_"), "launcher": (CHECKOUT / "launchers", None)}


@dataclass(frozen=True)
class ComposedRun:
    """A run as the words describe it, the words that are its own, and the choice made in each group."""

    run: RunConfig
    words: tuple[str, ...]
    choices: dict[str, str | None]


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
    words = list(words)
    if config_dir is not None:
        if not config_dir.is_dir():
            raise UserError(f"--config-dir: no such folder: {config_dir}")
        words.append(f"hydra.searchpath=[file://{config_dir.resolve()}]")
    with _hydra() as parser:
        try:
            return _compose_words(words, parser, multirun)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error, words)) from error


def _compose_words(words: list[str], parser: OverridesParser, multirun: bool) -> Composition:
    overrides = parser.parse_overrides(words)
    _refuse_editing_the_defaults(overrides)
    plain = [word for word, override in zip(words, overrides, strict=True) if not override.is_sweep_override()]
    composed = _hydra_compose(plain)
    declared = {str(name): str(values) for name, values in (composed.hydra.sweeper.params or {}).items()}
    if not multirun and composed.hydra.mode != RunMode.MULTIRUN:
        swept_words = [word for word in words if word not in plain]
        if swept_words:
            raise UserError(f"{swept_words[0]}: several values make a sweep: add -m, or put [ ] around them for a list")
        return Composition((_checked_run(composed, words),), (), is_sweep=False)
    all_overrides = parser.parse_overrides([f"{name}={values}" for name, values in declared.items()] + words)
    arms = BasicSweeper.split_arguments(all_overrides, None)[0]
    runs = tuple(_checked_run(_hydra_compose(arm), arm) for arm in arms)
    swept = dict.fromkeys(override.get_key_element() for override in all_overrides if override.is_sweep_override())
    return Composition(runs, tuple(swept), is_sweep=True)


def compose(*words: str, config_dir: Path | None = None) -> RunConfig:
    """One run from words as on the command line: ``compose("model=tiny", "schedule.epochs=1")``."""
    composition = compose_all(words, config_dir=config_dir)
    if composition.is_sweep:
        raise UserError("these words describe a sweep of several runs; compose() returns one")
    return composition.runs[0].run


def _refuse_editing_the_defaults(overrides: Sequence[Override]) -> None:
    """``+group=`` and ``~group`` would make a run with two models, or none."""
    for override in overrides:
        name = override.key_or_group
        if override.is_delete():
            raise UserError(f"~{name}: every group and key has a value; choose another with {name}=VALUE")
        if override.is_add() and name in groups():
            raise UserError(f"+{name}=…: the group is already part of every run; write {name}=… without the +")


@contextmanager
def _hydra() -> Iterator[OverridesParser]:
    """Hydra, initialised over conf/, the schema and the groups outside conf/; afterwards as if it had not been."""
    OmegaConf.register_new_resolver("checkout", lambda: str(CHECKOUT), replace=True)
    store = ConfigStore.instance()
    store.store(name="schema", node=run_schema())
    for group, (folder, package) in OUTSIDE_CONF.items():
        for file in sorted(folder.glob("*.yaml")):
            node = OmegaConf.load(file)
            store.store(group=group, name=file.stem, node=node, package=package or group)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="ftx"):
        yield OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())


def _hydra_compose(words: Sequence[str]) -> DictConfig:
    return hydra_compose("train", overrides=list(words), return_hydra_config=True)


def _checked_run(composed: DictConfig, words: Sequence[str]) -> ComposedRun:
    choices = {group: choice for group, choice in composed.hydra.runtime.choices.items() if "hydra" not in group}
    experiment_keys = _keys_of_experiment(choices.get("experiment"))
    with open_dict(composed):
        del composed["hydra"]
    plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    # A word like +key=value gets past a structured config, but not past this second merge.
    run: RunConfig = OmegaConf.to_object(OmegaConf.merge(run_schema(), plain))  # type: ignore[assignment]
    run = _named(run, choices)
    own = tuple(word for word in words if not word.startswith("hydra"))
    check_run(run)
    check_every_key_is_read(run, [word.split("=", 1)[0].lstrip("+") for word in own] + experiment_keys)
    return ComposedRun(run, own, choices)


def _keys_of_experiment(name: str | None) -> list[str]:
    """The dotted keys that an experiment file sets."""
    file = OUTSIDE_CONF["experiment"][0] / f"{name}.yaml"
    if name is None or not file.is_file():
        return []
    return list(flat(OmegaConf.to_container(OmegaConf.load(file))))


def _named(run: RunConfig, choices: dict[str, str | None]) -> RunConfig:
    """The run with its name, its experiment's name and its folder's absolute path filled in."""
    name = run.name or "-".join(str(choices[group]) for group in ("model", "method", "data"))
    tracking = replace(run.tracking, experiment=run.tracking.experiment or name)
    root = str(Path(run.run_root).expanduser().absolute())
    return replace(run, name=name, tracking=tracking, run_root=root)


def run_schema() -> DictConfig:
    """The schema as a Hydra node: frozen dataclasses make read-only nodes, which composing has to write to."""
    node = OmegaConf.structured(RunConfig)
    _allow_writes(node)
    return node


def _allow_writes(node: Node) -> None:
    node._set_flag("readonly", None)
    if isinstance(node, DictConfig):
        for name in node:
            child = node._get_node(name)
            if isinstance(child, Node):
                _allow_writes(child)
