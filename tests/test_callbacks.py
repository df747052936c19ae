"""What is measured while a run trains: its share of the peak, a profile, the machine."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from small_run import StopAt, composed, trained, write_chats

from ftx import metrics_log
from ftx.data.collate import collate
from ftx.data.order import order_of
from ftx.data.prefix import prefix_to_share
from ftx.data.prepare import prepare
from ftx.errors import Interrupted
from ftx.flops import attended_pairs, flop_rates
from ftx.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def chats(tmp_path_factory) -> Path:
    return write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl")


def marks(file: Path) -> tuple[list[str], set[str]]:
    """The steps that are marked in a Chrome trace, and the operators in it."""
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = {event["name"] for event in events if event.get("cat") == "user_annotation" and "step" in event["name"]}
    return sorted(steps), {event["name"] for event in events if event.get("cat") == "cpu_op"}


def test_a_profile_of_a_window_and_the_share_of_the_peak(chats, tmp_path):
    """mfu of each row, over the steps since the row before, across an epoch's end and with a short last step."""
    words = ("schedule.epochs=2", "schedule.global_batch_size=6", "schedule.log_every=3", "hardware.peak_tflops=0.5")
    run = composed(chats, *words, "schedule.profile_steps=[3,5]", "data.share_prefix=never")
    folder, model = trained(run, tmp_path / "run")
    (file,) = folder.profile.iterdir()
    assert file.name == "steps-3-5.json.gz"
    steps, operators = marks(file)
    assert [step for step in steps if step.startswith("step ")] == ["step 3", "step 4", "step 5"]
    assert {"aten::mm", "aten::addmm", "aten::_fused_adamw_"} & operators

    prepared, rates = prepare(run), flop_rates(model)
    order = order_of(run, prepared)
    before = 0
    for row in metrics_log.read(folder.metrics):
        if "train_loss" not in row:
            assert "mfu" not in row
            continue
        flops = 0.0
        for step in range(before, row["step"]):
            for items in order.rows(*divmod(step, order.steps_per_epoch)):
                one = order.row(items)
                flops += rates.per_token * len(one.input_ids) + rates.per_target * one.supervised.sum()
                flops += rates.per_pair[None] * attended_pairs(np.array(one.lengths), None).sum()
        seconds = row["step_seconds"] * (row["step"] - before)
        assert row["mfu"] == pytest.approx(flops / seconds / 0.5e12, rel=1e-9)
        before = row["step"]
    assert before == 2 * order.steps_per_epoch == 8


def test_what_is_shared_counts_once_in_the_share_of_the_peak(chats, tmp_path):
    """Against the micro-batches as they enter the model."""
    lines = [json.loads(line) for line in chats.read_text().splitlines()]
    same = " ".join(["the same beginning"] * 4)
    chats = tmp_path / "same.jsonl"
    chats.write_text("".join(json.dumps(line | {"prompt": f"{same} {line['prompt']}"}) + "\n" for line in lines))
    words = ("schedule.max_steps=4", "schedule.global_batch_size=6", "hardware.micro_batch=3", "schedule.log_every=2")
    run = composed(chats, *words, "hardware.peak_tflops=0.5", "schedule.eval_every=never")
    folder, model = trained(run, tmp_path / "run")
    prepared, rates = prepare(run), flop_rates(model)
    order = order_of(run, prepared)
    shared = prefix_to_share(run, order, micro_batches=8)
    assert shared > 10
    for row in metrics_log.read(folder.metrics):
        flops = 0.0
        for step in (row["step"] - 2, row["step"] - 1):
            (micro_batches,) = order.micro_batches(0, step, size=3, count=2)
            for rows in filter(None, micro_batches):
                batch = collate([order.row(items) for items in rows], shared)
                lengths = np.diff(batch["segments"].borders)
                flops += rates.per_token * lengths.sum() + rates.per_target * len(batch["logits_to_keep"])
                # Without the prefix each segment still attends to it.
                whole = lengths[1:] + shared
                pairs = attended_pairs(whole, None).sum() - (len(whole) - 1) * shared**2 / 2
                flops += rates.per_pair[None] * pairs
        assert row["mfu"] == pytest.approx(flops / row["step_seconds"] / 2 / 0.5e12, rel=1e-9)


def test_a_profile_that_an_interruption_cuts_short(chats, tmp_path):
    run = composed(chats, "schedule.profile_steps=[2,9]", "schedule.eval_every=never")
    stop = StopAt(3)
    with pytest.raises(Interrupted):
        trained(run, tmp_path / "run", stop=stop, on_row=stop.hear)
    (file,) = RunFolder(tmp_path / "run").profile.iterdir()
    assert [step for step in marks(file)[0] if step.startswith("step ")] == [f"step {step}" for step in (2, 3, 4)]


def test_what_the_machine_does_is_in_a_file_of_its_own(chats, tmp_path):
    words = ("schedule.epochs=1", "schedule.eval_every=never")
    on, _ = trained(composed(chats, *words), tmp_path / "on")
    off, _ = trained(composed(chats, *words, "tracking.system_metrics=false"), tmp_path / "off")
    assert not off.system.exists()
    first, *_ = metrics_log.read(on.system)
    assert first["step"] == 1
    assert 0 < first["system/process_memory_gib"] < first["system/process_memory_gib"] + first["system/free_memory_gib"]
    assert {"system/cpu_percent", "system/process_cpu_percent"} <= set(first)
    assert [row["mfu"] for row in metrics_log.read(on.metrics)] == [None] * 5
