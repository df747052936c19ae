"""``debug=tiny`` needs no hub and no GPU: what would come from the hub is made here, small.

Family, template, method, strategy, tasks and the formats of the rows are the run's own. What is local already (a
model's folder, a file, random models, the standard library) is used as it is, a file that nobody has named is made up
too, and a key that the words set keeps its value.
"""

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ftx.config.data_checks import looks_like_a_file
from ftx.config.evaluation_schema import EvaluationConfig
from ftx.config.export_schema import ExportConfig
from ftx.config.hardware_schema import HardwareConfig
from ftx.config.made_up import MADE_UP, ROWS
from ftx.config.model_schema import ArchitectureConfig, ModelConfig
from ftx.config.parallel import micro_batch_of, ranks
from ftx.config.schema import DataConfig, DataSizeConfig, RunConfig, ScheduleConfig, SourceConfig
from ftx.errors import UserError

# Rows of two hundred thousand parameters and more; the layers' inputs come in whole blocks of 4-bit quantisation.
VOCABULARY, HIDDEN, INTERMEDIATE, LAYERS, HEADS = 2048, 64, 128, 2, 4
MAX_LENGTH = 1024
# Of an optimizer step, so that gradients are accumulated too.
MICRO_BATCHES = 2
SEVERAL = 2
# Behind the name of what is no model of use.
TINY = "-tiny"

Config = TypeVar("Config")


def with_stand_ins(run: RunConfig, keys: Collection[str], *, in_sweep: bool) -> tuple[RunConfig, list[str]]:
    """The run without the hub and a GPU, and what stands in for what; a run without ``stand_ins`` stays as it is.

    ``keys``: those that the words set. Runs of a sweep take one process each, two of them side by side.

    Raises UserError for an adapter, which fits no other model.
    """
    if not run.stand_ins:
        return run, []
    model, data, evaluation = _model(run.model), _data(run.data, keys), evaluation_with_stand_ins(run.evaluation, keys)
    replaced = [*_said_of_model(run.model, model), *_said_of_data(run.data, data)]
    replaced += _said_of_evaluation(run.evaluation, evaluation)
    small = replace(run, model=model, data=data, evaluation=evaluation)
    if "hardware" not in keys and run.hardware.device != "cpu":
        small = _on_this_cpu(small, keys, in_sweep=in_sweep)
        many = ranks(run)
        replaced.append(f"{_processes(ranks(small))} on this CPU for {many} × {run.hardware.gpu or 'GPU'}")
    small = replace(small, schedule=_schedule(small, keys))
    if in_sweep and small.hardware.device == "cpu" and "launcher.parallel" not in keys:
        small = replace(small, launcher=replace(run.launcher, parallel=max(run.launcher.parallel, SEVERAL)))
    small = replace(small, export=_export(run.export, keys))
    if len(small.export.quantization) < len(run.export.quantization):
        replaced.append(f"export.quantization=[{','.join(small.export.quantization)}], the first and the last")
    return small, replaced


def evaluation_with_stand_ins(evaluation: EvaluationConfig, keys: Collection[str] = ()) -> EvaluationConfig:
    """The same tasks with made-up questions where theirs are on the hub."""
    math, agent = evaluation.math, evaluation.data_agent
    if "math" in evaluation.tasks and math.path is not None and not looks_like_a_file(math.path):
        math = replace(math, path=MADE_UP + ("gsm8k" if math.format == "auto" else math.format))
    if "data_agent" in evaluation.tasks and agent.path is None and agent.benchmark == "dabstep":
        # Nobody has to withhold the answers.
        agent = replace(agent, path=MADE_UP + agent.benchmark, split="dev")
    hardware = evaluation.hardware if "evaluation.hardware" in keys else None
    return replace(evaluation, math=math, data_agent=agent, hardware=hardware)


def _export(export: ExportConfig, keys: Collection[str]) -> ExportConfig:
    """Nothing is uploaded, nothing registered under the model's own name.

    Of many files for llama.cpp the first and the last, each of which is checked for seconds.
    """
    kinds = list(export.quantization)
    if len(kinds) > 2 and "export.quantization" not in keys:
        kinds = [kinds[0], kinds[-1]]
    register = export.register if export.register is None or export.register.endswith(TINY) else export.register + TINY
    return replace(export, quantization=kinds, push="dry" if export.hub else export.push, register=register)


def _model(model: ModelConfig) -> ModelConfig:
    if model.weights == "random" or not model.name or _is_folder(model.name):
        return model
    if model.adapter:
        raise UserError(
            f"model.adapter={model.adapter}: belongs on {model.name}, which debug=tiny replaces by a random model; "
            "leave one of them out"
        )
    whole = model.architecture
    small = ArchitectureConfig(
        family=whole.family,
        vocabulary_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        layers=LAYERS,
        heads=HEADS,
        key_value_heads=HEADS if whole.key_value_heads == whole.heads else HEADS // 2,
        head_dim=HIDDEN // HEADS,
        tied_embeddings=whole.tied_embeddings,
    )
    template = "chatml" if model.template == "auto" else model.template
    return replace(model, weights="random", name=None, revision="main", template=template, architecture=small)


