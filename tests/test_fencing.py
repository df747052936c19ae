"""Two starts of one job at once: the newer one has the run, and of the older one nothing is found afterwards."""

import json
import logging
import os
import re
import signal
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
from run_records import MEASURED, checkpoints_of, histories, learned, points_of, rows_of, same_weights, scored
from slurm_job import JOB_ID
from verb_process import Ended, until

from ftx import checkpoints, holding, job, metrics_log
from ftx.config.compose import compose
from ftx.errors import Fenced, Interrupted
from ftx.holding import hold, newer_start
from ftx.lock import Held, Lock, holder, lock, nobody
from ftx.processes import Holder
from ftx.profiling import ProfileWindow
from ftx.rank_failure import RankFailure, first_failure, note_failure
from ftx.resume import converted_folder
from ftx.run_folder import Phase, RunFolder
from ftx.runs_on_disk import open_run_folder, remove_leftovers
from ftx.scoring import keep_result
from ftx.stopping import StopRequest
from ftx.system_metrics import SystemMetrics
from ftx.tasks.task import TaskResult
from ftx.tracking import Sender

WORDS = ("schedule.epochs=12", "schedule.log_every=1", "schedule.save_every=9", "schedule.eval_every=epoch")
SOON = 20


@pytest.fixture(scope="module")
def undisturbed(new_place):
    """The run that one start brought to its end."""
    place = new_place()
    ended = place.train(*WORDS)
    assert ended.code == 0, ended
    return place.folder()


def newest_step(folder: RunFolder) -> int:
    return metrics_log.last_training_row(folder.metrics).get("step", -1)


def has_it(folder: RunFolder, attempt: int) -> bool:
    at_it = holder(folder.lock)
    return at_it is not None and at_it.attempt == attempt


def freeze(old, place, is_right) -> None:
    """At such a moment, and between two things that it sends to MLflow: it would lock the database for everybody."""
    until(lambda: "ftx.state" in tags_of(place), old, "all that is said at the start")
    while True:
        until(is_right, old, "the right moment")
        old.send(signal.SIGSTOP)
        if is_right() and not Path(f"{place.path}/mlflow.db-journal").exists():
            return
        old.send(signal.SIGCONT)


def tags_of(place) -> dict[str, str]:
    mlflow_id = place.folder().read_status().mlflow_run_id
    return place.mlflow().get_run(mlflow_id).data.tags if mlflow_id else {}


@pytest.mark.long
@pytest.mark.parametrize("frozen", ["training", "saving", ""])
def test_an_old_start_beside_the_new_one(submit, place, undisturbed, frozen):
    """The old one is stopped there and wakes up when the new one is past it, or it just goes on."""
    submitted = submit(*WORDS)
    folder = submitted.folder
    old = submitted.start(0)
    until(lambda: newest_step(folder) >= SOON, old, "some steps")
    if frozen:
        half = f".writing-{JOB_ID}-0/checkpoint-*/*"
        freeze(old, place, lambda: any(folder.checkpoints.glob(half)) == (frozen == "saving"))
        seen = newest_step(folder)
    new = submitted.start(1)
    until(lambda: has_it(folder, 1), new, "the lock")
    if frozen:
        until(lambda: newest_step(folder) > seen + SOON, new, "more steps than the old one made")
        old.send(signal.SIGCONT)
    fenced = old.ended()
    says_that_it_lost_the_run(fenced)
    taken = f"process {new.process.pid} on {os.uname().nodename}, job {JOB_ID}, attempt 1 has taken {folder.name} over"
    assert f"ERROR {taken}: this process leaves the run alone and ends\n" in fenced.err
    assert new.process.exitcode is None, "the new start was over before the old one: nothing was tested"

    ended = new.ended()
    assert ended.code == 0, ended
    assert f"{folder.name} was held by process {old.process.pid} on {os.uname().nodename}, job {JOB_ID}: " in ended.out
    assert "resuming from step" in ended.out
    assert (folder.read_status().state, folder.read_status().job_id) == ("finished", JOB_ID)
    assert same_weights(folder, undisturbed)
    assert learned(folder) == learned(undisturbed)
    assert checkpoints_of(folder) == checkpoints_of(undisturbed)
    assert scored(folder) == scored(undisturbed)
    assert unfinished_in(folder) == []
    has_each_step_once(place, folder)


