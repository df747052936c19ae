"""A killed run: the same command goes on, and nobody can tell afterwards that it was ever interrupted."""

import json
import random
import signal

import pytest
from run_records import (
    MEASURED,
    checkpoints_of,
    histories,
    learned,
    learned_in,
    points_of,
    rows_of,
    same_weights,
    scored,
)
from verb_process import until

STEPS_PER_EPOCH = 9
BY_STEP = ("schedule.epochs=3", "schedule.save_every=4", "schedule.log_every=1", "schedule.eval_every=5")
BY_EPOCH = ("schedule.epochs=5", "schedule.save_every=epoch", "schedule.log_every=2", "schedule.eval_every=epoch")


@pytest.fixture(scope="module")
def whole(request, new_place):
    """(words, place) of a run that nobody disturbed."""
    place = new_place()
    ended = place.train(*request.param)
    assert ended.code == 0, ended
    return request.param, place


@pytest.mark.long
@pytest.mark.parametrize("whole", [BY_STEP, BY_EPOCH], indirect=True, ids=["save_every=4", "save_every=epoch"])
def test_killed_at_random_steps(whole, place):
    """Five times: first before there is a checkpoint, last in the middle of saving one, else anywhere."""
    words, undisturbed = whole
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    steps = rows_of(undisturbed.folder())[-1]["step"]
    first = 3 if words is BY_STEP else STEPS_PER_EPOCH - 1
    moments = [dice.randint(0, first - 1), *sorted(dice.sample(range(first, steps - STEPS_PER_EPOCH), 3))]
    for moment in moments:
        kill_at(moment, place, words)
    kill_while_saving(place, (*words, "schedule.save_every=1"))
    ended = place.train(*words)
    assert ended.code == 0, ended
    folder, other = place.folder(), undisturbed.folder()
    assert "resuming from step" in ended.out
    assert same_weights(folder, other)
    assert learned(folder) == learned(other)
    # But for one of the killed start that saved each step.
    assert newest_of(folder) == newest_of(other)
    assert len(checkpoints_of(folder)) == len(checkpoints_of(other))
    assert scored(folder) == scored(other)
    cut = [row for file in folder.path.glob("metrics.cut-*.jsonl") for row in learned_in(file)]
    assert cut
    assert all(row in learned(folder) for row in cut)
    # MLflow has one run, and of each step what it was sent first: the measured values may be those of a row cut since.
    mlflow = place.mlflow()
    runs = mlflow.search_runs([experiment.experiment_id for experiment in mlflow.search_experiments()])
    assert [run.info.run_id for run in runs] == [folder.read_status().mlflow_run_id]
    sent, written = histories(mlflow, runs[0].info.run_id), points_of(rows_of(folder))
    assert sent.keys() == written.keys()
    for name in written:
        assert [step for step, _ in sent[name]] == [step for step, _ in written[name]], name
        assert name in MEASURED or sent[name] == written[name]


@pytest.mark.parametrize("whole", [BY_STEP], indirect=True, ids=["save_every=4"])
def test_what_killed_writers_leave_is_ignored_and_removed(whole, place):
    words, undisturbed = whole
    kill_at(STEPS_PER_EPOCH + 2, place, words)
    folder = place.folder()
    litter = ["checkpoints/.writing/checkpoint-99/optimizer.pt", "checkpoints/.removing-step-1/model.safetensors"]
    litter += [".model.writing/model.safetensors", ".status.json.1.tmp", "predictions/.loss.jsonl.1.tmp"]
    for name in litter:
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_text("half")
    with folder.metrics.open("a") as metrics:
        metrics.write('{"step": 11, "epo')
    assert place.train(*words).code == 0
    assert same_weights(folder, undisturbed.folder())
    assert learned(folder) == learned(undisturbed.folder())
    assert list(folder.path.rglob(".*")) == []


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        (("schedule.max_steps=5",), "model.safetensors"),
        (("schedule.epochs=1", "method=lora"), "adapter_model.safetensors"),
    ],
)
def test_killed_between_the_last_step_and_the_model(place, words, weights):
    """The last checkpoint has all of the training: not a step is added to it."""
    assert place.train(*words).code == 0
    folder = place.folder()
    kept = folder.path / "kept"
    folder.model.rename(kept)
    before = rows_of(folder)
    assert place.train(*words).code == 0
    assert rows_of(folder) == before
    assert (folder.model / weights).read_bytes() == (kept / weights).read_bytes()


def test_only_the_newest_checkpoints_are_kept(place):
    words = ("schedule.epochs=1", "schedule.save_every=2", "schedule.eval_every=never")
    assert place.train(*words, "schedule.keep_checkpoints=3").code == 0
    assert checkpoints_of(place.folder()) == {"step-4", "step-6", "step-8"}


def kill_at(step, place, words):
    """``kill -9`` once metrics.jsonl has a row of ``step`` or later."""
    run = place.start(*words)
    until(lambda: newest_step(place) >= step, run, f"step {step}")
    run.killed()
    assert place.folder().read_status().state == "running"


def kill_while_saving(place, words):
    """Stop it when a checkpoint is half there, and kill it if it still is."""
    run = place.start(*words)
    folder = place.folder()
    while True:
        until(lambda: any(folder.checkpoints.glob(".writing/checkpoint-*/*")), run, "a checkpoint being written")
        run.send(signal.SIGSTOP)
        if any(folder.checkpoints.glob(".writing/checkpoint-*")):
            break
        run.send(signal.SIGCONT)
    run.killed()


def newest_of(folder):
    return max(int(name.removeprefix("step-")) for name in checkpoints_of(folder))


def newest_step(place):
    files = list(place.runs.glob("*/metrics.jsonl"))
    lines = files[0].read_text().splitlines(keepends=True) if files else []
    whole_lines = [line for line in lines if line.endswith("\n")]
    return max((row["step"] for row in map(json.loads, whole_lines)), default=-1)