def _is_folder(name: str) -> bool:
    return name.startswith((".", "/", "~")) or Path(name).is_dir()


def _data(data: DataConfig, keys: Collection[str]) -> DataConfig:
    made_up = {name: _source(source) for name, source in data.sources.items()}
    most = max((source.rows or 0 for source in made_up.values()), default=0)
    small = replace(
        data,
        path=_path(data),
        holdout_path=_made_up(data.holdout_path, data.format),
        sources={name: _with_fewer_rows(source, most) for name, source in made_up.items()},
    )
    if small == data:
        return data
    small = replace(small, size=DataSizeConfig())
    if "data.max_length" in keys:
        return small
    return replace(small, max_length=min(data.max_length, MAX_LENGTH))


def _path(data: DataConfig) -> str | None:
    """Of rows in the format of a data set on the hub, or of a file that nobody has named."""
    if data.source == "hub":
        return _made_up(data.path, data.format)
    if data.source == "jsonl" and not data.path:
        return _rows_of(data.format)
    return data.path


def _source(source: SourceConfig) -> SourceConfig:
    return replace(source, path=_made_up(source.path, source.format) or "")


def _with_fewer_rows(source: SourceConfig, most: int) -> SourceConfig:
    """Sources keep their proportions: the one with ``most`` rows gets all that are made up."""
    if source.rows is None or not source.path.startswith(MADE_UP):
        return source
    return replace(source, rows=max(source.rows * ROWS // most, 1))


def _made_up(path: str | None, format: str) -> str | None:
    if not path or looks_like_a_file(path):
        return path
    return _rows_of(format)


def _rows_of(format: str) -> str:
    return MADE_UP + ("messages" if format == "auto" else format)


def _on_this_cpu(run: RunConfig, keys: Collection[str], *, in_sweep: bool) -> RunConfig:
    """One process, or two where the run has several and the machine to itself; with the same strategy."""
    hardware = run.hardware
    here = HardwareConfig(
        processes_per_node=SEVERAL if ranks(run) > 1 and not in_sweep else 1,
        strategy=hardware.strategy,
        precision="fp32" if hardware.precision == "fp16" else hardware.precision,
        micro_batch=1,
        activation_checkpointing=hardware.activation_checkpointing,
        cudnn_benchmark=hardware.cudnn_benchmark,
        tf32=hardware.tf32,
    )
    model = replace(run.model, attention="auto", kernels="auto", loss="auto")
    return replace(run, hardware=_as_said(here, hardware, "hardware", keys), model=model)


def _as_said(config: Config, said: Config, section: str, keys: Collection[str]) -> Config:
    """``config`` with the values of ``said`` for what the words set."""
    names = [item.name for item in fields(config)]  # type: ignore[arg-type]
    kept: dict[str, Any] = {name: getattr(said, name) for name in names if f"{section}.{name}" in keys}
    return replace(config, **kept)  # type: ignore[type-var]


def _schedule(run: RunConfig, keys: Collection[str]) -> ScheduleConfig:
    """A step of few rows, and none at all where nothing is trained."""
    schedule = run.schedule
    steps = None if schedule.epochs == 0 and "schedule.max_steps" not in keys else schedule.max_steps
    rows = 1 if run.hardware.micro_batch == "auto" else micro_batch_of(run)
    smallest = MICRO_BATCHES * ranks(run) * rows
    small = replace(
        schedule,
        max_steps=steps,
        global_batch_size=min(schedule.global_batch_size, smallest),
        warmup=min(schedule.warmup, steps) if steps else schedule.warmup,
    )
    return _as_said(small, schedule, "schedule", keys)


def _said_of_model(before: ModelConfig, after: ModelConfig) -> list[str]:
    return [f"a small random {after.architecture.family} for {before.name}"] if after != before else []


def _said_of_data(before: DataConfig, after: DataConfig) -> list[str]:
    pairs = [(before.path, after.path), (before.holdout_path, after.holdout_path)]
    pairs += [(source.path, after.sources[name].path) for name, source in before.sources.items()]
    names = [was or "data.path=FILE" for was, now in pairs if was != now]
    return [f"made-up rows for {' and '.join(names)}"] if names else []


def _said_of_evaluation(before: EvaluationConfig, after: EvaluationConfig) -> list[str]:
    names = [str(before.math.path)] if "math" in before.tasks and before.math != after.math else []
    if "data_agent" in before.tasks and before.data_agent != after.data_agent:
        names.append(f"the {before.data_agent.split} tasks of {before.data_agent.benchmark}")
    return [f"made-up questions for {' and '.join(names)}"] if names else []


def _processes(count: int) -> str:
    return "one process" if count == 1 else f"{count} processes"