def unfinished_in(folder: RunFolder) -> list[Path]:
    """But for heartbeats, which whoever starts the ranks removes."""
    return [path for path in folder.path.rglob(".*") if not path.name.startswith(".heartbeat-")]


def has_each_step_once(place, folder):
    """What was measured may be that of a row which was cut since."""
    mlflow_id = folder.read_status().mlflow_run_id
    sent, written = histories(place.mlflow(), mlflow_id), points_of(rows_of(folder))
    assert sent.keys() == written.keys()
    for name in written:
        assert [step for step, _ in sent[name]] == [step for step, _ in written[name]], name
        assert name in MEASURED or sent[name] == written[name]
    run = place.mlflow().get_run(mlflow_id)
    assert (run.info.status, run.data.tags["ftx.state"]) == ("FINISHED", "finished")


@pytest.mark.long
def test_an_old_start_that_is_stuck(submit, place, undisturbed):
    """Its rank 0 waits for the other one in a call that does not come back, and never gets to a write.

    Then the other one, of whose calls without rank 0 some break and some wait for ever.
    """
    words = (*WORDS, "hardware.processes_per_node=2", "hardware.strategy=ddp", "hardware.micro_batch=1")
    submitted = submit(*words)
    folder = submitted.folder
    old = submitted.start_ranks(0)
    until(lambda: newest_step(folder) >= SOON, old[0], "some steps")
    old[1].send(signal.SIGSTOP)
    new = submitted.start_ranks(1)
    until(lambda: has_it(folder, 1), new[0], "the lock")
    # Lest they end first: the old ones look at the lock every ten seconds only.
    for rank in new:
        rank.send(signal.SIGSTOP)
    says_that_it_lost_the_run(old[0].ended())
    old[1].send(signal.SIGCONT)
    says_that_it_lost_the_run(old[1].ended())
    for rank in new:
        rank.send(signal.SIGCONT)
    assert [rank.ended().code for rank in new] == [0, 0]
    assert [row["step"] for row in rows_of(folder)] == [row["step"] for row in rows_of(undisturbed)]
    losses, expected = (
        [row["eval_loss"] if "eval_loss" in row else row["train_loss"] for row in rows_of(one)]
        for one in (folder, undisturbed)
    )
    assert losses == pytest.approx(expected, rel=1e-5)
    assert unfinished_in(folder) == []
    has_each_step_once(place, folder)


def says_that_it_lost_the_run(ended: Ended) -> None:
    """And nothing else: above all not what went wrong because of that."""
    assert ended.code == 1
    assert (ended.err.count("has taken"), ended.err.count("ERROR"), ended.err.count("Traceback")) == (1, 1, 0), (
        ended.err
    )


# ---------------------------------------------------------------- every write


