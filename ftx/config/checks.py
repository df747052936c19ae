"""What the schema's types cannot say: allowed values, keys that must fit together, keys that nothing would read."""

import math
import re
from collections.abc import Callable, Mapping, Sequence

from ftx.config.data_agent_checks import DATA_AGENT_READ_WHEN, check_data_agent
from ftx.config.data_checks import check_data, has_held_out_source
from ftx.config.engine_checks import ENGINE_READ_WHEN, check_engine
from ftx.config.evaluation_checks import EVALUATION_READ_WHEN, check_evaluation
from ftx.config.expected_checks import check_expected
from ftx.config.export_checks import EXPORT_READ_WHEN, check_export
from ftx.config.keys import did_you_mean, flat, schema_fields
from ftx.config.launcher_checks import LAUNCHER_READ_WHEN, check_launcher
from ftx.config.parallel import check_parallel, micro_batch_of, ranks
from ftx.config.publish_checks import PUBLISH_READ_WHEN, check_publish
from ftx.config.schema import RunConfig
from ftx.config.tracking_checks import TRACKING_READ_WHEN, check_tracking
from ftx.config.training_checks import check_best, check_compile, check_method, check_profile, check_schedule
from ftx.environment import CHECKOUT
from ftx.errors import UserError

# Sources that have one path.
SINGLE = ("jsonl", "hub")

# Key or section → when it is read, and what to say where it is not.
READ_WHEN: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    "method.lora": (lambda run: run.method.name in ("lora", "qlora"), "only method=lora and method=qlora do"),
    "method.stochastic_rounding": (
        lambda run: run.method.master_weights == "none",
        "only method.master_weights=none does",
    ),
    "schedule.min_lr_ratio": (
        lambda run: run.schedule.name == "cosine_with_min_lr",
        "only schedule=cosine_with_min_lr does",
    ),
    "schedule.decay": (lambda run: run.schedule.name == "wsd", "only schedule=wsd does"),
    "schedule.decay_shape": (lambda run: run.schedule.name == "wsd", "only schedule=wsd does"),
    "model.architecture": (lambda run: run.model.weights == "random", "only model=tiny, a random model, does"),
    "model.name": (lambda run: run.model.weights == "pretrained", "only model=hub does"),
    "model.adapter": (lambda run: run.model.weights == "pretrained", "only model=hub does"),
    "model.revision": (lambda run: run.model.weights == "pretrained", "only models from the hub have revisions"),
    "data.path": (lambda run: run.data.source in SINGLE, "only data=jsonl and data=hub do"),
    "data.on_bad_row": (lambda run: run.data.source != "stdlib_docs", "data=stdlib_docs has no rows"),
    "data.format": (lambda run: run.data.source in SINGLE, "only data=jsonl and data=hub do"),
    "data.columns": (lambda run: run.data.source in SINGLE, "only data=jsonl and data=hub do"),
    "data.filter": (lambda run: run.data.source in SINGLE, "only data=jsonl and data=hub do"),
    "data.group_by": (
        lambda run: run.data.source != "stdlib_docs" and not has_held_out_source(run),
        "only a held-out side that is split off does",
    ),
    "data.transforms": (lambda run: run.data.source != "stdlib_docs", "data=stdlib_docs has no rows"),
    "data.subset": (lambda run: run.data.source == "hub", "only data=hub does"),
    "data.split": (lambda run: run.data.source == "hub", "only data=hub does"),
    "data.revision": (lambda run: run.data.source == "hub", "only data=hub does"),
    "data.holdout_path": (lambda run: run.data.source in SINGLE, "only data=jsonl and data=hub do"),
    "data.holdout_split": (lambda run: run.data.source == "hub", "only data=hub does"),
    "data.holdout": (lambda run: not has_held_out_source(run), "data.holdout_path or data.holdout_split does"),
    "data.sources": (lambda run: run.data.source == "mixture", "only data=mixture does"),
    "data.packing_scope": (lambda run: run.data.packing, "data.packing=false packs nothing"),
    "schedule.best_metric": (lambda run: run.schedule.epochs != 0, "schedule.epochs=0 trains nothing"),
    "schedule.save_weights": (lambda run: run.schedule.epochs != 0, "schedule.epochs=0 trains nothing"),
    "schedule.profile_steps": (lambda run: run.schedule.epochs != 0, "schedule.epochs=0 trains nothing"),
    "hardware.strategy": (lambda run: ranks(run) > 1, "one process has nothing to share"),
    "hardware.threads": (lambda run: run.hardware.device == "cpu", "only hardware=cpu does"),
    "hardware.activation_offload": (
        lambda run: run.hardware.activation_checkpointing,
        "only hardware.activation_checkpointing=true does",
    ),
    "hardware.tf32": (lambda run: run.hardware.device == "cuda", "only hardware with GPUs does"),
    "hardware.cudnn_benchmark": (lambda run: run.hardware.device == "cuda", "only hardware with GPUs does"),
    "hardware.gpus_per_node": (lambda run: run.hardware.device == "cuda", "only hardware with GPUs does"),
    **ENGINE_READ_WHEN,
    **EVALUATION_READ_WHEN,
    **DATA_AGENT_READ_WHEN,
    **LAUNCHER_READ_WHEN,
    **TRACKING_READ_WHEN,
    **PUBLISH_READ_WHEN,
    **EXPORT_READ_WHEN,
}
# A run's name becomes a folder's name, with a hash and perhaps a suffix behind it.
NAME = re.compile(r"[^\W_][\w.+=-]{0,199}")
# No key is meant to be larger; libraries take seeds up to here.
LARGEST_INTEGER = 2**32 - 1


