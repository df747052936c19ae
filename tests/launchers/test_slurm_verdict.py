"""What the end of a job's ranks means: from what they wrote, and from srun's own words."""

import subprocess

import pytest

from ftx.attempts import CRASHED, FINISHED, INTERRUPTED, MISTAKE
from ftx.config.schema import RunConfig
from ftx.environment import SlurmJob
from ftx.rank_failure import RankFailure, note_failure
from ftx.run_folder import RunFolder
from launchers.slurm_step import Death, End, Step
from launchers.slurm_verdict import Verdict, judge, write_code

KILLED = Death(3, "node2", "Killed")
EXITED = Death(0, "node1", "Exited with exit code 1")
ENDED_BY_SRUN = Death(1, "node1", "Terminated")


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


@pytest.mark.parametrize(
    ("code", "failure", "deaths", "told", "expected"),
    [
        pytest.param(0, None, (), False, Verdict(FINISHED), id="finished"),
        pytest.param(0, None, (), True, Verdict(FINISHED), id="finished just before it was to end"),
        pytest.param(75, None, (), False, Verdict(INTERRUPTED, "as it said"), id="warned"),
        pytest.param(75, None, (), True, Verdict(INTERRUPTED, "ended from outside (SIGTERM)"), id="requeued"),
        pytest.param(None, None, (KILLED,), True, Verdict(INTERRUPTED, "ended from outside (SIGTERM)"), id="cancelled"),
        pytest.param(
            2,
            None,
            (Death(0, "node1", "Exited with exit code 2"),),
            False,
            Verdict(MISTAKE, "as it said"),
            id="mistake",
        ),
        pytest.param(
            1,
            RankFailure(2, "x is wrong", mistake=True),
            (EXITED,),
            False,
            Verdict(MISTAKE, "rank 2: x is wrong"),
            id="mistake that another rank found",
        ),
        pytest.param(
            1,
            RankFailure(2, "KeyError: 1"),
            (EXITED,),
            False,
            Verdict(CRASHED, "rank 2: KeyError: 1"),
            id="crash of another rank",
        ),
        pytest.param(
            1,
            RankFailure(0, "connection lost"),
            (KILLED, EXITED),
            False,
            Verdict(CRASHED, "rank 3 on node2: Killed"),
            id="killed first, the others noticed",
        ),
        pytest.param(
            1,
            RankFailure(2, "KeyError: 1"),
            (EXITED, KILLED),
            False,
            Verdict(CRASHED, "rank 2: KeyError: 1"),
            id="failed first, another aborted then",
        ),
        pytest.param(
            75,
            RankFailure(2, "KeyError: 1"),
            (EXITED, ENDED_BY_SRUN),
            False,
            Verdict(CRASHED, "rank 2: KeyError: 1"),
            id="ended by srun for another rank's failure",
        ),
        pytest.param(1, None, (EXITED,), False, Verdict(CRASHED, "as it said"), id="crash of rank 0"),
    ],
)
def test_what_an_end_means(folder, code, failure, deaths, told, expected):
    folder.write_status(state="failed", reason="as it said")
    if code is not None:
        write_code(folder, code)
    if failure:
        note_failure(folder, failure)
    assert judge(folder, End(code or 137, deaths), told=told) == expected


def test_an_end_without_any_word_is_a_crash_that_names_the_log(folder):
    verdict = judge(folder, End(9, ()), told=False)
    assert verdict.outcome == CRASHED and "srun ended with 9" in verdict.reason and str(folder.log) in verdict.reason


def test_deaths_are_read_from_what_srun_says(folder, tmp_path):
    """In srun's words as SLURM 22.05 to 25 have them."""
    said = tmp_path / "said"
    said.write_text(
        "srun: error: node2: task 3: Killed\n"
        "srun: launch/slurm: _step_signal: Terminating StepId=7.0\n"
        "slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-11-21T15:31:28 ***\n"
        "srun: error: node1: tasks 0-1: Exited with exit code 75\n"
        "srun: error: gpu-a[1-2]: tasks 4,6: Segmentation fault (core dumped)\n"
    )
    with Step(folder, RunConfig(), SlurmJob("7_0", 0, 0, "node[1-2]"), ["sh", "-c", f"cat {said} >&2; exit 9"]) as step:
        end = step.until_the_end()
    expected = [
        Death(3, "node2", "Killed"),
        Death(0, "node1", "Exited with exit code 75"),
        Death(4, "gpu-a[1-2]", "Segmentation fault (core dumped)"),
    ]
    assert (end.code, list(end.deaths)) == (9, expected)


def test_srun_ends_with_its_supervisor(folder):
    with Step(folder, RunConfig(), SlurmJob("7_0", 0, 0, "node1"), ["sleep", "600"]) as step:
        srun = step._srun
    assert isinstance(srun, subprocess.Popen) and srun.poll() is not None
