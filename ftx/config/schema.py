"""The schema of a run: every key, its type, its default and what it may be.

yaml files under conf/ and experiments/ choose among these; a key that is not here does not exist. Metadata on a field
says which values are allowed and whether the key changes a run's result (and so belongs to its identity).
"""

from dataclasses import dataclass
from typing import Any

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.config.schema_keys import FORMATS, key, section

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ArchitectureConfig:
    """A model's dimensions: what a random model is built from."""

    family: str = key("qwen3", choices=("qwen3",))
    vocabulary_size: int = key(8192, minimum=300)
    hidden_size: int = key(192, minimum=1)
    intermediate_size: int = key(384, minimum=1)
    layers: int = key(1, minimum=1)
    heads: int = key(4, minimum=1)
    key_value_heads: int = key(2, minimum=1)
    head_dim: int = key(48, minimum=2)
    tied_embeddings: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """Which weights a run starts from."""

    weights: str = key("pretrained", choices=("pretrained", "random"))
    # A hub name (owner/model) or a folder in Hugging Face layout.
    name: str | None = None
    revision: str = "main"
    # An adapter's folder, put on the weights: such a model is only scored. Identity follows its content.
    adapter: str | None = key(None, identity=False)
    # auto: the tokenizer's own template when it has generation marks, else that of the model's family.
    template: str = "auto"
    # What schedule.learning_rate and schedule.global_batch_size are unless a run says otherwise.
    suggested_learning_rate: float = key(2e-5, above=0, identity=False)
    suggested_global_batch_size: int = key(8, minimum=1, identity=False)
    # auto: flash-attn on a GPU where it is installed, else PyTorch's own FlashAttention (varlen); cpu on a CPU.
    attention: str = key("auto", choices=("auto", "flash", "varlen", "cpu"), identity=False)
    # torch.compile of the decoder layers; auto: where the training is long enough to earn the compiling back.
    compile: str = key("auto", choices=("auto", "always", "never"), identity=False)
    # Liger's Triton kernels for norms, rotary embedding and MLP; auto: where there is a GPU and they are installed.
    kernels: str = key("auto", choices=("auto", "liger", "none"), identity=False)
    # auto: without ever holding all logits where they are large, by Liger's kernel on a GPU where that is installed.
    loss: str = key("auto", choices=("auto", "plain", "chunked", "liger"), identity=False)
    architecture: ArchitectureConfig = section(ArchitectureConfig)


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
    # What this data is scored by unless evaluation.tasks says otherwise.
    tasks: list[str] = key(["loss"], identity=False)


@dataclass(frozen=True)
class HardwareConfig:
    """What a run is computed on. Only the precision changes its result."""

    device: str = key("cpu", choices=("cpu", "cuda"), identity=False)
    # What the devices are called, for messages and reports.
    gpu: str | None = key(None, identity=False)
    nodes: int = key(1, minimum=1, identity=False)
    gpus_per_node: int = key(0, minimum=0, identity=False)
    processes_per_node: int = key(1, minimum=1, identity=False)
    # How several processes share the work: auto is zero2. ddp keeps everything whole in each of them, zero1 shares out
    # the optimizer's state, zero2 the gradients too, zero3 and fsdp (PyTorch's own) the weights too.
    strategy: str = key("auto", choices=("auto", "ddp", "zero1", "zero2", "zero3", "fsdp"), identity=False)
    precision: str = key("fp32", choices=("fp32", "bf16", "fp16"))
    # Rows that one device takes through the model at once.
    micro_batch: int = key(1, minimum=1, identity=False)
    # CPU threads of one process; null: all cores, shared among the runs that work side by side.
    threads: int | None = key(None, minimum=1, identity=False)
    # Keep only the inputs of each layer and compute the rest again in the backward pass: less memory, a third slower.
    activation_checkpointing: bool = key(False, identity=False)
    # Those inputs wait in the host's memory.
    activation_offload: bool = key(False, identity=False)
    # Multiply 32-bit matrices with 10 bits of mantissa on a GPU's tensor cores.
    tf32: bool = key(True, identity=False)
    # Let cuDNN try its convolutions and keep the fastest; models without convolutions gain nothing.
    cudnn_benchmark: bool = key(False, identity=False)
    # What one device computes at most in this precision, in 10¹² FLOP/s, for mfu; null: as known for its name.
    peak_tflops: float | None = key(None, above=0, identity=False)


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


@dataclass(frozen=True)
class ContainerConfig:
    """What the processes of a SLURM job run in; the code, the runs and the data have to be seen inside."""

    # pyxis: srun's own option for enroot images. apptainer: each process is started through it.
    kind: str = key("none", choices=("none", "pyxis", "apptainer"))
    image: str | None = None
    # As the container program writes them, for example /data:/data:ro.
    mounts: list[str] = key([])
    # The Python inside.
    python: str = "python3"


@dataclass(frozen=True)
class LauncherConfig:
    """How jobs are started. All but the first keys are read by launcher=slurm only."""

    name: str = key("local", choices=("local", "slurm"))
    # How many runs of a sweep may work side by side.
    parallel: int = key(1, minimum=1)
    # Print what would be submitted, and submit nothing.
    dry_run: bool = False
    # Submit although the sweep may take more GPU-hours than launcher.max_gpu_hours.
    yes: bool = False
    max_gpu_hours: float = key(100.0, minimum=0)
    # Minutes until SLURM ends a job, which goes on in the next one; null: the partition's own limit.
    time_min: int | None = key(60, minimum=1)
    # Seconds before the time limit at which a checkpoint is written: SLURM looks at its clock every 30 to 60 seconds.
    warning_s: int = key(180, minimum=10, maximum=65535)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    # Of one node, as SLURM writes it: 64G; 0 is all of it.
    memory: str | None = None
    cpus_per_task: int | None = key(None, minimum=1)
    constraint: str | None = None
    # A whole node for each job, whatever it asks for.
    exclusive: bool = False
    container: ContainerConfig = section(ContainerConfig)
    # Shell lines before anything else of a job: module load …, export …
    setup: list[str] = key([])
    # Further options by name: {reservation: maintenance, nice: 100}; true is an option without a value.
    sbatch: dict[str, Any] = key({})
    srun: dict[str, Any] = key({})
    # How often a run that crashed is started again; a mistake of yours never is.
    retries: int = key(1, minimum=0)
    # How often a job may begin again in all: after its time limit, a preemption, a dead node, a crash.
    restarts: int = key(50, minimum=0)
    # Minutes without any progress of a rank until the job is taken for stuck, ended and started again; null: never.
    watchdog_min: float | None = key(30.0, above=0)


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
    model: ModelConfig = section(ModelConfig)
    method: MethodConfig = section(MethodConfig)
    data: DataConfig = section(DataConfig)
    hardware: HardwareConfig = section(HardwareConfig)
    schedule: ScheduleConfig = section(ScheduleConfig)
    evaluation: EvaluationConfig = section(EvaluationConfig, identity=False)
    tracking: TrackingConfig = section(TrackingConfig, identity=False)
    launcher: LauncherConfig = section(LauncherConfig, identity=False)
    expected: ExpectedConfig = section(ExpectedConfig, identity=False)
