"""Words become one configuration for each run they ask for. All of Hydra is here, and it leaves nothing behind."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, get_args

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ftx.config.explain import explain, no_such_choice, no_such_key, unreadable
from ftx.config.hardware_schema import HardwareConfig
from ftx.config.help import groups
from ftx.config.keys import flat, schema_fields
from ftx.config.nodes import run_schema, to_run
from ftx.config.schema import RunConfig
from ftx.config.search import Interval, draw
from ftx.config.site import SITE, read_site
from ftx.environment import CHECKOUT
from ftx.errors import UserError

CONF = CHECKOUT / "conf"
# Groups whose files lie outside conf/: each yaml is one choice.
OUTSIDE_CONF = {"experiment": (CHECKOUT / "experiments", "_global_"), "launcher": (CHECKOUT / "launchers", None)}
# Their entries have names of the user's, or of SLURM's, which no schema knows beforehand.
OPEN = ("data.sources.", "launcher.sbatch.", "launcher.srun.")
OPEN_WHOLE = ("launcher.sbatch=", "launcher.srun=")
# Groups of which several choices go together, as in export=[merge,gguf].
SEVERAL = ("export",)


@dataclass(frozen=True)
class Arm:
    """One run as Hydra composes it: not yet named nor checked across its keys."""

    run: RunConfig
    words: tuple[str, ...]
    choices: dict[str, str | None]
    # The keys that its experiment's file sets.
    experiment_keys: tuple[str, ...]


@dataclass(frozen=True)
class Arms:
    """All of them; ``swept`` names the keys and groups that got several values."""

    arms: tuple[Arm, ...]
    swept: tuple[str, ...]
    is_sweep: bool


@dataclass(frozen=True)
class _Together:
    """Keys of a sweep that are set row by row, not each value of one with each of the other."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def expand(words: Sequence[str], *, multirun: bool, config_dir: Path | None) -> Arms:
    """Raises UserError for what the words, the schema or a yaml file make impossible."""
    try:
        with _hydra(config_dir) as composer:
            return composer.expand(list(words), multirun)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(explain(error, words, config_dir)) from error


def hardware_choice(name: str, config_dir: Path | None) -> HardwareConfig:
    """What ``hardware=name`` chooses; raises UserError, in words about evaluation.hardware, where there is no such."""
    try:
        with _hydra(config_dir) as composer:
            return composer.hardware(name)
    except (MissingConfigException, OverrideParseException) as error:
        raise UserError(f"evaluation.{no_such_choice('hardware', name, config_dir)}") from error
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(explain(error, [], config_dir)) from error


@cache
def _loaded(file: Path, changed: int) -> Any:
    """A yaml file as it was when it was ``changed``: every composition looks at all of them."""
    return OmegaConf.load(file)


@contextmanager
def _hydra(config_dir: Path | None) -> Iterator["_Composer"]:
    """Hydra, initialised over conf/, the schema and the groups outside conf/; afterwards as if it had not been."""
    OmegaConf.register_new_resolver("checkout", lambda: str(CHECKOUT), replace=True)
    store = ConfigStore.instance()
    store.store(name="schema", node=run_schema())
    for group, (folder, package) in OUTSIDE_CONF.items():
        for file in sorted(folder.glob("*.yaml")):
            if file == SITE:
                continue
            node = _loaded(file, file.stat().st_mtime_ns)
            if (group, file.stem) == ("launcher", "slurm"):
                node = OmegaConf.merge(node, read_site())
            store.store(group=group, name=file.stem, node=node, package=package or group)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="ftx"):
        yield _Composer(OverridesParser.create(config_loader=GlobalHydra.instance().config_loader()), config_dir)


