"""Imports go downwards only, and a few things have one place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftx.environment import CHECKOUT

# From the bottom up; a module may import from its own layer and from those below. Functions' imports count too.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("ftx", "ftx.environment", "ftx.errors", "ftx.quiet", "ftx.config"),
    (
        "ftx.run_folder",
        "ftx.runs_on_disk",
        "ftx.writing",
        "ftx.lock",
        "ftx.lock_file",
        "ftx.processes",
        "ftx.provenance",
        "ftx.metrics_log",
        "ftx.metric_points",
        "ftx.progress",
        "ftx.statistics",
        "ftx.significance",
        "ftx.outcomes",
        "ftx.markdown",
        "ftx.sweep_arms",
        "ftx.contrast",
        "ftx.verdict",
        "ftx.seeds",
        "ftx.published",
        "ftx.against_published",
        "ftx.sweep_table",
        "ftx.sweep_cost",
        "ftx.sweep_figure",
        "ftx.arm_figure",
        "ftx.learning_curves",
        "ftx.figures",
        "ftx.scores",
        "ftx.tracking",
        "ftx.trackers",
        "ftx.to_tensorboard",
        "ftx.to_wandb",
        "ftx.redaction",
        "ftx.row_stream",
        "ftx.mlflow_names",
        "ftx.mlflow_parent",
        "ftx.holding",
        "ftx.while_ours",
        "ftx.templates",
        "ftx.tool_calls",
        "ftx.throughput",
        "ftx.stopping",
        "ftx.heartbeat",
        "ftx.agreement",
        "ftx.rank_failure",
        "ftx.attempts",
        "ftx.slurm_queue",
        "ftx.standing",
        "ftx.distributed",
        "ftx.reduce_bucket",
        "ftx.disk",
        "ftx.profiling",
        "ftx.system_metrics",
        "ftx.sandbox",
    ),
    ("ftx.data", "ftx.tool_calls"),
    (
        "ftx.models",
        "ftx.architectures",
        "ftx.adapters",
        "ftx.attention",
        "ftx.compiled",
        "ftx.loss",
        "ftx.head",
        "ftx.chunked_loss",
        "ftx.neftune",
        "ftx.generation_settings",
        "ftx.optimizers",
        "ftx.schedules",
        "ftx.counter_random",
        "ftx.kernels",
        "ftx.precision",
        "ftx.flops",
    ),
    (
        "ftx.trainer",
        "ftx.callbacks",
        "ftx.checkpoints",
        "ftx.saving",
        "ftx.resume",
        "ftx.partitions",
        "ftx.strategies",
    ),
    ("ftx.planning", "ftx.micro_batch"),
    ("ftx.generation", "ftx.engines", "ftx.agent", "ftx.scoring", "ftx.tasks"),
    ("ftx.exports", "ftx.chatting"),
    (
        "ftx.job",
        "ftx.allocation",
        "ftx.node_facts",
        "ftx.sweep_folder",
        "ftx.report",
        "ftx.returned_scores",
        "ftx.sweep_report",
        "ftx.sweep_confusion",
        "ftx.comparison",
        "ftx.diff",
        "ftx.run_differences",
        "ftx.sweep",
        "ftx.server",
        "ftx.train",
        "ftx.plan",
        "ftx.evaluate",
        "ftx.chat",
        "ftx.export",
        "ftx.verb",
        "ftx.preflight",
        "ftx.data.__main__",
        "launchers",
    ),
)
# The Python API: the package offers what the verbs do, imported when asked for.
ALLOWED = {("ftx", "ftx.train"), ("ftx", "ftx.evaluate")}

FILES = sorted(file for folder in ("ftx", "launchers") for file in (CHECKOUT / folder).rglob("*.py"))


def module_of(file: Path) -> str:
    parts = file.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def layer_of(module: str) -> int:
    """The layer with the longest name that ``module`` is or lies in."""
    places = [
        (len(name), level)
        for level, names in enumerate(LAYERS)
        for name in names
        if module == name or (name != "ftx" and module.startswith(f"{name}."))
    ]
    assert places, f"{module} belongs to no layer; give it one in tests/test_layers.py"
    return max(places)[1]


def imports_of(file: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; ``from package import module`` names the module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield ast.literal_eval(node.args[0])


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards(module):
    ours = {name for name in imports_of(MODULES[module]) if name in MODULES}
    upwards = {name for name in ours if layer_of(name) > layer_of(module) and (module, name) not in ALLOWED}
    assert upwards == set()


def test_the_environment_is_read_in_one_file():
    readers = {
        module
        for module, file in MODULES.items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and "environ" in {a.name for a in node.names})
    }
    assert readers == {"ftx.environment"}


def names_from_transformers(file: Path) -> set[str]:
    """What a file takes from transformers, by name; an attribute of the package counts."""
    tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    found = set()
    for node in tree:
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "transformers":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[0] == "transformers":
            found.add(node.attr)
    return found


def test_one_file_knows_the_trainer():
    users = {
        module: used
        for module, file in MODULES.items()
        if (used := {name for name in names_from_transformers(file) if name.startswith(("Train", "Seq2SeqTrain"))})
    }
    assert [module for module, used in users.items() if "Trainer" in used] == ["ftx.trainer"]
    assert set(users) <= {"ftx.trainer", "ftx.callbacks"}


def test_hydra_is_in_the_configuration_only():
    users = {module for module, file in MODULES.items() if any(n.split(".")[0] == "hydra" for n in imports_of(file))}
    assert users == {"ftx.config.arms", "ftx.config.explain"}


def test_every_layer_is_of_modules_that_are_there():
    planned = {"ftx.memory"}
    known = {name for names in LAYERS for name in names} - planned
    assert known - set(MODULES) == set()