@pytest.fixture
def run_in(tmp_path):
    """A run and its folder, with checkpoints, rows of three steps, weights, and a checkpoint to publish."""
    run = compose("hardware=cpu", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", f"run_root={tmp_path}")
    folder = open_run_folder(RunFolder(tmp_path / "run"), run, [], {})
    for step in (1, 2, 3):
        metrics_log.append(folder, folder.metrics, row_of(step, 1.0))
    for step in (1, 2):
        half(folder, step)
        checkpoints.publish(folder, step, 9)
    for name in (folder.weights / "epoch-1", folder.weights / "epoch-2"):
        name.mkdir(parents=True)
        (name / "model.safetensors").write_text("old")
    half(folder, 4)
    return run, folder


def row_of(step: int, loss: float) -> dict[str, float]:
    return {"step": step, "train_loss": loss, "step_seconds": 1.0}


def half(folder: RunFolder, step: int) -> None:
    path = checkpoints.writing_folder(folder) / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_text("half")


def everything(folder: RunFolder) -> dict[Path, bytes]:
    """What readers see of a run; an empty file says nothing."""
    files = [path for path in folder.path.rglob("*") if path.is_file() and path != folder.lock]
    found = {path: path.read_bytes() for path in files if not any(part.startswith(".") for part in path.parts)}
    return {path: content for path, content in found.items() if content}


def publish_weights(run, folder):
    written = folder.weights / ".epoch-2.writing"
    written.mkdir()
    (written / "model.safetensors").write_text("new")
    folder.publish(written, folder.weights / "epoch-2")


def profile(run, folder):
    window = ProfileWindow([1, 1], folder)
    window.step_begins(1)
    window.step_ends(1)


WRITES = {
    "the state": lambda run, folder: folder.write_status(state="failed", reason="of the old one"),
    "a row": lambda run, folder: metrics_log.append(folder, folder.metrics, row_of(4, 9.0)),
    "rows cut": lambda run, folder: metrics_log.cut_after(folder, 1),
    "the machine": lambda run, folder: SystemMetrics(folder, enabled=True).sample(4),
    "a checkpoint": lambda run, folder: checkpoints.publish(folder, 4, 9),
    "the best": lambda run, folder: folder.write_json(folder.checkpoints / "best.json", {"step": 1}),
    "weights": publish_weights,
    "a removal": lambda run, folder: checkpoints.make_room(folder, 10, "it", None, free=lambda _: 9),
    "a damaged one": lambda run, folder: checkpoints.set_damaged_aside(folder),
    "scores": lambda run, folder: keep_result(folder, run, "loss", TaskResult({"nll": {"value": 1}}, [{"item": 1}])),
    "a profile": profile,
}
# These are renamed to their place, or go to a file that the new start has put another one in place of.
ATOMIC = ("the state", "a row", "a checkpoint", "the best", "weights", "scores")


@pytest.mark.parametrize("write", WRITES)
def test_whoever_lost_the_run_writes_nothing(run_in, write):
    run, folder = run_in
    with lock(folder.lock, job_id=JOB_ID) as old, lock(folder.lock, supersedes=lambda holder: True):
        if write == "a damaged one":
            (folder.checkpoints / "step-2" / "optimizer.pt").unlink()
        before = everything(folder)
        with pytest.raises(Fenced, match=rf"^process {os.getpid()} on \S+ has taken run over: "):
            WRITES[write](run, replace(folder, held=old))
        assert everything(folder) == before


def test_nor_to_mlflow(run_in, place):
    """What the new start writes is for its own sender; the old one's says neither a row nor how the run ended."""
    run, folder = run_in
    run = replace(run, tracking=replace(run.tracking, uri=place.uri))
    with lock(folder.lock, job_id=JOB_ID) as old:
        sender = Sender(replace(folder, held=old), run)
        sender.send("running", "")
        mlflow_id = folder.read_status().mlflow_run_id
        with lock(folder.lock, supersedes=lambda holder: True):
            metrics_log.append(folder, folder.metrics, row_of(4, 1.0))
            for one in (sender, Sender(replace(folder, held=old), run)):
                with pytest.raises(Fenced):
                    one.send("failed", "of the old one")
    found = place.mlflow().get_run(mlflow_id)
    assert (found.info.status, found.data.tags["ftx.state"], found.data.tags["ftx.reason"]) == (
        "RUNNING",
        "running",
        "",
    )
    assert histories(place.mlflow(), mlflow_id)["train_loss"] == [(1, 1.0), (2, 1.0), (3, 1.0)]


def test_nor_what_went_wrong_because_of_that(run_in, ftx_log, monkeypatch):
    """A file that the new start has put away, a rank that is gone."""
    run, folder = run_in
    run = replace(run, tracking=replace(run.tracking, offline=True))
    with ExitStack() as new, lock(folder.lock, job_id=JOB_ID) as old:

        def lose_it(*_: object) -> None:
            new.enter_context(lock(folder.lock, supersedes=lambda holder: True))
            raise FileNotFoundError("model.safetensors")

        monkeypatch.setattr(job, "_train_and_score", lose_it)
        with pytest.raises(Fenced):
            job._held_job(replace(folder, held=old), run, StopRequest(), Phase.ALL)
    assert ftx_log.lines == []
    assert folder.read_status().state == "running"


@dataclass
class Sleeper(Lock):
    """Looks whether the lock is its own, and sleeps until somebody else has taken the run over before it goes on."""

    folder: RunFolder | None = None
    new: ExitStack = field(default_factory=ExitStack)
    after: dict[Path, bytes] = field(default_factory=dict)

    def is_ours(self) -> bool:
        awake = super().is_ours()
        if awake:
            held = self.new.enter_context(lock(self.path, supersedes=lambda holder: True))
            take_over(replace(self.folder, held=held))
            self.after |= everything(self.folder)
        return awake


def take_over(folder: RunFolder) -> None:
    """What a new start does, down to rows, weights and scores of its own."""
    remove_leftovers(folder)
    folder.write_json(folder.path / "status.json", {"state": "running", "reason": "of the new one"})
    metrics_log.cut_after(folder, 2)
    metrics_log.append(folder, folder.metrics, row_of(3, 2.0))
    for name in ("epoch-1", "epoch-2"):
        (folder.weights / name / "model.safetensors").write_text("of the new one")
    folder.write_json(folder.path / "scores.json", {"loss": "of the new one"})


@pytest.mark.parametrize("write", ATOMIC)
def test_nor_does_whoever_slept_between_the_last_look_and_the_write(run_in, write):
    run, folder = run_in
    with lock(folder.lock, job_id=JOB_ID) as held:
        sleeper = Sleeper(held.offer, folder=folder)
        with sleeper.new:
            with suppress(Fenced, FileNotFoundError):
                WRITES[write](run, replace(folder, held=sleeper))
            assert sleeper.after
            assert everything(folder) == sleeper.after
            assert not sleeper.is_ours()


def test_what_is_unfinished_belongs_to_one_start(tmp_path, monkeypatch):
    """All of its ranks use the same names; those of no other start do."""
    folder, names = RunFolder(tmp_path), []
    monkeypatch.setenv("SLURM_JOB_ID", JOB_ID)
    for attempt in ("0", "1"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", attempt)
        names.append((checkpoints.writing_folder(folder), converted_folder(folder)))
        assert first_failure(folder) is None
        note_failure(folder, RankFailure(1, f"of start {attempt}"))
        assert first_failure(folder).reason == f"of start {attempt}"
    assert len({path for pair in names for path in pair}) == 4
    remove_leftovers(folder)
    assert first_failure(folder).reason == "of start 1"
    assert [file.name for file in tmp_path.iterdir()] == [".first-failure-812-1"]


# ---------------------------------------------------------------- getting it


@pytest.fixture
def elsewhere(tmp_path):
    """A lock of another job's on another machine, whose heart beat so many seconds ago."""

    def write(age: float) -> RunFolder:
        with lock(tmp_path / "mine", job_id="813") as held:
            theirs = replace(held.holder, host="elsewhere")
        folder = RunFolder(tmp_path)
        folder.lock.write_text(json.dumps(asdict(theirs)))
        then = folder.lock.stat().st_mtime - age
        os.utime(folder.lock, (then, then))
        return folder

    return write


@pytest.fixture
def all_said(ftx_log):
    """Also what is no warning."""
    ours = logging.getLogger("ftx")
    before = ours.level
    ours.setLevel(logging.INFO)
    yield ftx_log.lines
    ours.setLevel(before)


def test_a_silent_holder_is_waited_for_where_nobody_would_try_again(elsewhere, all_said):
    folder = elsewhere(age=50)
    with pytest.raises(Held), hold(folder, StopRequest(), nobody, queued=False):
        pass
    with hold(folder, StopRequest(), nobody, queued=True) as ours:
        ours.check_ours()
    waiting, taken = all_said
    assert re.search(r" on elsewhere, job 813 \(heartbeat 5\d s ago\): waiting up to 90 s for that to end$", waiting)
    assert taken.endswith(" on elsewhere, job 813: taken over")


def test_waiting_for_it_ends(elsewhere, monkeypatch):
    monkeypatch.setattr(holding, "LOOK_SECONDS", 0.01)
    folder, stop = elsewhere(age=0), StopRequest()
    stop.reason = "SIGUSR2"
    with pytest.raises(Interrupted, match="SIGUSR2"), hold(folder, stop, nobody, queued=True):
        pass
    monkeypatch.setattr(holding, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(Held, match="elsewhere"), hold(folder, StopRequest(), nobody, queued=True):
        pass


def test_who_is_taken_over_alive(elsewhere, monkeypatch):
    """An earlier start of the same job, and whoever the caller knows to be over."""
    asked: list[Holder] = []

    def is_over(found: Holder) -> bool:
        asked.append(found)
        return found.job_id == "813"

    with hold(elsewhere(age=0), StopRequest(), is_over, queued=False) as ours:
        assert ours.held.taken_from == asked[0]
    monkeypatch.setenv("SLURM_JOB_ID", "813")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with hold(elsewhere(age=0), StopRequest(), nobody, queued=False) as ours:
        assert (ours.held.holder.job_id, ours.held.holder.attempt) == ("813", 2)
        assert newer_start(ours) is None
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        assert newer_start(RunFolder(ours.path)) == ours.held.holder
        monkeypatch.setenv("SLURM_JOB_ID", "814")
        assert newer_start(RunFolder(ours.path)) is None
