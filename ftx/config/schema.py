"""The schema of a run: every key, its type, its default and what it may be.

yaml files under conf/ and experiments/ choose among these; a key that is not here does not exist. Metadata on a field
says which values are allowed and whether the key changes a run's result (and so belongs to its identity).
"""

from dataclasses import dataclass
from typing import Any

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.config.export_schema import ExportConfig
from ftx.config.hardware_schema import HardwareConfig
from ftx.config.launcher_schema import LauncherConfig
from ftx.config.model_schema import ModelConfig
from ftx.config.schema_keys import FORMATS, key, section

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (Hu et al., 2021)."""

    rank: int = key(16, minimum=1)
    alpha: float = key(32.0, above=0)
    dropout: float = key(0.0, minimum=0, maximum=0.99)
    # all-linear, or the names of the modules that get an adapter.
    targets: list[str] = key(["all-linear"])
    # Scale by alpha/√rank instead of alpha/rank (Kalajdzievski, 2023).
    rslora: bool = False
    # Train each column's length apart from its direction (Liu et al., 2024).
    dora: bool = False


@dataclass(frozen=True)
class MethodConfig:
    """Which parameters move, and how."""

    name: str = key("full", choices=("full", "lora", "qlora"))
    lora: LoraConfig = section(LoraConfig)
    optimizer: str = key(
        "adamw_torch_fused", choices=("adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit")
    )
    weight_decay: float = key(0.0, minimum=0)
    adam_beta1: float = key(0.9, minimum=0, maximum=0.9999)
    adam_beta2: float = key(0.999, minimum=0, maximum=0.999999)
    adam_epsilon: float = key(1e-8, above=0)
    # fp32: what is trained is kept in 32-bit floats. none: weights, gradients and moments in hardware.precision.
    master_weights: str = key("fp32", choices=("fp32", "none"))
    # With master_weights=none, round each new weight up or down at random, so that small steps count on average.
    stochastic_rounding: bool = False
    # NEFTune's noise on the embeddings of each sample (Jain et al., 2023); null: none.
    neftune_alpha: float | None = key(None, above=0)
    # Gradients are scaled down to this norm; 0 leaves them as they are.
    max_grad_norm: float = key(1.0, minimum=0)


@dataclass(frozen=True)
class SourceConfig:
    """One source of a mixture; the keys mean what the same keys of ``data`` mean for a single source."""

    path: str = key("", identity=False)
    subset: str | None = None
    split: str = "train"
    revision: str = "main"
    columns: list[str] = key([])
    format: str = key("auto", choices=("auto", *FORMATS))
    filter: list[str] = key([])
    # Its share of the mixture beside the other weights; no conversation is taken twice.
    weight: float | None = key(None, above=0)
    # Exactly so many conversations, drawn by the seed; null: all, or what the weight gives.
    rows: int | None = key(None, minimum=1)


@dataclass(frozen=True)
class DataSizeConfig:
    """What is known of a data set before it is fetched, for plans; over all of its training side."""

    conversations: int | None = key(None, minimum=1)
    tokens: int | None = key(None, minimum=1)


@dataclass(frozen=True)
class DataConfig:
    """What is learned from, and how it becomes rows of tokens."""

    source: str = key("stdlib_docs", choices=("stdlib_docs", "jsonl", "hub", "mixture"))
    # A file, or OWNER/NAME of a data set on the hub. Identity follows the content, not where it lies.
    path: str | None = key(None, identity=False)
    # Which configuration, split and revision of a hub data set.
    subset: str | None = None
    split: str = "train"
    revision: str = "main"
    # The sources of data=mixture by name, each a SourceConfig. (OmegaConf adds no entries to a mapping of dataclasses.)
    sources: dict[str, Any] = key({})
    # What a row is; auto recognises it where its keys leave no doubt.
    format: str = key("auto", choices=("auto", *FORMATS))
    # The names of a csv file's columns where it has no header line; of a hub data set, the only columns to fetch.
    columns: list[str] = key([])
    # Only rows for which all of these hold, as in "score>=4"; the others are counted.
    filter: list[str] = key([])
    # Functions of yours over rows, by the name of an entry point or as MODULE:FUNCTION.
    transforms: list[str] = key([])
    # Rows with the same value of this column stay on one side of the held-out split.
    group_by: str | None = None
    # At most so many training conversations, the first ones in the seeded order.
    limit: int | None = key(None, minimum=1)
    # Kept aside for evaluation: below 1 a share of the conversations, from 1 on a number of them; 0 keeps none.
    holdout: float = key(0.1, minimum=0)
    # Where the conversations for evaluation come from instead: a file of their own, another split of the data set.
    holdout_path: str | None = key(None, identity=False)
    holdout_split: str | None = None
    # The reasoning in <think> … </think>: as the model's own template has it, kept in every answer, or stripped from
    # the answers before the last question.
    thinking: str = key("template", choices=("template", "keep", "strip"))
    # Tokens: of a packed row, and the most that one conversation may have.
    max_length: int = key(1024, minimum=8)
    packing: bool = True
    # dataset: rows are packed from all conversations. global_batch: from those of one step, which are the same ones
    # as without packing.
    packing_scope: str = key("dataset", choices=("dataset", "global_batch"))
    # What all conversations begin with, such as a system prompt, is computed once for a micro-batch: the same result.
    # auto: where it pays, and nothing random is drawn for each token.
    share_prefix: str = key("auto", choices=("auto", "never"), identity=False)
    too_long: str = key("error", choices=("error", "drop", "truncate", "split"))
    # balanced: shuffled, the rows of a step cost about the same. random: shuffled. A curriculum: source,
    # shortest_first, longest_first, column:NAME (lowest first), column:-NAME, an entry point or MODULE:FUNCTION.
    order: str = "balanced"
    on_bad_row: str = key("error", choices=("error", "skip"))
    # Processes that prepare it; null: one, or for large sets one for each processor.
    processes: int | None = key(None, minimum=1, identity=False)
    # Where prepared data is kept; null: <run_root>/.cache.
    cache: str | None = key(None, identity=False)
    size: DataSizeConfig = section(DataSizeConfig, identity=False)
    # What this data is scored by unless evaluation.tasks says otherwise.
    tasks: list[str] = key(["loss"], identity=False)


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, how fast, and how often something is written down.

    ``save_every`` and ``eval_every`` take a number of steps, ``epoch`` or ``never``.
    """

    # null: as many as schedule.max_steps takes.
    epochs: int | None = key(3, minimum=0)
    # Stop after so many steps, however many epochs that is; null: no such limit.
    max_steps: int | None = key(None, minimum=1)
    learning_rate: float = key(2e-5, above=0)
    # Rows in each optimizer step, over all devices and accumulation.
    global_batch_size: int = key(8, minimum=1)
    name: str = key("cosine", choices=("cosine", "cosine_with_min_lr", "linear", "constant", "wsd"))
    # Below 1 a share of all steps, else a number of steps.
    warmup: float = key(0.03, minimum=0)
    # Where cosine_with_min_lr ends, as a share of the learning rate.
    min_lr_ratio: float = key(0.1, minimum=0, maximum=1)
    # The last part of wsd, in which the rate falls to zero, and how: a share of all steps or a number, as warmup.
    decay: float = key(0.1, above=0)
    decay_shape: str = key("1-sqrt", choices=("linear", "cosine", "1-sqrt"))
    log_every: int = key(10, minimum=1, identity=False)
    save_every: int | str = key("epoch", choices=("epoch", "never"), minimum=1, identity=False)
    eval_every: int | str = key("epoch", choices=("epoch", "never"), minimum=1, identity=False)
    # The newest so many; the newest and the best stay in any case.
    keep_checkpoints: int = key(2, minimum=1, identity=False)
    # model/ gets the weights of the checkpoint where this was lowest; null: those of the last step.
    best_metric: str | None = key(None, choices=("eval_loss",))
    # epoch: a copy of the weights after each epoch, which no limit removes.
    save_weights: str = key("never", choices=("never", "epoch"), identity=False)
    # [a, b]: record steps a to b with PyTorch's profiler, into profile/; []: none.
    profile_steps: list[int] = key([], identity=False)