class _Composer:
    """Words → arms, while Hydra is initialised."""

    def __init__(self, parser: OverridesParser, config_dir: Path | None) -> None:
        self._parser, self._config_dir = parser, config_dir

    def expand(self, words: list[str], multirun: bool) -> Arms:
        given = self._parse(words)
        plain = [str(override.input_line) for override in given if not override.is_sweep_override()]
        composed = self._compose(plain)
        declared, together = _declared(composed.hydra.sweeper.params or {})
        if not multirun and composed.hydra.mode != RunMode.MULTIRUN:
            swept_words = [word for word in words if word not in plain]
            if swept_words:
                raise UserError(
                    f"{swept_words[0]}: several values make a sweep: add -m, or put [ ] around them for a list"
                )
            _check_search(given, [])
            return Arms((self._arm(composed, words),), (), is_sweep=False)
        # Of two values for one key the later counts: a word replaces what the experiment declares.
        last = {override.key_or_group: override for override in self._parser.parse_overrides(declared) + given}
        together = [axis for axis in together if not set(axis.names) & set(last)]
        intervals = [_interval(override) for override in last.values() if _is_interval(override)]
        _check_search(given, intervals)
        if intervals:
            together.append(_drawn(intervals, composed.search.runs, composed.search.seed))
        listed = [override for override in last.values() if not _is_interval(override)]
        arms = [
            [*words, *(word for row in rows for word in row)]
            for words in BasicSweeper.split_arguments(listed, None)[0]
            for rows in product(*(axis.rows for axis in together))
        ]
        swept = tuple(name for name, override in last.items() if override.is_sweep_override())
        swept += tuple(name for axis in together for name in axis.names if name not in swept)
        return Arms(tuple(self._arm(self._compose(arm), arm) for arm in arms), swept, is_sweep=True)

    def _parse(self, words: Sequence[str]) -> list[Override]:
        overrides: list[Override] = self._parser.parse_overrides(list(words))
        for override in overrides:
            self._refuse(override)
        return overrides

    def _refuse(self, override: Override) -> None:
        """What Hydra would take, or crash on, though it makes no run or one with two models."""
        name, word = override.key_or_group, str(override.input_line)
        keys = [known for known, _, _ in schema_fields()]
        if not name:
            raise UserError(unreadable(word))
        if override.is_delete():
            raise UserError(f"~{name}: every group and key has a value; choose another with {name}=VALUE")
        if name.split(".")[0].split("/")[0] == "hydra":
            raise UserError(
                f"{word}: Hydra only composes here, so nothing reads its settings; -m makes a sweep, "
                "--config-dir adds choices, run_root says where runs go"
            )
        if (override.is_add() or override.is_force_add()) and name not in (*keys, *groups()):
            raise UserError(no_such_key(name))
        if override.is_add() or override.is_force_add():
            raise UserError(f"{word}: {name} is already part of every run; write {word.lstrip('+')}")
        if name in groups() and override.package is not None:
            raise UserError(f"{word}: a choice has one place; write {name}={word.partition('=')[2]}")
        if name in SEVERAL and override.is_sweep_override():
            raise UserError(f"{word}: its choices go together in one run; write {name}=[{word.partition('=')[2]}]")
        if name in groups() and not override.is_sweep_override() and not _is_choice(name, override.value()):
            raise UserError(no_such_choice(name, word.partition("=")[2], self._config_dir))

    def hardware(self, name: str) -> HardwareConfig:
        composed = self._compose([f"hardware={name}"])
        return to_run({"hardware": OmegaConf.to_container(composed.hardware, resolve=True)}).hardware

    def _compose(self, words: Sequence[str]) -> DictConfig:
        self._parse(words)
        search = [f"hydra.searchpath=[file://{self._config_dir.resolve()}]"] if self._config_dir else []
        return hydra_compose("train", overrides=[*map(_adding, words), *search], return_hydra_config=True)

    def _arm(self, composed: DictConfig, words: Sequence[str]) -> Arm:
        choices = {group: choice for group, choice in composed.hydra.runtime.choices.items() if "hydra" not in group}
        with open_dict(composed):
            del composed["hydra"]
        run = to_run(OmegaConf.to_container(composed, resolve=True, throw_on_missing=True))
        return Arm(run, tuple(words), choices, self._keys_of_experiment(choices.get("experiment")))

    def _keys_of_experiment(self, name: str | None) -> tuple[str, ...]:
        """Also of the experiments that its defaults begin with."""
        own = [self._config_dir / "experiment"] if self._config_dir else []
        for folder in (*own, OUTSIDE_CONF["experiment"][0]):
            file = folder / f"{name}.yaml"
            if file.is_file():
                said: Any = OmegaConf.to_container(OmegaConf.load(file))
                bases = [entry for entry in said.get("defaults", ()) if isinstance(entry, str) and entry != "_self_"]
                inherited = [key for base in bases for key in self._keys_of_experiment(base)]
                return tuple(dict.fromkeys([*inherited, *flat(said)]))
        return ()


