"""The published experiments: their settings, and each of them run through with debug=tiny."""

import json
import re
from dataclasses import replace

import pytest
from verb_process import start

from ftx.config.checks import check_run
from ftx.config.compose import Composition, compose_all
from ftx.config.identity import identity_keys
from ftx.config.keys import flat
from ftx.config.parallel import ranks, strategy_of
from ftx.config.schema import RunConfig
from ftx.config.stored import run_from_yaml
from ftx.data.made_up import MAKERS
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.published import published_of
from ftx.run_folder import RunFolder

EXPERIMENTS = sorted(file.stem for file in (CHECKOUT / "experiments").glob("*.yaml"))

OPEN_INSTRUCT = {
    "method.name": "full",
    "method.optimizer": "adamw_torch_fused",
    "method.weight_decay": 0.0,
    "method.master_weights": "fp32",
    "data.max_length": 4096,
    "data.too_long": "truncate",
    "data.holdout": 0,
    "data.limit": None,
    "data.packing_scope": "global_batch",
    "hardware.nodes": 8,
    "hardware.gpus_per_node": 8,
    "hardware.precision": "bf16",
    "hardware.micro_batch": 1,
    "schedule.name": "linear",
    "schedule.warmup": 0.03,
    "schedule.epochs": 2,
    "schedule.log_every": 1,
    "seed": 8,
}
JUPYTER_AGENT = {
    "model.name": "Qwen/Qwen3-4B-Instruct-2507",
    "model.template": "qwen3_instruct_2507",
    "model.attention": "auto",
    "model.kernels": "auto",
    "method.name": "full",
    "method.neftune_alpha": 7,
    "data.path": "jupyter-agent/jupyter-agent-dataset",
    "data.split": "non_thinking",
    "data.format": "jupyter_agent",
    "data.holdout": 0.02,
    "data.max_length": 32768,
    "data.packing_scope": "global_batch",
    "hardware.nodes": 1,
    "hardware.gpus_per_node": 8,
    "hardware.strategy": "zero2",
    "hardware.precision": "bf16",
    "hardware.micro_batch": 1,
    "hardware.activation_checkpointing": True,
    "hardware.activation_offload": False,
    "schedule.learning_rate": 5e-6,
    "schedule.name": "cosine_with_min_lr",
    "schedule.min_lr_ratio": 0.1,
    "schedule.warmup": 0.03,
    "schedule.global_batch_size": 8,
    "schedule.save_every": "epoch",
    "schedule.keep_checkpoints": 10,
    "schedule.eval_every": 100,
    "schedule.log_every": 1,
    "seed": 42,
    "evaluation.tasks": ["data_agent"],
    "evaluation.data_agent.benchmark": "dabstep",
    "launcher.time_min": 720,
    "launcher.exclusive": True,
}
AG_NEWS = {
    "hardware.micro_batch": 8,
    "model.name": "Qwen/Qwen2.5-7B-Instruct",
    "model.template": "qwen2_5",
    "method.name": "full",
    "method.master_weights": "none",
    "data.path": "fancyzhx/ag_news",
    "data.holdout_split": "test",
    "data.format": "ag_news",
    "data.max_length": 512,
    "data.packing": True,
    "hardware.gpu": "NVIDIA GB10",
    "hardware.gpus_per_node": 1,
    "hardware.unified_memory": True,
    "hardware.precision": "bf16",
    "hardware.activation_checkpointing": True,
    "hardware.cudnn_benchmark": True,
    "schedule.learning_rate": 2e-5,
    "schedule.global_batch_size": 32,
    "evaluation.tasks": ["classification"],
}
GLAIVE = {
    "hardware.micro_batch": 2,
    "model.name": "nvidia/Llama-3.1-Nemotron-Nano-4B-v1.1",
    "model.architecture.family": "llama",
    "method.name": "qlora",
    "method.lora.rank": 16,
    "method.lora.alpha": 32,
    "method.lora.dropout": 0.05,
    "method.lora.targets": ["all-linear"],
    "method.optimizer": "adamw_8bit",
    "data.path": "glaiveai/glaive-function-calling-v2",
    "data.format": "glaive_v2",
    "data.packing": True,
    "hardware.gpus_per_node": 1,
    "hardware.memory_gib": 11.7,
    "hardware.activation_checkpointing": True,
    "schedule.learning_rate": 2e-4,
    "schedule.warmup": 0.03,
    "schedule.global_batch_size": 8,
    "schedule.epochs": 3,
    "schedule.log_every": 10,
    "evaluation.tasks": ["function_calling", "loss"],
    "export.merge": True,
    "export.gguf": True,
    "export.quantization": ["f16", "q8_0", "q5_k_m", "q4_k_m"],
}


