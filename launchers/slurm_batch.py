"""The batch script of a SLURM job: starts the ranks of one run, watches them, and decides what follows their end.

It sees what no rank can say: that one was killed, that all are stuck, that the job is to be started again. SLURM's
warning before the time limit (USR2) reaches the ranks only; SIGTERM reaches this process too, when somebody else
(scancel, scontrol requeue, a preemption) has decided already what becomes of the job.
"""

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from ftx import progress
from ftx.attempts import CRASHED, FINISHED, INTERRUPTED, MISTAKE, attempts, note_beginning, note_end
from ftx.environment import SlurmJob, slurm_job
from ftx.errors import ExitCode
from ftx.rank_failure import forget_failure
from ftx.run_folder import Phase, RunFolder
from launchers.finish import finish_sweep
from launchers.last_word import say_state
from launchers.slurm_step import Step
from launchers.slurm_verdict import Verdict, forget_code, is_at_its_time_limit, judge, requeue
from launchers.submission import Submission, read_submission

POLL_SECONDS = 0.1
# How long SLURM may take to end this process after it was asked to start the job again.
SLURM_SECONDS = 60.0


class Supervisor:
    """One start of one run by SLURM."""

    def __init__(self, submission: Submission, job: SlurmJob) -> None:
        self._submission, self._job = submission, job
        self._folder = RunFolder(submission.runs[job.index])
        self._told = False
        signal.signal(signal.SIGTERM, self._hear)
        signal.signal(signal.SIGUSR2, lambda *_: None)  # for the ranks

    def work(self, srun: list[str]) -> int:
        """Bring the run further, and return what SLURM is to make of the job."""
        if not self._is_ours():
            progress.say(f"{self._folder.name} was submitted again since; this job leaves it to that one")
            return ExitCode.FINISHED
        is_scoring = self._submission.phase is Phase.SCORE
        run = (self._folder.read_scoring() if is_scoring else None) or self._folder.read_run()
        if self._job.attempt > run.launcher.restarts:
            return self._fail(f"started again {self._job.attempt} times (launcher.restarts={run.launcher.restarts})")
        note_beginning(self._folder, self._job.id, self._job.attempt, self._job.nodes)
        forget_failure(self._folder)
        progress.say(f"{self._folder.path}: start {self._job.attempt} on {self._job.nodes}")
        with Step(self._folder, run, self._job, [*srun, self._submission.phase, str(self._folder.path)]) as step:
            end = step.until_the_end()
        if not self._is_newest():
            progress.say("SLURM has started this run elsewhere in the meantime; nothing more to do here")
            return ExitCode.FAILED
        return self._follow(judge(self._folder, end, told=self._told))

    def _hear(self, *_: object) -> None:
        """A rank that has not come to the end of a step by the time limit is no reason to give the run up."""
        if not self._told and is_at_its_time_limit(self._job):
            requeue(self._job)
        self._told = True

    def _is_ours(self) -> bool:
        """Whether the run's ticket is for this array; its job id is written down where a dead launcher did not."""
        ticket = self._folder.read_ticket(self._submission.phase)
        if ticket is None or ticket.submission != str(self._submission.path):
            return False
        self._folder.write_ticket(replace(ticket, job_id=self._job.id), self._submission.phase)
        return True

    def _is_newest(self) -> bool:
        last = attempts(self._folder)[-1]
        return (last.job_id, last.number) == (self._job.id, self._job.attempt)

    def _follow(self, verdict: Verdict) -> int:
        note_end(self._folder, self._job.id, self._job.attempt, verdict.outcome, verdict.reason)
        forget_failure(self._folder)
        forget_code(self._folder)
        if verdict.outcome == FINISHED:
            finish_sweep(self._submission.sweep)
            return ExitCode.FINISHED
        if self._told:  # SLURM knows what becomes of the job
            return ExitCode.INTERRUPTED
        if verdict.outcome == INTERRUPTED or (verdict.outcome == CRASHED and self._may_retry()):
            return self._again(verdict.reason)
        return self._fail(verdict.reason, ExitCode.USER_MISTAKE if verdict.outcome == MISTAKE else ExitCode.FAILED)

    def _may_retry(self) -> bool:
        crashes = [one for one in attempts(self._folder) if one.job_id == self._job.id and one.outcome == CRASHED]
        return len(crashes) <= self._folder.read_run().launcher.retries

    def _again(self, reason: str) -> int:
        progress.say(f"{reason}: to be started again")
        say_state(self._folder, "pending", f"{reason}; waits to be started again")
        refused = requeue(self._job)
        if refused:
            return self._fail(f"{reason}; SLURM did not start it again ({refused})")
        limit = time.monotonic() + SLURM_SECONDS
        while not self._told and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)
        return ExitCode.INTERRUPTED

    def _fail(self, reason: str, code: ExitCode = ExitCode.FAILED) -> int:
        progress.say(f"failed: {reason}")
        say_state(self._folder, "failed", reason)
        finish_sweep(self._submission.sweep)
        return code


if __name__ == "__main__":
    progress.start_console(with_time=True)
    sys.exit(Supervisor(read_submission(Path(sys.argv[1])), slurm_job()).work(sys.argv[2:]))
