"""Submitting, looking, ending and going on, as a user of the cluster does."""

import json
import re
from pathlib import Path

from run_records import scored
from slurm_runs import check_as_undisturbed, outcomes

from ftx.attempts import FINISHED, attempts
from ftx.run_folder import RunFolder

SHORT = "schedule.epochs=1"
SWEEP = ("-m", "schedule.epochs=1", "seed=1,2", "tracking.offline=true")


def test_a_dry_run_prints_what_is_submitted(site, nothing_starts):
    printed = site.launched(SHORT, "launcher.dry_run=true").out
    said = site.launched(SHORT)
    script = Path(said.folder.read_ticket().submission) / "script.sh"
    assert script.read_text() in printed
    as_submitted = (said.folder.path / "run.yaml").read_text().replace("dry_run: false", "dry_run: true")
    assert as_submitted in printed


def test_what_is_queued_is_left_alone_and_can_be_ended_and_started_again(cluster, site, nothing_starts, undisturbed):
    first = site.launched(*SWEEP)
    assert len(first.arrays) == 1
    again = site.launched(*SWEEP)
    assert (again.sweep, again.arrays) == (first.sweep, [])
    assert again.out.count("is queued (PartitionDown); left alone") == 2
    looked = site.verb("sweep", "status", first.sweep)
    assert (looked.code, looked.out.splitlines()[0]) == (0, f"{first.sweep}: 2 pending"), looked
    refused = site.launch(*SWEEP, "fresh=true")
    assert refused.code == 2 and "scancel" in refused.err and len(refused.err.splitlines()) == 1, refused

    assert site.verb("sweep", "cancel", first.sweep).code == 0
    cluster.wait_for(lambda: not cluster.run("squeue", "--noheader"), 60, "an empty queue")
    assert site.verb("sweep", "status", first.sweep).out.splitlines()[0] == f"{first.sweep}: 2 interrupted"
    assert states(first) == {"interrupted"}

    nothing_starts()
    retried = site.verb("sweep", "retry", first.sweep)
    assert retried.code == 0, retried
    for element, folder in enumerate(folders(first)):
        assert site.wait_for_end(folder, f"{retried.arrays[0]}_{element}") == "COMPLETED"
        assert outcomes(folder) == [(0, FINISHED)]
    assert site.verb("sweep", "status", first.sweep).out.splitlines()[0] == f"{first.sweep}: 2 finished"
    assert "Best " in (first.sweep / "report.md").read_text(), "the last job writes the report"
    assert site.launched(*SWEEP).out.count("finished already") == 2


def test_a_cancelled_run_goes_on_where_it_was(cluster, site, undisturbed):
    said = site.launched()
    site.wait_for_step(said.folder, 12)
    cluster.run("scancel", said.job)
    assert site.wait_for_end(said.folder, said.job) == "CANCELLED"
    again = site.launched()
    check_as_undisturbed(site, again.folder, again.job, undisturbed())


def test_a_run_is_scored_by_a_job_of_its_own_once_it_is_trained(cluster, site, undisturbed):
    said = site.launched(SHORT, "evaluation.hardware=cpu", "hardware.nodes=2")
    train, score = said.arrays
    assert cluster.job(f"{score}_0")["NumNodes"].startswith("1")
    assert site.wait_for_end(said.folder, f"{train}_0") == "COMPLETED"
    assert site.wait_for_end(said.folder, f"{score}_0") == "COMPLETED"
    assert said.folder.read_status().state == "finished"
    assert scored(said.folder) == scored(undisturbed(SHORT))
    assert [(one.job_id, one.outcome) for one in attempts(said.folder)] == [
        (f"{train}_0", FINISHED),
        (f"{score}_0", FINISHED),
    ]


def test_runs_of_different_shapes_become_arrays_of_their_own(cluster, site, nothing_starts, tmp_path):
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "two.yaml").write_text("# Two nodes.\ndevice: cpu\nnodes: 2\nprecision: bf16\n")
    shapes = ("-m", "--config-dir", tmp_path, "hardware=cpu,two", "seed=1,2", "launcher.parallel=1")
    said = site.launched(*shapes, "tracking.offline=true")
    submitted = [cluster.jobs(array)[0] for array in said.arrays]
    asked = {(job["NumNodes"].split("-")[0], job["ArrayTaskThrottle"], job["ArrayTaskId"]) for job in submitted}
    assert asked == {("1", "1", "0-1%1"), ("2", "1", "0-1%1")}


def test_what_slurm_refuses_is_one_line_that_says_why(site):
    refused = site.launch(SHORT, "launcher.partition=nowhere")
    assert refused.code == 2 and len(refused.err.splitlines()) == 1, refused
    assert re.search(r"sbatch refused the job: .*invalid partition.*script\.sh", refused.err, re.IGNORECASE)


def folders(said) -> list[RunFolder]:
    described = json.loads((said.sweep / "sweep.json").read_text())
    return [RunFolder(said.sweep.parent.parent / run["run"]) for run in described["runs"]]


def states(said) -> set[str]:
    return {folder.read_status().state for folder in folders(said)}