def olmo2(name: str, learning_rate: float, batch: int, strategy: str, checkpointing: bool) -> dict:
    return {
        **OPEN_INSTRUCT,
        "model.name": name,
        "model.template": "olmo2",
        "data.path": "allenai/tulu-3-sft-olmo-2-mixture-0225",
        "schedule.learning_rate": learning_rate,
        "schedule.global_batch_size": batch,
        "hardware.strategy": strategy,
        "hardware.activation_checkpointing": checkpointing,
    }


# What the projects' own recipes say, key by key, of the first run of each experiment.
RECIPES = {
    "jupyter_agent": {**JUPYTER_AGENT, "schedule.epochs": 1},
    "jupyter_agent_epochs": {**JUPYTER_AGENT, "schedule.epochs": 0},
    "deepseek_r1_math_science": {
        "hardware.micro_batch": 2,
        "tracking.also": ["tensorboard"],
        "model.name": "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "model.template": "deepseek_r1_distill_qwen",
        "method.name": "qlora",
        "method.lora.rank": 16,
        "method.lora.alpha": 32,
        "method.lora.targets": ["all-linear"],
        "method.optimizer": "paged_adamw_8bit",
        "data.sources.math.path": "MathLLMs/MathCodeInstruct",
        "data.sources.math.rows": 15000,
        "data.sources.science.path": "xw27/scibench",
        "data.sources.science.rows": 10000,
        "data.thinking": "keep",
        "data.holdout": 0.1,
        "data.max_length": 2048,
        "hardware.gpus_per_node": 1,
        "hardware.precision": "bf16",
        "hardware.activation_checkpointing": True,
        "schedule.learning_rate": 2e-4,
        "schedule.epochs": 3,
        "schedule.global_batch_size": 16,
        "schedule.best_metric": "eval_loss",
        "schedule.keep_checkpoints": 3,
        "evaluation.tasks": ["math", "loss"],
        "export.merge": True,
    },
    "ag_news": {**AG_NEWS, "schedule.epochs": 1},
    "ag_news_epochs": {**AG_NEWS, "schedule.epochs": 0},
    "glaive_function_calling": {**GLAIVE, "data.limit": None},
    "glaive_function_calling_debug": {**GLAIVE, "data.limit": 1000},
    "tulu3_8b": {
        **OPEN_INSTRUCT,
        "model.name": "meta-llama/Llama-3.1-8B",
        "model.template": "tulu",
        "data.path": "allenai/tulu-3-sft-mixture",
        "schedule.learning_rate": 5e-6,
        "schedule.global_batch_size": 128,
        "hardware.strategy": "zero2",
        "hardware.activation_checkpointing": True,
    },
    "tulu3_8b_debug": {
        "model.name": "Qwen/Qwen3-0.6B",
        "model.template": "tulu",
        "data.path": "allenai/tulu-3-sft-personas-algebra",
        "data.limit": 100,
        "data.max_length": 1024,
        "hardware.gpus_per_node": 1,
        "hardware.precision": "bf16",
        "schedule.learning_rate": 5e-6,
        "schedule.name": "linear",
        "schedule.warmup": 0.03,
        "schedule.epochs": 2,
        "schedule.global_batch_size": 4,
        "schedule.log_every": 1,
        "method.weight_decay": 0.0,
        "seed": 123,
    },
    "olmo2_7b": olmo2("allenai/OLMo-2-1124-7B", 2e-5, 128, "zero2", False),
    "olmo2_13b": olmo2("allenai/OLMo-2-1124-13B", 5e-6, 64, "zero2", True),
    "olmo2_32b": olmo2("allenai/OLMo-2-0325-32B", 4e-6, 256, "zero3", True),
}
# The accumulation that the originals state, of which ours follows.
ACCUMULATION = {
    **{"jupyter_agent": 1, "ag_news": 4, "deepseek_r1_math_science": 8, "glaive_function_calling": 4},
    **{"tulu3_8b": 2, "olmo2_7b": 2, "olmo2_13b": 1, "olmo2_32b": 4},
}
# All that debug=tiny may change; ``*`` is everything below.
MAY_DIFFER = (
    "export.quantization",
    *("stand_ins", "name", "tracking.experiment", "model.weights", "model.name", "model.architecture.*"),
    *("data.path", "data.sources.*.path", "data.sources.*.rows", "data.limit", "data.max_length"),
    *("hardware.device", "hardware.gpu", "hardware.nodes", "hardware.gpus_per_node", "hardware.processes_per_node"),
    *(
        "data.size.*",
        "hardware.micro_batch",
        "hardware.memory_gib",
        "hardware.unified_memory",
        "hardware.tflops.*",
        "hardware.bandwidth_gb_s",
    ),
    *("hardware.interconnect_gb_s", "hardware.network_gb_s", "hardware.host_memory_gib"),
    *("schedule.max_steps", "schedule.global_batch_size", "schedule.log_every", "launcher.parallel"),
    *("evaluation.limit", "evaluation.max_new_tokens", "evaluation.data_agent.*"),
)
OWN = [name for name in EXPERIMENTS if name not in RECIPES]
# A file of the user's, which debug=tiny does without.
NEEDS = {"ag_news_small": ["data.path=train.csv"]}


