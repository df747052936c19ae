"""Whatever befalls a run on SLURM, it ends with the weights and the metrics of one that nothing befell."""

import shutil
import signal
import stat

import pytest
from run_records import rows_of
from slurm_conf import Shape
from slurm_runs import Site, check_as_undisturbed, outcomes, ranks_on

from ftx.attempts import CRASHED, FINISHED, INTERRUPTED, MISTAKE, attempts
from ftx.environment import CHECKOUT

TWO_NODES = ("hardware.nodes=2",)
# Where what happens happens before the first step.
SHORT = "schedule.epochs=1"
SMALL = (
    "model.architecture.vocabulary_size=1024",
    "model.architecture.hidden_size=32",
    "model.architecture.head_dim=8",
    "model.architecture.intermediate_size=64",
    "schedule.epochs=30",
)


def test_a_warning_stops_all_ranks_at_a_step_and_the_job_goes_on_by_itself(cluster, site, undisturbed):
    said = site.launched(*TWO_NODES)
    site.wait_for_step(said.folder, 12)
    cluster.run("scancel", "--signal=USR2", said.job)
    check_as_undisturbed(site, said.folder, said.job, undisturbed())
    assert outcomes(said.folder) == [(0, INTERRUPTED), (1, FINISHED)]
    assert not list(said.folder.path.glob("metrics.cut-*")), "steps were lost and made again"


def test_a_warning_that_reaches_all_that_descends_from_a_rank(new_cluster, new_place, undisturbed):
    """As sites without control groups have it."""
    place = new_place()
    with new_cluster(Shape(nodes=2, proctrack="linuxproc")) as cluster:
        site = Site(cluster, place.runs, place.cache, place.uri)
        said = site.launched(*TWO_NODES)
        site.wait_for_step(said.folder, 12)
        cluster.run("scancel", "--signal=USR2", said.job)
        check_as_undisturbed(site, said.folder, said.job, undisturbed())
        assert outcomes(said.folder) == [(0, INTERRUPTED), (1, FINISHED)]


def test_a_time_limit_is_no_end(cluster, site, undisturbed):
    """SLURM's own warning and limit: the run takes longer than the minute that its job has."""
    long = ("schedule.epochs=60", "schedule.save_every=100")
    said = site.launched(*long, "launcher.time_min=1")
    site.wait_for(lambda: (0, INTERRUPTED) in outcomes(said.folder), "the limit", said.folder)
    # A slow machine would spend minute after minute on importing.
    cluster.scontrol("update", f"JobId={said.job}", "TimeLimit=60")
    check_as_undisturbed(site, said.folder, said.job, undisturbed(*long))
    *before, last = [outcome for _, outcome in outcomes(said.folder)]
    assert (set(before), last) == ({INTERRUPTED}, FINISHED)
    assert not list(said.folder.path.glob("metrics.cut-*")), "steps were lost and made again"


def test_a_requeue_by_somebody_else_goes_on_from_a_checkpoint(cluster, site, undisturbed):
    said = site.launched(*TWO_NODES)
    site.wait_for_step(said.folder, 12)
    cluster.scontrol("requeue", said.job)
    check_as_undisturbed(site, said.folder, said.job, undisturbed())
    assert [number for number, _ in outcomes(said.folder)] == [0, 1]


def test_a_killed_rank_ends_the_others_and_the_run_is_tried_again(cluster, site, undisturbed):
    said = site.launched(*TWO_NODES)
    site.wait_for_step(said.folder, 12)
    rank_on(cluster, "node2").send(signal.SIGKILL)
    check_as_undisturbed(site, said.folder, said.job, undisturbed())
    assert outcomes(said.folder) == [(0, CRASHED), (1, FINISHED)]
    assert "rank 1 on node2: Killed" in attempts(said.folder)[0].reason


def test_a_node_without_power_is_replaced(cluster, site, undisturbed):
    said = site.launched(*TWO_NODES)
    site.wait_for_step(said.folder, 12)
    cluster.power_off("node1")
    check_as_undisturbed(site, said.folder, said.job, undisturbed())
    assert "node1" not in attempts(said.folder)[-1].nodes


def test_ranks_that_slurm_has_lost_sight_of_cannot_write_into_the_new_ones_folder(cluster, site, undisturbed):
    """Only slurmd dies: the old ranks are at work while the job starts elsewhere; frozen, to be sure of that."""
    said = site.launched()
    site.wait_for_step(said.folder, 12)
    cluster.kill_slurmd("node1")
    old = cluster.processes_on("node1", "launchers.slurm_task")
    for process in old:
        process.send(signal.SIGSTOP)
    seen = max(row["step"] for row in rows_of(said.folder))
    site.wait_for_step(said.folder, max(16, seen + 1), start=1)
    for process in old:
        process.send(signal.SIGCONT)
    check_as_undisturbed(site, said.folder, said.job, undisturbed())
    cluster.wait_for(lambda: not cluster.processes_on("node1", "launchers.slurm_task"), 60, "the end of the old ranks")
    check_as_undisturbed(site, said.folder, said.job, undisturbed())
    assert attempts(said.folder)[-1].nodes != "node1"


def test_stuck_ranks_are_ended_with_their_stacks_in_the_log(cluster, site, undisturbed):
    said = site.launched(*TWO_NODES, "launcher.watchdog_min=0.5")
    site.wait_for_step(said.folder, 12)
    rank_on(cluster, "node2").send(signal.SIGSTOP)
    check_as_undisturbed(site, said.folder, said.job, undisturbed())
    assert outcomes(said.folder) == [(0, CRASHED), (1, FINISHED)]
    assert "no progress" in attempts(said.folder)[0].reason
    assert "rank 1 wrote no stack" in attempts(said.folder)[0].reason
    stack = said.folder.log.read_text()
    assert "Current thread" in stack and "_train_to_the_end" in stack


