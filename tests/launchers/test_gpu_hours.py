"""What jobs will take, against numbers that were worked out by hand."""

import subprocess
import sys
from dataclasses import replace

import pytest
from run_records import write_run

from ftx.config.compose import compose, compose_all
from ftx.config.launcher_schema import LauncherConfig
from ftx.errors import UserError
from ftx.run_folder import RunFolder
from launchers.cost import Cost, check_cost, estimate

# Two nodes of eight GPUs, a step of 32 rows.
WORDS = (
    *("launcher=slurm", "model=qwen3_4b", "data=jsonl", "data.path=chats.jsonl", "hardware=8xH100", "hardware.nodes=2"),
    *("schedule.global_batch_size=32", "launcher.time_min=90"),
)


def row(step, epoch, tokens, tps):
    return {"step": step, "epoch": epoch, "train_loss": 1.0, "total_tokens": tokens, "per_device_tps": tps}


def earlier(path, name, rows, *words):
    return write_run(RunFolder(path / f"{name}-00000000"), compose(*WORDS, f"name={name}", *words), rows)


def runs(*words):
    return [one.run for one in compose_all([*WORDS, *words], multirun=True).runs]


@pytest.fixture
def measured(tmp_path):
    """An epoch of 5.76e7 tokens in 500 steps of 32 rows, so 3,600 tokens a row; medians of 900, 1,000 and 1,100 TPS."""
    for name, speed in (("one", 900), ("two", 1000), ("three", 1100)):
        speeds = [10.0, speed, speed, speed + 50, speed - 50]
        rows = [row(100 * at, 0.2 * at, 1.152e7 * at, tps) for at, tps in enumerate(speeds, start=1)]
        rows.append({"step": 500, "epoch": 1.0, "eval_loss": 1.5})
        earlier(tmp_path, name, rows)
    return tmp_path


def test_by_earlier_runs(measured):
    """3 epochs × 5.76e7 tokens ÷ (1,000 tokens/s × 16 GPUs) = 10,800 s = 3 h; 8 runs × 16 GPUs × 3 h = 384."""
    cost = estimate(runs("seed=range(0,8)", "schedule.epochs=3"), measured)
    assert cost == Cost(
        "8 runs × 2 nodes × 8 GPUs × 3 h = 384 GPU-hours (of training, by tokens/s of 3 earlier runs)", 384.0, False
    )


def test_runs_of_different_lengths(measured):
    """0, 1, 2 and 3 epochs of an hour each: 1.5 h on average, 6 h × 16 GPUs."""
    cost = estimate(runs("schedule.epochs=0,1,2,3"), measured)
    assert cost.text.startswith("4 runs × 2 nodes × 8 GPUs × 1.5 h on average = 96 GPU-hours (")
    assert cost.gpu_hours == pytest.approx(96)


@pytest.mark.parametrize(
    ("words", "hours"),
    [
        # 250 steps of 32 rows are half an epoch.
        (["schedule.max_steps=250", "schedule.epochs=3"], 0.5),
        (["schedule.max_steps=250", "schedule.epochs=null"], 0.5),
        # More than the epochs have.
        (["schedule.max_steps=5000", "schedule.epochs=2"], 2.0),
        # Rows of twice the number take twice as long; half the devices take twice as long.
        (["schedule.max_steps=250", "schedule.global_batch_size=64"], 1.0),
        (["hardware.nodes=1", "schedule.epochs=1"], 2.0),
    ],
)
def test_steps_and_devices(measured, words, hours):
    (run,) = runs(*words)
    cost = estimate([run], measured)
    assert cost.gpu_hours == pytest.approx(hours * 8 * run.hardware.nodes)
    assert cost.text.startswith("1 run × ")


@pytest.mark.parametrize(
    "word",
    [
        "hardware.precision=fp16",
        "hardware.gpu=B200",
        "method=lora",
        "data.max_length=2048",
        "data.path=others.jsonl",
        "data.limit=100",
        "data.packing=false",
        "model.name=a/b",
    ],
)
def test_a_run_of_another_kind_tells_nothing(measured, word):
    assert estimate(runs(word, "schedule.epochs=3"), measured).text.startswith("at most ")


@pytest.mark.parametrize("word", ["data.order=random", "seed=7", "schedule.learning_rate=1e-4", "name=other"])
def test_what_makes_no_other_kind(measured, word):
    assert estimate(runs(word, "schedule.epochs=3"), measured).gpu_hours == pytest.approx(48)