def composed(name: str, *words: str) -> Composition:
    return compose_all([f"experiment={name}", *words])


def values_of(run: RunConfig) -> dict:
    values = {name: value for name, value in flat(run).items() if name != "data.sources"}
    for name, source in run.data.sources.items():
        values |= flat(source, f"data.sources.{name}.")
    return values


def test_every_experiment_has_a_recipe_or_is_our_own():
    assert OWN == ["ag_news_small", "stdlib_docs_epochs", "stdlib_docs_search"]


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_of_the_recipe_is_there(name):
    run = composed(name).runs[0].run
    assert values_of(run).items() >= RECIPES[name].items()
    if name in ACCUMULATION:
        assert run.schedule.global_batch_size / ranks(run) / run.hardware.micro_batch == ACCUMULATION[name]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_where_it_is_from_and_keeps_to_its_differences(name):
    file = CHECKOUT / "experiments" / f"{name}.yaml"
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("hardware", ["1xH100", "8xH100", "8xH200", "cpu"])
def test_other_hardware_is_a_word(name, hardware):
    """Its own keys for its own hardware are in nobody's way; README says what ag_news needs besides."""
    short = RECIPES[name].get("method.master_weights") == "none" and hardware != "1xH100"
    more = ["method.master_weights=fp32"] if short else []
    more += ["schedule.global_batch_size=8"] if hardware.startswith("8x") else []
    for one in composed(name, f"hardware={hardware}", *more).runs:
        check_run(one.run)
        assert (one.run.hardware.nodes, one.run.hardware.device) == (1, "cpu" if hardware == "cpu" else "cuda")


@pytest.mark.parametrize("name", ["ag_news", "ag_news_epochs"])
@pytest.mark.parametrize("hardware", ["8xH100", "8xH200", "8x8xH100", "cpu"])
def test_hardware_that_cannot_train_short_weights_says_what_to_say(name, hardware):
    """Each way out is followed as it is written."""
    batch = ["schedule.global_batch_size=64"] if hardware == "8x8xH100" else []
    with pytest.raises(UserError, match=r"^method\.master_weights=none: ") as caught:
        composed(name, f"hardware={hardware}", *batch)
    ways = set(re.findall(r"(?:method|hardware)\.\w+=\w+", str(caught.value).split(";", 1)[1]))
    assert "method.master_weights=fp32" in ways
    for way in ways:
        assert composed(name, f"hardware={hardware}", *batch, way).runs[0].run.hardware.device


@pytest.mark.parametrize(
    ("words", "masters"),
    [
        ((), "none"),
        (("method=lora",), "fp32"),
        (("method=qlora",), "fp32"),
        (("method=full", "hardware=8xH100"), "fp32"),
        (("method=lora", "method.master_weights=none"), "none"),
    ],
)
def test_pure_bf16_goes_with_the_method_that_it_was_published_for(words, masters):
    """Adapters are few: in bf16 alone they would lose their small steps and save nothing."""
    assert composed("ag_news", *words).runs[0].run.method.master_weights == masters


def test_what_an_experiment_says_of_jobs_is_for_a_cluster():
    on_cluster = composed("jupyter_agent", "launcher=slurm", "tracking.offline=true").runs[0].run
    assert (on_cluster.launcher.time_min, on_cluster.launcher.exclusive) == (720, True)
    assert composed("jupyter_agent", "launcher=slurm", "launcher.time_min=30").runs[0].run.launcher.time_min == 30


@pytest.mark.parametrize(
    ("name", "setting", "metric", "value"),
    [
        ("jupyter_agent", "schedule.epochs=5", "data_agent.official.easy", 54 / 72),
        ("ag_news", "schedule.epochs=0", "classification.accuracy", 5976 / 7600),
        ("ag_news", "schedule.epochs=1", "classification.accuracy", 6713 / 7600),
        ("ag_news", "schedule.epochs=1", "classification.f1.Sci/Tech", 0.9004),
        ("deepseek_r1_math_science", "seed=42", "loss.eval_loss", 1.0),
    ],
)
def test_published_numbers(name, setting, metric, value):
    task, _, score = metric.partition(".")
    assert published_of(composed(name, setting).runs[0].run)[task][score]["value"] == pytest.approx(value)


