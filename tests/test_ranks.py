"""Several processes of one run, started by the real verb: what reaches whom, and what is left when one of them dies."""

import json
import os
import re
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from run_records import rows_of
from safetensors.torch import load_file
from verb_process import until

from ftx.config.compose import compose
from ftx.environment import child_environment
from ftx.errors import UserError
from ftx.preflight import check_hardware
from launchers.local import gpus_of_places

WORDS = (
    *("schedule.epochs=2", "schedule.log_every=1", "schedule.eval_every=never", "schedule.save_every=never"),
    "hardware.micro_batch=1",
)
TWO = ("hardware=cpu", "hardware.processes_per_node=2")


@pytest.fixture(scope="module")
def alone(new_place):
    """The run as one process computes it."""
    place = new_place()
    ended = place.train(*WORDS)
    assert ended.code == 0, ended
    return place.folder()


def is_training(place):
    return any(file.stat().st_size for file in place.runs.glob("*/metrics.jsonl"))


def rank_process(verb, rank):
    """The pid of one of the processes that the verb started."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parent = int((process / "stat").read_bytes().rpartition(b")")[2].split()[1])
            if parent == verb.process.pid and f"RANK={rank}\0".encode() in (process / "environ").read_bytes():
                return int(process.name)
    raise AssertionError(f"no rank {rank}")


@pytest.mark.long
def test_stopped_and_resumed_by_one(place, alone):
    """ZeRO-2, unless another strategy is asked for: SIGTERM reaches both ranks, and one process goes on from there."""
    run = place.start(*WORDS, *TWO)
    until(lambda: is_training(place), run, "a training row")
    run.send(signal.SIGTERM)
    ended = run.ended()
    assert ended.code == 75, ended
    assert "interrupted (SIGTERM); the same command resumes it" in ended.out
    folder = place.folder()
    assert (folder.read_status().state, folder.read_status().reason) == ("interrupted", "SIGTERM")
    (checkpoint,) = [path for path in folder.checkpoints.iterdir() if path.name != ".writing"]
    assert json.loads((checkpoint / "written_by.json").read_text())["strategy"] == "zero2"
    assert (folder.path / "log-rank1.txt").exists()
    assert "resuming" not in folder.log.read_text()

    resumed = place.train(*WORDS)
    assert resumed.code == 0, resumed
    step = checkpoint.name.removeprefix("step-")
    assert f"the checkpoint at step {step} was written by 2 processes and hardware.strategy=zero2" in resumed.out
    assert folder.read_status().state == "finished"
    losses, expected = ([row["train_loss"] for row in rows_of(one)] for one in (folder, alone))
    assert losses == pytest.approx(expected, rel=1e-5)
    weights, others = (load_file(one.model / "model.safetensors") for one in (folder, alone))
    assert all((weights[name] - others[name]).abs().max() < 1e-5 for name in others)
    assert folder.read_scores().keys() == alone.read_scores().keys()


@pytest.mark.long
def test_a_rank_that_is_killed(place, alone):
    """The others end, the reason is said, and the same command finishes the run."""
    words = (*WORDS, *TWO, "hardware.strategy=ddp", "schedule.save_every=3")
    run = place.start(*words)
    until(lambda: is_training(place), run, "a training row")
    victim, survivor = rank_process(run, 1), rank_process(run, 0)
    os.kill(victim, signal.SIGKILL)
    ended = run.ended()
    assert ended.code == 1, ended
    reason = f"rank 1: process {victim} was killed by SIGKILL"
    folder = place.folder()
    assert (folder.read_status().state, folder.read_status().reason) == ("failed", reason)
    assert f"failed: {reason}; see {folder.path}/log-rank1.txt" in ended.out
    assert not Path(f"/proc/{survivor}").exists()
    assert place.train(*words).code == 0
    assert [row["train_loss"] for row in rows_of(folder)] == pytest.approx(
        [row["train_loss"] for row in rows_of(alone)], rel=1e-5
    )
    assert list(folder.path.rglob(".*")) == []


@pytest.mark.long
def test_a_rank_that_hangs(place, alone):
    """The watchdog finds out which, where the others wait for it, and ends them all; the same command finishes the run.

    The limit is as short as a busy machine allows: a beat comes at least between importing and the first step.
    """
    words = (*WORDS, *TWO, "hardware.strategy=ddp", "schedule.save_every=3", "launcher.watchdog_min=0.75")
    run = place.start(*words)
    until(lambda: is_training(place), run, "a training row")
    victim, waiting = rank_process(run, 1), rank_process(run, 0)
    os.kill(victim, signal.SIGSTOP)
    ended = run.ended()
    assert ended.code == 1, ended
    assert not Path(f"/proc/{victim}").exists()
    assert not Path(f"/proc/{waiting}").exists()
    folder = place.folder()
    status = folder.read_status()
    assert status.state == "failed"
    assert f"failed: {status.reason}" in ended.out
    assert re.match(r"no progress of ranks? .*\b1 for 0.75 minutes: ", status.reason)
    assert "rank 1 wrote no stack" in status.reason
    # Rank 0 lives, and is in what the ranks do together within a step.
    function, file, line = re.search(r"rank 0 in (\w+) of (\S+):(\d+)", status.reason).groups()
    main_thread = folder.log.read_text().rpartition("(most recent call first):")[2]
    assert f'{file}", line {line} in {function}' in main_thread.splitlines()[1]
    assert "in _train_to_the_end" in main_thread
    told = place.mlflow().get_run(status.mlflow_run_id)
    assert (told.info.status, told.data.tags["ftx.reason"]) == ("FAILED", status.reason)

    assert place.train(*words).code == 0
    assert folder.read_status().state == "finished"
    losses, expected = ([row["train_loss"] for row in rows_of(one)] for one in (folder, alone))
    assert losses == pytest.approx(expected, rel=1e-5)
    weights, others = (load_file(one.model / "model.safetensors") for one in (folder, alone))
    assert all((weights[name] - others[name]).abs().max() < 1e-5 for name in others)
    assert list(folder.path.rglob(".*")) == []


@pytest.mark.long
def test_a_sweep_of_such_runs(place):
    """Also where each run has processes of its own; a mistake that all ranks make is said once, as a mistake."""
    words = ("schedule.max_steps=2", "method=lora", "method.lora.targets=[q_proj],[no_such]", "evaluation.tasks=[loss]")
    # Behind ZeRO-3 the model is loaded by one process alone, to be scored.
    ended = place.train(
        "-m", *words, *TWO, "hardware.micro_batch=1", "hardware.strategy=zero3", "tracking.offline=true"
    )
    assert ended.code == 1, ended
    states = {}
    for file in place.runs.glob("*/status.json"):
        status = json.loads(file.read_text())
        states[status["state"]] = status["reason"]
    assert states.keys() == {"finished", "failed"}
    assert states["failed"].startswith("method.lora.targets=['no_such']: the model has no such modules")


def test_runs_side_by_side_have_gpus_of_their_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,GPU-6")
    one, two = (
        compose("hardware=8xH100", f"hardware.gpus_per_node={n}", f"hardware.processes_per_node={n}") for n in (1, 2)
    )
    assert gpus_of_places([one, one], 3) == [["3"], ["4"], ["5"]]
    assert gpus_of_places([one, two], 2) == [["3", "4"], ["5", "GPU-6"]]
    assert gpus_of_places([compose()], 2) == [[], []]
    assert child_environment(1, gpus=["4", "5"])["CUDA_VISIBLE_DEVICES"] == "4,5"
    assert child_environment(1)["CUDA_VISIBLE_DEVICES"] == "3,4,5,GPU-6"
    check_hardware(replace(one, launcher=replace(one.launcher, parallel=4)))
    with pytest.raises(UserError, match=r"^launcher.parallel=3: .* this machine has 4; set it to 2$"):
        check_hardware(replace(two, launcher=replace(two.launcher, parallel=3)))
