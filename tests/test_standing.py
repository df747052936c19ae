"""How a run stands where its folder, its lock and SLURM each know a part of it."""

import pytest

from ftx.lock import lock
from ftx.run_folder import Phase, RunFolder, Ticket
from ftx.slurm_queue import Job, _from_record
from ftx.standing import job_of, settle, state_of

RECORDS = {
    "running": (
        "JobId=21906 ArrayJobId=21901 ArrayTaskId=3 JobName=tiny UserId=root(0) JobState=RUNNING Reason=None "
        "Dependency=(null) Requeue=1 Restarts=0 NodeList=node[1-2] BatchHost=node1",
        Job("21901_3", "RUNNING", "None", "node[1-2]"),
    ),
    "queued elements of an array": (
        "JobId=2201 ArrayJobId=2201 ArrayTaskId=0-3%2 JobState=PENDING Reason=Priority NodeList=(null)",
        Job("2201_0-3%2", "PENDING", "Priority", ""),
    ),
    "no array": (
        "JobId=7 JobName=x JobState=TIMEOUT Reason=TimeLimit NodeList=a1",
        Job("7", "TIMEOUT", "TimeLimit", "a1"),
    ),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_of_scontrol(case):
    line, job = RECORDS[case]
    assert _from_record(line) == job


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path)
    made.write_status(state="running", job_id="5_1")
    made.write_ticket(Ticket("/jobs/x.1", 1, "5_1"))
    return made


@pytest.mark.parametrize(
    ("jobs", "state", "reason"),
    [
        pytest.param(None, "running", "", id="nobody asked"),
        pytest.param({}, "interrupted", "job 5_1 is gone, and SLURM has forgotten it", id="forgotten"),
        pytest.param(
            {"5_1": Job("5_1", "PENDING", "BeginTime")}, "pending", "job 5_1 is queued (BeginTime)", id="requeued"
        ),
        pytest.param({"5_1": Job("5_1", "RUNNING", "None", "n1")}, "running", "job 5_1 on n1", id="running"),
        pytest.param({"5_1": Job("5_1", "COMPLETING", "None", "n1")}, "running", "job 5_1 on n1", id="completing"),
        pytest.param({"5_1": Job("5_1", "CANCELLED")}, "interrupted", "job 5_1: CANCELLED", id="cancelled"),
        pytest.param(
            {"5_1": Job("5_1", "OUT_OF_MEMORY")}, "failed", "job 5_1: OUT_OF_MEMORY", id="killed for its memory"
        ),
        pytest.param({"5_1": Job("5_1", "COMPLETED")}, "interrupted", "job 5_1: COMPLETED", id="never began"),
    ],
)
def test_a_run_whose_job_slurm_knows(folder, jobs, state, reason):
    assert state_of(folder, jobs) == (state, reason)


def test_what_the_run_has_written_as_its_end_counts(folder):
    folder.write_status(state="failed", reason="KeyError")
    assert state_of(folder, {"5_1": Job("5_1", "RUNNING", "", "n1")}) == ("failed", "KeyError")


def test_a_living_process_counts_more_than_what_slurm_has_lost_sight_of(folder):
    with lock(folder.lock):
        assert state_of(folder, {"5_1": Job("5_1", "NODE_FAIL")}) == ("running", "")


def test_the_job_that_scores_a_run_is_its_job_once_the_training_is_over(folder):
    folder.write_ticket(Ticket("/jobs/x.2", 1, "6_1"), Phase.SCORE)
    scoring = Job("6_1", "PENDING", "Dependency")
    assert job_of(folder, {"5_1": Job("5_1", "RUNNING"), "6_1": scoring}) == Job("5_1", "RUNNING")
    assert job_of(folder, {"5_1": Job("5_1", "COMPLETED"), "6_1": scoring}) == scoring


def test_an_end_without_a_word_is_written_down_once(folder):
    jobs = {"5_1": Job("5_1", "TIMEOUT")}
    assert settle(folder, jobs) == ("failed", "job 5_1: TIMEOUT")
    assert folder.read_status().state == "failed"
    assert settle(folder, jobs) is None
