"""``python -m ftx.plan``: what it prints, against published figures, and whether its advice works."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from small_run import composed, write_chats

from ftx.config.compose import compose, compose_all
from ftx.errors import UserError
from ftx.micro_batch import settle
from ftx.planning.advice import largest_micro_batch
from ftx.planning.memory import GIB, capacity_of, memory_of
from ftx.planning.model_facts import architecture_of
from ftx.planning.report import plan_of
from ftx.planning.text import describe

GB = 10**9


def plan(*words: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-X", "importtime", "-m", "ftx.plan", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_the_numbers_come_as_text_and_as_json_without_torch():
    words = ("experiment=jupyter_agent",)
    text, values = plan(*words), json.loads(plan(*words, "--json").stdout)
    assert text.returncode == 0
    assert " torch\n" not in text.stderr
    assert " transformers\n" not in text.stderr
    assert values["parameters"] == values["trained"] == 4_022_468_096
    parts = [values["memory"][name] for name in ("weights", "gradients", "optimizer", "activations", "logits")]
    assert values["memory"]["total"] == pytest.approx(
        sum(parts) + sum(values["memory"][name] for name in ("working", "buffers", "reserve"))
    )
    assert "4,022,468,096, all trained" in text.stdout
    assert f"{values['memory']['total'] / GIB:,.2f} GiB" in text.stdout
    assert values["fits"] is True
    # 98 % of 51,389 conversations, eight a step.
    assert values["work"]["steps"] == 6296


def test_a_sweep_is_summed_up():
    found = plan("experiment=jupyter_agent_epochs")
    assert found.returncode == 0
    each = [json.loads(plan("experiment=jupyter_agent", f"schedule.epochs={n}", "--json").stdout) for n in (2, 3, 5, 7)]
    assert f"together: {sum(one['gpu_hours'] for one in each):,.1f} GPU-hours" in found.stdout


def published(experiment: str, *words: str) -> tuple[float, float]:
    """(as the originals compute, ours), in bytes; without the reserve, which their tables do not have."""
    run = compose(f"experiment={experiment}", *words)
    both = (memory_of(run, run.model.architecture, as_published=flag) for flag in (True, False))
    theirs, ours = (memory.total - memory.reserve for memory in both)
    return theirs, ours


def test_published_memory():
    """AG News: 70 to 80 GB. DeepSeek: 8 to 9 GB, of which 2 for an optimizer that 18 million adapters do not need."""
    theirs, ours = published("ag_news", "hardware.micro_batch=8")
    assert 59 * GB <= theirs <= 92 * GB
    assert ours < theirs
    theirs, ours = published("deepseek_r1_math_science", "hardware.micro_batch=2")
    assert 0.8 * 8 * GB <= theirs <= 1.2 * 9 * GB
    assert ours < 4 * GB
    run = compose("experiment=deepseek_r1_math_science", "hardware.micro_batch=2")
    parts = memory_of(run, run.model.architecture, as_published=True)
    assert parts.weights == pytest.approx(1.5 * GB, rel=0.2)
    assert parts.optimizer < 0.05 * GB
    assert parts.logits > 5 * GB, "what the original's table has as activations and batch"


@pytest.mark.parametrize(
    "words",
    [
        ("experiment=glaive_function_calling", "hardware=1xRTX4070Ti", "hardware.micro_batch=1"),
        ("experiment=tulu3_8b", "hardware=8x8xH100", "hardware.strategy=zero2"),
        ("experiment=jupyter_agent", "hardware=8xH100"),
        ("experiment=olmo2_32b",),
    ],
)
def test_it_fits_where_it_ran(words):
    run = compose(*words)
    assert memory_of(run, run.model.architecture).total <= capacity_of(run)


def test_auto_is_the_largest_micro_batch_that_fits():
    words = ("experiment=glaive_function_calling", "hardware.micro_batch=auto")
    run = settle(compose(*words))
    rows = run.hardware.micro_batch
    assert rows == largest_micro_batch(run, architecture_of(run)) > 1
    larger = compose("experiment=glaive_function_calling", f"hardware.micro_batch={2 * rows}")
    assert memory_of(larger, larger.model.architecture).total > capacity_of(larger)
    assert run.schedule.global_batch_size % rows == 0


def test_auto_says_where_nothing_fits():
    run = compose("model=qwen2_5_7b", "data=ag_news", "hardware=1xRTX4070Ti", "hardware.micro_batch=auto")
    with pytest.raises(UserError, match="not even one row"):
        settle(run)


def test_a_model_in_a_folder_is_planned_by_its_own_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    found = plan("model=hub", f"model.name={tmp_path}", "model.template=chatml")
    assert found.returncode == 2
    assert "gpt2" in found.stderr.splitlines()[-1]


def test_mistakes_in_flags():
    assert plan("--mfu", "40").returncode == 2
    assert plan("--mfu=0.2", "experiment=tulu3_8b").returncode == 0
    assert plan("modle=tiny").returncode == 2


def test_what_was_prepared_is_counted_exactly(prepared_small_run):
    run, counts = prepared_small_run
    found = plan_of(run)
    assert (found.data.rows, found.data.tokens, found.data.source) == (
        counts.train_rows,
        counts.train_tokens,
        "as prepared",
    )
    assert compose_all(["data=ag_news"]).runs[0].run.data.size.conversations == 120_000


@pytest.fixture
def prepared_small_run(tmp_path: Path):
    from ftx.data.prepare import prepare

    run = composed(write_chats(tmp_path / "chats.jsonl"))
    return run, prepare(run).counts


def test_a_word_that_names_another_model_or_other_data_gets_no_plan_of_the_choices_own():
    found = plan("model=qwen3_4b", "model.name=Qwen/Qwen3-32B")
    assert found.returncode == 2
    assert "Qwen/Qwen3-32B" in found.stderr.splitlines()[-1]
    assert compose("data=ag_news", "data.path=some/other").data.size.conversations is None


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    found = plan("model=hub", f"model.name={tmp_path}/nowhere", "model.template=chatml")
    assert found.returncode == 2
    assert "no such folder" in found.stderr


def test_targets_that_no_layer_has_are_a_mistake_as_in_training():
    assert plan("model=qwen2_5_7b", "method=lora", "method.lora.targets=[nonsense]").returncode == 2
    by_suffix, by_name = (
        plan_of(compose("model=qwen2_5_7b", "method=lora", f"method.lora.targets=[{target}]")).trained
        for target in ("self_attn.q_proj", "q_proj")
    )
    assert by_suffix == by_name == 28 * 16 * (3584 + 3584)


def test_a_packed_row_has_no_more_tokens_than_it_may():
    size = plan_of(compose("model=qwen2_5_7b", "data=ag_news", "data.max_length=16", "hardware=1xH100")).data
    assert size.tokens == 120_000 * 16
    assert size.rows == 120_000


def test_auto_and_tiny_go_together():
    assert settle(compose("experiment=ag_news", "debug=tiny", "hardware.micro_batch=auto")).hardware.micro_batch >= 1


def test_a_device_takes_no_more_rows_than_its_share():
    many = plan_of(compose("experiment=jupyter_agent", "hardware.micro_batch=16"))
    one = plan_of(compose("experiment=jupyter_agent"))
    assert (many.micro_batch, many.accumulation, many.memory) == (1, 1, one.memory)


def test_what_bounds_the_micro_batch_is_said():
    by_batch = describe(plan_of(compose("experiment=jupyter_agent")))
    assert "schedule.global_batch_size=8 allows no more than hardware.micro_batch=1" in by_batch
    by_memory = plan_of(compose("experiment=glaive_function_calling"))
    assert by_memory.largest_micro_batch == 4
    assert "; at most hardware.micro_batch=4 fits" in describe(by_memory)


def test_the_composed_run_is_shown_as_train_shows_it():
    words = ("experiment=ag_news", "method.optimizer=adamw_8bit")
    shown = plan(*words, "--cfg", "job")
    assert shown.returncode == 0
    assert OmegaConf.to_object(OmegaConf.create(shown.stdout)) == asdict(compose(*words))


def test_optimizer_and_short_weights_are_on_a_head_line():
    head = describe(plan_of(compose("experiment=ag_news", "method.optimizer=adamw_8bit"))).splitlines()[1]
    assert head.endswith("all trained by adamw_8bit, in bf16 without 32-bit weights")
    head = describe(plan_of(compose("experiment=olmo2_7b"))).splitlines()[1]
    assert head.endswith("all trained by adamw_torch_fused")
