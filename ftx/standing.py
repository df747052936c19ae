"""How a run stands, from all who know: its status.json, its lock, and SLURM where it has a job there."""

from collections.abc import Iterable, Mapping

from ftx.lock import holder
from ftx.run_folder import Phase, RunFolder, Ticket
from ftx.slurm_queue import Job, ended, queue

OVER = ("finished", "failed")


def ask_slurm(folders: Iterable[RunFolder]) -> dict[str, Job]:
    """What SLURM says of the jobs of those runs that are not over; {} where none has one.

    Raises UserError where SLURM does not answer.
    """
    waiting = [folder for folder in folders if folder.read_status().state not in OVER]
    ids = {ticket.job_id for folder in waiting for ticket in tickets(folder) if ticket.job_id}
    if not ids:
        return {}
    active = {name: job for name, job in queue().items() if name in ids}
    return active | ended(ids - set(active))


def tickets(folder: RunFolder) -> list[Ticket]:
    """For the run's own job, and for the one that scores it."""
    return [ticket for phase in (Phase.ALL, Phase.SCORE) if (ticket := folder.read_ticket(phase))]


def job_of(folder: RunFolder, jobs: Mapping[str, Job]) -> Job | None:
    """The job that the run waits for or works in; without one, the last that SLURM remembers."""
    known = [jobs[ticket.job_id] for ticket in tickets(folder) if ticket.job_id and ticket.job_id in jobs]
    return next((job for job in known if job.is_active), known[-1] if known else None)


def state_of(folder: RunFolder, jobs: Mapping[str, Job] | None = None) -> tuple[str, str]:
    """(state, reason) as they really are; ``jobs`` is what SLURM was asked, None where it was not."""
    status = folder.read_status()
    if status.state in OVER:
        return status.state, status.reason
    if holder(folder.lock) is not None:
        return "running", status.reason
    submitted = [ticket for ticket in tickets(folder) if ticket.job_id]
    if not submitted or jobs is None:
        gone = status.state == "running" and not submitted
        return ("interrupted", "its process is gone") if gone else (status.state, status.reason)
    job = job_of(folder, jobs)
    if job is None:
        return "interrupted", f"job {submitted[-1].job_id} is gone, and SLURM has forgotten it"
    if job.is_active:
        return ("pending" if job.is_waiting else "running"), str(job)
    if job.state == "COMPLETED" or job.state.startswith("CANCELLED"):
        return "interrupted", str(job)
    return "failed", str(job)


def settle(folder: RunFolder, jobs: Mapping[str, Job] | None = None) -> tuple[str, str] | None:
    """Write down how a run ended that nobody was left to say it of; (state, reason) where that is news."""
    state, reason = state_of(folder, jobs)
    if state == folder.read_status().state or state not in ("interrupted", "failed"):
        return None
    folder.write_status(state=state, reason=reason)
    return state, reason