def may_differ(key: str) -> bool:
    parts = key.split(".")
    for pattern in MAY_DIFFER:
        wanted = pattern.split(".")
        if pattern.endswith(".*") and key.startswith(pattern[:-1]):
            return True
        if len(parts) == len(wanted) and all(one in ("*", part) for one, part in zip(wanted, parts, strict=True)):
            return True
    return False


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_tiny_is_the_same_experiment(name):
    whole, tiny = composed(name, *NEEDS.get(name, ())), composed(name, "debug=tiny")
    assert tiny.swept == whole.swept
    for before, after in zip(whole.runs, tiny.runs, strict=True):
        was, now = values_of(before.run), values_of(after.run)
        assert was.keys() == now.keys()
        assert {key for key in was if was[key] != now[key] and not may_differ(key)} == set()
        assert after.run.model.architecture.family == before.run.model.architecture.family
        assert after.run.model.architecture.tied_embeddings == before.run.model.architecture.tied_embeddings
        if ranks(after.run) > 1:
            assert strategy_of(after.run) == strategy_of(before.run)
        assert (ranks(after.run) > 1) == (ranks(before.run) > 1 and len(whole.runs) == 1)
        assert identity_keys(after.run)["stand_ins"] is True
        if was["hardware.device"] == "cuda":
            assert after.run.schedule.global_batch_size > ranks(after.run) * after.run.hardware.micro_batch


def families_and_parameters(folder: RunFolder) -> tuple[str, int]:
    """Of a model that was trained whole, as its files say."""
    from safetensors import safe_open

    family = json.loads((folder.model / "config.json").read_text())["model_type"]
    with safe_open(folder.model / "model.safetensors", "pt") as tensors:
        return family, sum(tensors.get_tensor(name).numel() for name in tensors.keys())  # noqa: SIM118


def ended(place, name: str, *words: str) -> str:
    """``python -m ftx.train`` with the experiment; what it said."""
    here = [f"run_root={place.runs}", f"tracking.uri={place.uri}"]
    verb = start("train", f"experiment={name}", "debug=tiny", *here, *words, into=place.path / "said")
    verb.process.join(600)
    assert verb.process.exitcode == 0, verb.out.read_text() + verb.err.read_text()
    return verb.out.read_text()


@pytest.mark.long
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_runs_through_training_evaluation_and_report(name, place):
    runs = composed(name, "debug=tiny").runs
    said = ended(place, name)
    if name in RECIPES:
        assert said.startswith("debug=tiny: a small random ")
    # The sweep of one run finds it finished, and reports it.
    if len(runs) == 1:
        said = ended(place, name, "-m")
        assert "finished already" in said
    folders = sorted(place.runs.glob("*/run.yaml"))
    assert len(folders) == len(runs)
    published = False
    for file in folders:
        folder = RunFolder(file.parent)
        run = run_from_yaml(file.read_text(), file)
        assert folder.read_status().state == "finished"
        assert run.stand_ins
        if run.schedule.epochs != 0:
            rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
            steps = [row for row in rows if "train_loss" in row]
            # One epoch of what is not made up may be over before.
            assert [row["step"] for row in steps] == [1, 2, 3, 4][: len(steps) if name in OWN and steps else 4]
            assert all(0 < row["train_loss"] < 12 and row["supervised_tokens"] > 0 for row in steps)
            if run.method.name == "full" and name in RECIPES:
                family, parameters = families_and_parameters(folder)
                assert family == run.model.architecture.family
                assert 150_000 < parameters < 500_000
        scores = folder.read_scores()
        assert list(scores) == run.evaluation.tasks
        assert all(score["n"] > 0 for task in scores.values() for score in task.values())
        published |= bool(published_of(run))
    (report,) = place.runs.glob("sweeps/*/report.md")
    assert ("(published)" in report.read_text()) == published


def test_everything_that_is_learned_from_can_be_made_up():
    formats = {
        source.format
        for name in RECIPES
        for one in composed(name).runs
        for source in [*one.run.data.sources.values(), one.run.data]
    }
    assert formats - {"auto"} <= set(MAKERS)


def test_a_tiny_run_is_read_back_as_it_was_composed(tmp_path):
    run = composed("deepseek_r1_math_science", "debug=tiny").runs[0].run
    from ftx.config.stored import run_to_yaml

    assert run_from_yaml(run_to_yaml(run), tmp_path) == replace(run)