def test_by_the_time_limit(tmp_path):
    """Nothing is known: 8 × 16 × 1.5 h a start. Folders that are empty or cannot be read say nothing either."""
    expected = (
        "at most 8 runs × 2 nodes × 8 GPUs × 1.5 h = 192 GPU-hours a start (by launcher.time_min=90; no earlier run of "
        "this kind to go by; a job that reaches its limit starts again)"
    )
    eight = runs("seed=range(0,8)")
    assert estimate(eight, tmp_path / "none") == Cost(expected, 192.0, True)
    earlier(tmp_path, "without", [{"step": 0, "epoch": 0.0, "eval_loss": 2.0}])
    (earlier(tmp_path, "broken", [row(1, 1.0, 1, 1)]).path / "run.yaml").write_text("a: [")
    (earlier(tmp_path, "edited", [row(1, 1.0, 1, 1)]).path / "run.yaml").write_text("schedule: 3")
    (earlier(tmp_path, "nobody", [row(1, 1.0, 1, 1)]).path / "run.yaml").unlink()
    assert estimate(eight, tmp_path) == Cost(expected, 192.0, True)


def test_nobody_knows(tmp_path):
    cost = estimate(runs("seed=1,2", "launcher.time_min=null"), tmp_path)
    why = "(launcher.time_min=null, and no earlier run of this kind to go by)"
    assert cost == Cost(f"2 runs × 2 nodes × 8 GPUs: GPU-hours unknown {why}", None, False)


def test_shapes_are_summed(measured):
    """48 measured GPU-hours, as many on half the devices, 2 × 1 × 8 × 1.5 = 24 by the limit."""
    one_node = runs("schedule.epochs=3", "hardware.nodes=1")
    cost = estimate(
        [*runs("schedule.epochs=3"), *one_node, *runs("method=lora", "hardware.nodes=1", "seed=1,2")], measured
    )
    lines = cost.text.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "1 run × 2 nodes × 8 GPUs × 3 h = 48 GPU-hours",
        "1 run × 1 node × 8 GPUs × 6 h = 48 GPU-hours",
        "at most 2 runs × 1 node × 8 GPUs × 1.5 h = 24 GPU-hours a start",
        "together at most 120 GPU-hours",
    ]
    assert (cost.gpu_hours, cost.at_most) == (pytest.approx(120), True)
    unknown = estimate([*runs("schedule.epochs=3"), *runs("method=lora", "launcher.time_min=null")], measured)
    assert unknown.gpu_hours is None


def test_machines_without_gpus(tmp_path):
    """Two runs on three nodes for a quarter of an hour; nobody is asked."""
    words = ("hardware=cpu", "hardware.nodes=3", "schedule.global_batch_size=6", "launcher.time_min=15")
    composed = [one.run for one in compose_all(["launcher=slurm", *words, "seed=1,2"], multirun=True).runs]
    cost = estimate(composed, tmp_path)
    assert cost.text.startswith("at most 2 runs × 3 nodes × 0.25 h = 1.5 node-hours a start")
    assert cost.gpu_hours == 0
    check_cost(cost, replace(composed[0].launcher, max_gpu_hours=0.0))
    forever = estimate([replace(run, launcher=replace(run.launcher, time_min=None)) for run in composed], tmp_path)
    assert "node-hours unknown" in forever.text
    check_cost(forever, composed[0].launcher)


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (Cost("", 100.5, False), "launcher.max_gpu_hours=100: this takes 100.5 GPU-hours; say launcher.yes=true"),
        (Cost("", 1234.5, True), "launcher.max_gpu_hours=100: this takes up to 1,234 GPU-hours; say launcher.yes=true"),
        (Cost("", None, False), "say launcher.time_min=MINUTES, or launcher.yes=true"),
    ],
)
def test_who_has_to_say_yes(cost, words):
    with pytest.raises(UserError) as mistake:
        check_cost(cost, LauncherConfig())
    assert words in str(mistake.value) and len(str(mistake.value).splitlines()) == 1
    check_cost(cost, LauncherConfig(yes=True))


def test_below_the_limit_nobody_is_asked():
    check_cost(Cost("", 100.0, True), LauncherConfig())
    with pytest.raises(UserError):
        check_cost(Cost("", 100.0, True), LauncherConfig(max_gpu_hours=99.9))


def test_without_torch():
    code = "import launchers.cost, sys; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
