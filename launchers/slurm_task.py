"""One rank of a run on SLURM: an srun task. Its words go to the run's folder, as anywhere."""

import os
import sys
from pathlib import Path

from ftx.environment import Rank, slurm_hosts, take_slurm_rank
from ftx.errors import ExitCode
from ftx.heartbeat import watched
from ftx.run_folder import Phase, RunFolder
from ftx.slurm_queue import has_lost_its_job
from ftx.stopping import block_warning_signal
from launchers.slurm_verdict import write_code


def main(folder: RunFolder, phase: Phase) -> int:
    """The exit code that srun gets: only rank 0's says how the run ended, and is noted for the supervisor."""
    rank = take_slurm_rank(slurm_hosts())
    _speak_into(folder, rank)
    # From here on whoever waits for this rank can see that it is importing, and not missing.
    with watched(folder, rank.index):
        from ftx import progress
        from ftx.job import run_job

        progress.start_console(with_time=True)
        code = run_job(folder, phase, supersedes=has_lost_its_job)
    if rank.is_main:
        write_code(folder, code)
        return code
    # An exit code other than 0 would end rank 0 while it writes down how the run was interrupted.
    return ExitCode.FINISHED if code == ExitCode.INTERRUPTED else code


def _speak_into(folder: RunFolder, rank: Rank) -> None:
    """Whatever comes after this, libraries in C included, is written to the rank's log."""
    with folder.log_of(rank.index).open("ab") as opened:
        os.dup2(opened.fileno(), 1)
        os.dup2(opened.fileno(), 2)


if __name__ == "__main__":
    block_warning_signal()
    ended_with = main(RunFolder(Path(sys.argv[2])), Phase(sys.argv[1]))
    from ftx.distributed import end_process

    end_process(ended_with)