@dataclass(frozen=True)
class TrackingConfig:
    """Where metrics go besides metrics.jsonl."""

    # An MLflow address: sqlite:///FILE, or http://HOST:PORT of a server.
    uri: str = "sqlite:///mlflow.db"
    # null: the run's name.
    experiment: str | None = None
    # Send nothing while running; `python -m ftx.report --sync` sends it later.
    offline: bool = False
    # What the machine is doing as well: processor, memory, GPU.
    system_metrics: bool = True
    # Trackers besides MLflow, which is fed always: tensorboard, wandb (the extra `trackers`).
    also: list[str] = key([])
    # Whether W&B sends while the run is at work, or only writes what `wandb sync` sends; null: as WANDB_MODE says, else
    # offline.
    wandb_mode: str | None = key(None, choices=("offline", "online"))


@dataclass(frozen=True)
class SearchConfig:
    """How many settings a sweep draws for the keys that were given an interval, and which.

    They are the first so many points of one sequence: more of them are the same ones and some further.
    """

    runs: int = key(8, minimum=1, maximum=4096)
    # Another one draws others.
    seed: int = key(0, minimum=0)


@dataclass(frozen=True)
class PublishedResult:
    """One number that somebody reports for one setting of an experiment."""

    # As scores.json has it: TASK.METRIC.
    metric: str = ""
    # A share of 1 where it is one.
    value: float = 0.0
    # How many items it is a share of; null where nobody says, or it is no share of items.
    n: int | None = key(None, minimum=1)
    # The setting: a value for each key that tells the published settings apart.
    arm: dict[str, Any] = key({})


@dataclass(frozen=True)
class ExpectedConfig:
    """What others have published of an experiment; nothing but the report reads it."""

    # Who says so, and where.
    source: str | None = None
    # Each a PublishedResult.
    results: list[Any] = key([])


@dataclass(frozen=True)
class RunConfig:
    """One run, complete and checked."""

    name: str = key("", identity=False)
    run_root: str = key("runs", identity=False)
    seed: int = key(42, minimum=0)
    # Start over: an existing folder is moved aside first.
    fresh: bool = key(False, identity=False)
    # What would come from the hub is made up on the spot, small, and computed on this CPU; debug=tiny asks for it.
    stand_ins: bool = False
    model: ModelConfig = section(ModelConfig)
    method: MethodConfig = section(MethodConfig)
    data: DataConfig = section(DataConfig)
    hardware: HardwareConfig = section(HardwareConfig)
    schedule: ScheduleConfig = section(ScheduleConfig)
    evaluation: EvaluationConfig = section(EvaluationConfig, identity=False)
    tracking: TrackingConfig = section(TrackingConfig, identity=False)
    export: ExportConfig = section(ExportConfig, identity=False)
    launcher: LauncherConfig = section(LauncherConfig, identity=False)
    search: SearchConfig = section(SearchConfig, identity=False)
    expected: ExpectedConfig = section(ExpectedConfig, identity=False)
