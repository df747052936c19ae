"""The part of the schema that says what a model is scored by."""

from dataclasses import dataclass

from ftx.config.schema_keys import FORMATS, key, section


@dataclass(frozen=True)
class ClassificationConfig:
    """How evaluation.tasks=[classification] finds out what the model would answer."""

    # generation: let it write. likelihood: which of the labels' answers is the likeliest; never an invalid one.
    by: str = key("generation", choices=("generation", "likelihood"))


@dataclass(frozen=True)
class MathConfig:
    """Which problems evaluation.tasks=[math] asks, and when an answer to one is right."""

    # A file, or OWNER/NAME of a data set on the hub; null: what the run held out.
    path: str | None = None
    subset: str | None = None
    split: str = "test"
    revision: str = "main"
    format: str = key("auto", choices=("auto", *FORMATS))
    # How far off a number may be; null: whole numbers and fractions exactly, numbers with decimals within 5 %, which is
    # SciBench's published rule.
    relative_tolerance: float | None = key(None, minimum=0, maximum=1)


@dataclass(frozen=True)
class FunctionCallingConfig:
    """What evaluation.tasks=[function_calling] asks, and how the model is told of the functions."""

    # A folder with the Berkeley board's questions and possible answers; null: the held-out turns with tools.
    path: str | None = None
    # native: as tools of the chat template. glaive: in the system's text, as Glaive's data has them. auto: native where
    # the template knows tools.
    form: str = key("auto", choices=("auto", "native", "glaive"))


@dataclass(frozen=True)
class LmEvalConfig:
    """What evaluation.tasks=[lm_eval] has EleutherAI's lm-evaluation-harness run."""

    # The harness's names of tasks and groups of tasks.
    tasks: list[str] = key([])
    # A folder with tasks of your own.
    include_path: str | None = None
    # Examples before each question; null: as many as the task says.
    fewshot: int | None = key(None, minimum=0)
    # Ask through the chat template; false: as plain text, for base models.
    chat: bool = True


@dataclass(frozen=True)
class DataAgentConfig:
    """Of the task data_agent: which questions about tables, and how long a model may work on each."""

    benchmark: str = key("dabstep", choices=("dabstep", "dabench"))
    # A folder with the benchmark's files; null: fetched from the hub, which only DABStep can be.
    path: str | None = None
    # Of DABStep: the answers of test are withheld, so that it ends as a file for the leaderboard.
    split: str = key("dev", choices=("dev", "test"))
    # How often each question is asked, each time with another seed.
    samples: int = key(1, minimum=1)
    max_turns: int = key(25, minimum=1)
    # How often in all a model that calls no tool is reminded to.
    retries: int = key(5, minimum=0)
    # Notebooks at work at once; each has the limits of evaluation.sandbox to itself.
    parallel: int = key(16, minimum=1)


@dataclass(frozen=True)
class SandboxConfig:
    """What code that a model wrote may take, of one notebook."""

    # Of all its processes together.
    cpu_seconds: int = key(600, minimum=1)
    # Of one cell.
    wall_seconds: float = key(120.0, above=0)
    # Of all its processes together, files aside.
    memory_gib: float = key(4.0, above=0)
    # Processes and threads.
    processes: int = key(128, minimum=1)
    # The largest file, and all files together; they are kept in memory.
    file_mib: int = key(256, minimum=1)
    disk_mib: int = key(1024, minimum=1)


@dataclass(frozen=True)
class EvaluationConfig:
    """What a model is scored by."""

    tasks: list[str] = key(["loss"])
    # At most so many items of each task; null: all.
    limit: int | None = key(None, minimum=1)
    # Who answers: the loaded model in batches, or with continuous batching; vLLM; a server that speaks OpenAI's API.
    engine: str = key("transformers", choices=("transformers", "continuous", "vllm", "openai"))
    # Of the server, up to and with /v1; and what it calls the model, null: the only one it has.
    url: str | None = None
    served_model: str | None = None
    # Questions that are answered at once.
    batch_size: int = key(64, minimum=1)
    # 0: always the likeliest token.
    temperature: float = key(0.0, minimum=0)
    # Above temperature 0: only the fewest tokens that together have this probability.
    top_p: float = key(1.0, above=0, maximum=1)
    # The most that an answer may have; null: what the task says.
    max_new_tokens: int | None = key(None, minimum=1)
    # The hardware choice that a trained run is scored on, by a job of its own with one process. null: where it was
    # trained, but an agent on a cluster on one device of that. own: where it was trained.
    hardware: str | None = None
    classification: ClassificationConfig = section(ClassificationConfig)
    math: MathConfig = section(MathConfig)
    function_calling: FunctionCallingConfig = section(FunctionCallingConfig)
    lm_eval: LmEvalConfig = section(LmEvalConfig)
    # notebook: the model works with tools. none: it sees the question and answers in text.
    scaffold: str = key("notebook", choices=("notebook", "none"))
    # Run code that a model wrote as this user, with limits but without a sandbox, where there is no bubblewrap.
    unsafe_local: bool = False
    data_agent: DataAgentConfig = section(DataAgentConfig)
    sandbox: SandboxConfig = section(SandboxConfig)