def _is_choice(group: str, value: object) -> bool:
    """Whether Hydra can look it up; what there is, it knows itself."""
    if group in SEVERAL and isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, str)


def _declared(params: Mapping[str, str]) -> tuple[list[str], list[_Together]]:
    """What an experiment sweeps: keys with values of their own, as words, and keys that go together."""
    alone = [f"{name}={values}" for name, values in params.items() if " " not in name.strip()]
    together = []
    for names, rows in ((name.split(), str(values)) for name, values in params.items() if " " in name.strip()):
        cells = [row.split() for row in rows.split(",")]
        wrong = next((row for row in cells if len(row) != len(names)), None)
        if wrong is not None:
            raise UserError(
                f"hydra.sweeper.params: {' '.join(names)}: {' '.join(wrong)}: each of its rows is a value for each of "
                f"the {len(names)} keys, as in 'a b: 1 x, 2 y'"
            )
        words = tuple(tuple(f"{name}={value}" for name, value in zip(names, row, strict=True)) for row in cells)
        together.append(_Together(tuple(names), words))
    return alone, together


def _is_interval(override: Override) -> bool:
    return override.is_sweep_override() and override.is_interval_sweep()


def _interval(override: Override) -> Interval:
    """As the grammar has it: ``interval(a,b)``, ``int(interval(a,b))``, and either in ``tag(log, …)``."""
    name, word = override.key_or_group, str(override.input_line)
    found: Any = override.value()
    kinds = {known: get_args(item.type) or (item.type,) for known, item, _ in schema_fields()}.get(name, ())
    is_whole = isinstance(found.start, int) and isinstance(found.end, int)
    if unknown := found.tags - {"log"}:
        raise UserError(f"{word}: no such tag as {unknown.pop()} of an interval; there is log, for a logarithmic scale")
    if not found.start < found.end:
        raise UserError(f"{word}: an interval goes upwards; write interval({found.end:g},{found.start:g})")
    if "log" in found.tags and found.start <= 0:
        raise UserError(f"{word}: a logarithmic scale has no {found.start:g}; begin above 0")
    if int in kinds and float not in kinds and not is_whole:
        raise UserError(f"{word}: {name} is a whole number; write int(interval({found.start:g},{found.end:g}))")
    return Interval(name, found.start, found.end, is_log="log" in found.tags, is_whole=is_whole)


def _drawn(intervals: Sequence[Interval], runs: int, seed: int) -> _Together:
    """What is drawn for one run belongs together; of listed values each goes with all that is drawn."""
    settings = draw(intervals, runs, seed)
    rows = tuple(tuple(f"{name}={value}" for name, value in setting.items()) for setting in settings)
    return _Together(tuple(settings[0]), rows)


def _check_search(given: Sequence[Override], intervals: Sequence[Interval]) -> None:
    """Raises UserError for keys of the search that nothing reads, or that are given several values."""
    for override in given:
        if not override.key_or_group.startswith("search."):
            continue
        word = str(override.input_line)
        if override.is_sweep_override():
            raise UserError(f"{word}: all runs of a sweep belong to one search; give one value")
        if not intervals:
            raise UserError(
                f"{word}: nothing is drawn; give a key an interval, as in "
                "-m 'schedule.learning_rate=tag(log,interval(1e-5,1e-3))'"
            )


def _adding(word: str) -> str:
    """As Hydra has to hear it."""
    return f"++{word}" if word.startswith((*OPEN, *OPEN_WHOLE)) else word