def test_a_run_that_crashes_again_is_failed_everywhere(cluster, site):
    """Killed each time it begins."""
    said = site.launched("launcher.retries=1")
    for start in (0, 1):
        site.wait_for(lambda number=start: begun(cluster, said.folder) == number, f"start {start}", said.folder)
        rank_on(cluster, attempts(said.folder)[-1].nodes).send(signal.SIGKILL)
    assert site.wait_for_end(said.folder, said.job) == "FAILED"
    assert outcomes(said.folder) == [(0, CRASHED), (1, CRASHED)]
    status = said.folder.read_status()
    assert (status.state, status.reason) == ("failed", f"rank 0 on {attempts(said.folder)[-1].nodes}: Killed")
    assert site.mlflow().get_run(status.mlflow_run_id).info.status == "FAILED"


def test_a_mistake_of_the_users_is_not_tried_again(cluster, site, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n' * 50 + '{"prompt": 1}\n')
    said = site.launched("data=jsonl", f"data.path={rows}", "data.limit=null", "evaluation.tasks=[]")
    assert site.wait_for_end(said.folder, said.job) == "FAILED"
    assert outcomes(said.folder) == [(0, MISTAKE)]
    assert "rows.jsonl:51" in said.folder.read_status().reason


def test_a_full_disk_fails_the_run_and_room_lets_it_go_on(cluster, small_site, undisturbed):
    """What is there before stays as it was; nothing half-written is left."""
    site, words = small_site, (*SMALL, "schedule.keep_checkpoints=1")
    said = site.launched(*words)
    site.wait_for_step(said.folder, 20)

    def ended() -> str:
        """Filled again and again: what goes in between, such as an older checkpoint, makes room for no other."""
        fill(site, leave=300_000)
        return site.state_at_end(said.job)

    assert site.wait_for(ended, "the end", said.folder) == "FAILED"
    status = said.folder.read_status()
    assert status.state == "failed" and "MiB are free" in status.reason, status
    assert site.mlflow().get_run(status.mlflow_run_id).info.status == "FAILED"
    assert outcomes(said.folder) == [(0, MISTAKE)]
    cluster.grow_small_disk(64)
    again = site.launched(*words)
    check_as_undisturbed(site, again.folder, again.job, undisturbed(*words))


def test_what_is_queued_does_not_see_what_is_edited_afterwards(site, nothing_starts, tmp_path, undisturbed):
    copy = tmp_path / "checkout"
    for part in ("ftx", "launchers", "conf", "experiments", "templates"):
        shutil.copytree(CHECKOUT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "site.yaml"))
    said = site.launched(SHORT, checkout=copy)
    for file in ("ftx/trainer.py", "launchers/slurm_task.py", "conf/model/tiny.yaml"):
        (copy / file).write_text("raise SystemExit('edited while queued')\n")
    nothing_starts()
    check_as_undisturbed(site, said.folder, said.job, undisturbed(SHORT))
    edited = site.launch(SHORT, checkout=copy)
    assert edited.code != 0, "the edit was not seen by anybody"


@pytest.fixture
def dying_shell(tmp_path):
    """Puts an sbatch before the real one that kills the shell which calls it, before or after it has done its work."""

    def made(script: str) -> str:
        file = tmp_path / "bin" / "sbatch"
        file.parent.mkdir()
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return str(file.parent)

    return made


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(f'{shutil.which("sbatch")} "$@"; kill -9 $PPID', id="when it has submitted"),
        pytest.param("kill -9 $PPID", id="before it has"),
    ],
)
def test_a_shell_that_dies_while_it_submits_loses_and_doubles_nothing(site, undisturbed, dying_shell, script):
    assert site.launch(SHORT, path=dying_shell(script)).code == -signal.SIGKILL
    again = site.launched(SHORT)
    folder = again.folder
    job = folder.read_ticket().job_id
    assert ("left alone" in again.out) == ("sbatch" in script)
    check_as_undisturbed(site, folder, job, undisturbed(SHORT))
    assert outcomes(folder) == [(0, FINISHED)]
    assert "finished already" in site.launched(SHORT).out


def test_an_sbatch_that_outlives_its_shell_starts_nothing_that_was_submitted_again(
    cluster, site, undisturbed, dying_shell, tmp_path
):
    """It comes through only when the same command has been given again: of the two jobs one lets go."""
    go = tmp_path / "go"
    late = f'kill -9 $PPID; until [ -e {go} ]; do sleep 0.1; done; exec {shutil.which("sbatch")} "$@" > {tmp_path}/said'
    assert site.launch(SHORT, path=dying_shell(late)).code == -signal.SIGKILL
    again = site.launched(SHORT)
    go.touch()
    orphan = cluster.wait_for(lambda: (tmp_path / "said").exists() and (tmp_path / "said").read_text(), 30, "sbatch")
    check_as_undisturbed(site, again.folder, again.job, undisturbed(SHORT))
    assert site.wait_for_end(again.folder, f"{orphan.split()[-1]}_0") == "COMPLETED"
    assert outcomes(again.folder) == [(0, FINISHED)]


def rank_on(cluster, node):
    (rank,) = ranks_on(cluster, node)
    return rank


def begun(cluster, folder):
    """The number of the start whose rank is there, None while there is none."""
    last = attempts(folder)[-1] if attempts(folder) else None
    return last.number if last and not last.outcome and ranks_on(cluster, last.nodes) else None


def fill(site, leave: int) -> None:
    """Until only so many bytes are free."""
    free = shutil.disk_usage(site.runs).free
    with (site.runs / "filler").open("ab") as filler:
        filler.write(bytes(max(0, free - leave)))