def check_run(run: RunConfig) -> None:
    """Raise UserError for the first value, or pair of values, that cannot be."""
    check_values(run)
    for check in (
        _check_names,
        _check_architecture,
        _check_required,
        _check_batch,
        check_method,
        check_schedule,
        check_compile,
        check_best,
        check_profile,
        _check_hardware,
        _check_attention,
        check_parallel,
        _check_template,
        check_data,
        check_engine,
        check_evaluation,
        check_data_agent,
        check_tracking,
        check_expected,
        check_launcher,
        check_publish,
        check_export,
    ):
        check(run)


def check_every_key_is_read(run: RunConfig, keys: Sequence[str]) -> None:
    """Raise UserError for a key that the user set but that nothing in this run would read."""
    values = flat(run)
    for name in keys:
        for unread, (is_read, reason) in READ_WHEN.items():
            if (name == unread or name.startswith(f"{unread}.")) and not is_read(run):
                word = f"{name}={values[name]}" if name in values else name
                raise UserError(f"{word}: nothing in this run reads it, {reason}; leave it out or choose what reads it")


def check_values(run: RunConfig) -> None:
    """Raise UserError for a value outside what its key accepts."""
    values = flat(run)
    for name, item, _ in schema_fields():
        value, allowed = values[name], item.metadata
        choices = allowed.get("choices") or ()
        if value is None:
            continue
        if isinstance(value, str):
            if choices and value not in choices:
                unit = " of steps" if name.startswith("schedule.") else ""
                numbers = f" or a number{unit}" if allowed.get("minimum") is not None else ""
                raise UserError(
                    f"{name}={value}: no such value{did_you_mean(value, choices)}; there are "
                    f"{', '.join(choices)}{numbers}"
                )
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_bounds(name, value, allowed)


def _check_bounds(name: str, value: float, allowed: Mapping[str, float | None]) -> None:
    minimum, above, maximum = allowed.get("minimum"), allowed.get("above"), allowed.get("maximum")
    if maximum is None and isinstance(value, int):
        maximum = LARGEST_INTEGER
    if not math.isfinite(value):
        raise UserError(f"{name}={value}: must be a finite number")
    if minimum is not None and value < minimum:
        raise UserError(f"{name}={value}: must be at least {minimum}")
    if above is not None and value <= above:
        raise UserError(f"{name}={value}: must be above {above}")
    if maximum is not None and value > maximum:
        raise UserError(f"{name}={value}: must be at most {maximum}")


def _check_names(run: RunConfig) -> None:
    if run.name and not NAME.fullmatch(run.name):
        raise UserError(
            f"name={run.name}: becomes a folder's name; write up to 200 letters, digits and . _ - + =, "
            "beginning with a letter or digit"
        )
    if not run.run_root.strip():
        raise UserError("run_root=: must name a folder; leave the word out for the default")


def _check_architecture(run: RunConfig) -> None:
    architecture = run.model.architecture
    if architecture.heads % architecture.key_value_heads:
        raise UserError(
            f"model.architecture.heads={architecture.heads}: must be a multiple of "
            f"model.architecture.key_value_heads={architecture.key_value_heads}; change one of them"
        )
    if architecture.head_dim % 2:
        raise UserError(
            f"model.architecture.head_dim={architecture.head_dim}: must be even, for the rotary position embedding; "
            f"try {architecture.head_dim + 1}"
        )


def _check_required(run: RunConfig) -> None:
    if run.model.weights == "pretrained" and not run.model.name:
        raise UserError("model.name is not set: model=hub needs model.name=OWNER/MODEL or model.name=FOLDER")
    if run.model.adapter and run.schedule.epochs != 0:
        raise UserError(
            f"model.adapter={run.model.adapter}: a model with an adapter is only scored; use schedule.epochs=0 or "
            "python -m ftx.evaluate"
        )
    if run.data.source == "jsonl" and not run.data.path:
        raise UserError(
            "data.path is not set: data=jsonl needs data.path=FILE (.jsonl .json .csv .tsv .parquet, also .gz)"
        )
    if run.data.source == "hub" and not run.data.path:
        raise UserError("data.path is not set: data=hub needs data.path=OWNER/NAME of a data set on the hub")


def _check_batch(run: RunConfig) -> None:
    processes, wanted = ranks(run), run.schedule.global_batch_size
    micro = 1 if run.hardware.micro_batch == "auto" else micro_batch_of(run)
    together = processes * micro
    if wanted % together == 0 or (wanted < together and wanted % processes == 0):
        return
    batches = [size for size in (wanted // together * together, (wanted // together + 1) * together) if size]
    ways = " or ".join(f"schedule.global_batch_size={size}" for size in batches)
    if wanted % processes == 0:
        ways += f", or hardware.micro_batch={math.gcd(wanted // processes, micro)}"
    raise UserError(
        f"schedule.global_batch_size={wanted}: must be a multiple of {together}, the rows that go through at once "
        f"(processes: {processes} × hardware.micro_batch={micro}); try {ways}"
    )


def _check_hardware(run: RunConfig) -> None:
    hardware = run.hardware
    if hardware.device == "cpu" and hardware.precision == "fp16":
        raise UserError("hardware.precision=fp16: not on a CPU; use hardware.precision=fp32 or bf16")
    if hardware.device == "cpu" and hardware.activation_offload:
        raise UserError("hardware.activation_offload=true: on a CPU they are in the host's memory already; drop it")
    if hardware.device == "cpu" and run.model.kernels == "liger":
        raise UserError("model.kernels=liger: Liger's kernels need a GPU; use model.kernels=auto or none")
    if hardware.device == "cpu" and run.model.loss == "liger":
        raise UserError("model.loss=liger: not on a CPU; use model.loss=auto, plain or chunked")
    if hardware.device == "cuda" and hardware.processes_per_node != hardware.gpus_per_node:
        raise UserError(
            f"hardware.processes_per_node={hardware.processes_per_node}: must equal "
            f"hardware.gpus_per_node={hardware.gpus_per_node}, one process for each GPU; set both alike"
        )


def _check_attention(run: RunConfig) -> None:
    choice, hardware = run.model.attention, run.hardware
    if choice in ("flash", "varlen") and hardware.device == "cpu":
        raise UserError(f"model.attention={choice}: needs an NVIDIA GPU; with hardware=cpu say model.attention=auto")
    if choice in ("flash", "varlen") and hardware.precision == "fp32":
        raise UserError(
            f"model.attention={choice}: takes 16-bit numbers only; use hardware.precision=bf16, or model.attention=auto"
        )


def _check_template(run: RunConfig) -> None:
    known = sorted(file.stem for file in (CHECKOUT / "templates").glob("*.jinja"))
    template = run.model.template
    if template not in ("auto", *known):
        raise UserError(
            f"model.template={template}: no such template{did_you_mean(template, known)}; there are auto, "
            f"{', '.join(known)}"
        )
    if template == "auto" and run.model.weights == "random":
        raise UserError(f"model.template=auto: a random model has no template of its own; choose {', '.join(known)}")
