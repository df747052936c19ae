"""To a SLURM cluster: runs of one shape as one array, submitted once however often the command is given."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ftx import progress
from ftx.config.compose import ComposedRun, Composition
from ftx.config.launcher_checks import check_tracking_of_jobs
from ftx.config.schema import RunConfig
from ftx.config.stored import run_to_yaml
from ftx.data.fingerprint import pinned
from ftx.errors import ExitCode, UserError
from ftx.lock import Held, holder, lock
from ftx.run_folder import Phase, RunFolder
from ftx.scores import describe
from ftx.slurm_queue import Job, has_lost_its_job, queue
from ftx.standing import job_of
from ftx.sweep_folder import Sweep, open_sweep, sweep_path
from launchers.cost import check_cost, estimate
from launchers.folders import describe_on_disk, find, locate
from launchers.slurm_script import LARGEST_ARRAY, Place, Shape, executor, script, shape_of
from launchers.snapshot import snapshot_path, take_snapshot
from launchers.submission import Submission, adopt, next_number, path_of, submit


@dataclass(frozen=True)
class Waiting:
    """A run that is to be submitted, and its name in a message."""

    composed: ComposedRun
    folder: RunFolder
    title: str


@dataclass(frozen=True)
class Planned:
    """An array as it could be submitted now; one that scores what another trains waits for that one."""

    submission: Submission
    shape: Shape
    place: Place
    name: str
    titles: tuple[str, ...]
    waits: bool

    def script(self, after: str | None) -> str:
        made = executor(self.shape, self.place, name=self.name, count=len(self.titles), after=after)
        return script(made, self.shape, self.place)


def launch(composition: Composition) -> ExitCode:
    """Submit every run that is neither finished nor queued nor running; returns as soon as SLURM has them."""
    first = composition.runs[0].run
    if first.launcher.dry_run:
        sys.stdout.write(dry_run(composition))
        return ExitCode.FINISHED
    check_tracking_of_jobs([composed.run for composed in composition.runs])
    if first.fresh:
        _check_nobody_at_work(composition.runs)
    folders = [locate(composed) for composed in composition.runs]
    if composition.is_sweep:
        return work_on(open_sweep(composition, folders), composition.runs)
    progress.say(f"run: {folders[0].path}")
    return _submit_what_is_left([Waiting(composition.runs[0], folders[0], folders[0].name)], folders[0].name, None)


def work_on(sweep: Sweep, runs: Sequence[ComposedRun]) -> ExitCode:
    """The same for a sweep that is described already; ``runs`` are its members' in their order."""
    progress.say(f"sweep: {sweep.path}")
    titles = [member.title for member in sweep.members]
    all_of_them = [Waiting(*one) for one in zip(runs, sweep.folders(), titles, strict=True)]
    return _submit_what_is_left(all_of_them, sweep.name, sweep)


def _submit_what_is_left(runs: Sequence[Waiting], name: str, sweep: Sweep | None) -> ExitCode:
    with alone(_run_root(runs)):
        jobs = queue()
        adopt((one.folder for one in runs), jobs)
        submit_all([one for one in runs if is_to_submit(one, jobs)], name, sweep)
    return ExitCode.FINISHED


def submit_all(waiting: Sequence[Waiting], name: str, sweep: Sweep | None) -> None:
    """Bring these runs into the queue, with the MLflow parent that they share."""
    if not waiting:
        return
    tracking = waiting[0].composed.run.tracking
    cost = estimate([one.composed.run for one in waiting], _run_root(waiting))
    progress.say(cost.text)
    check_cost(cost, waiting[0].composed.run.launcher)
    for one in waiting:
        describe_on_disk(_pinned(one.composed), one.folder)
    if sweep and not tracking.offline:
        submitted = {one.folder.path for one in waiting}
        sweep.with_parent(tracking, [one for one in sweep.members if sweep.folder_of(one).path in submitted])
    take_snapshot(_run_root(waiting))
    array = None
    for planned in plan(waiting, name, sweep.path if sweep else None):
        text = planned.script(f"aftercorr:{array}" if planned.waits else None)
        planned.submission.save(text)
        array = submit(planned.submission)
        _say_submitted(planned, array)
    _say_how_to_look(name, waiting[0].folder, sweep)


def is_to_submit(one: Waiting, jobs: Mapping[str, Job]) -> bool:
    """Says so where not."""
    job = job_of(one.folder, jobs)
    if job is not None and job.is_active:
        progress.say(f"{one.title}: {job}; left alone")
    elif one.folder.is_complete(one.composed.run):
        progress.say(f"{one.title}: finished already: {describe(one.folder.read_scores(), brief=True)}")
    # One whose job is over has been told to end, or cannot be told: the new job takes the run from him.
    elif (at_it := holder(one.folder.lock)) is not None and not has_lost_its_job(at_it):
        progress.say(f"{one.title}: {at_it} is at it; left alone")
    else:
        return True
    return False


def dry_run(composition: Composition) -> str:
    """The scripts and resolved runs as they would be submitted if none of the runs had begun."""
    folders = [find(composed) for composed in composition.runs]
    name = sweep_path(composition, folders).name if composition.is_sweep else folders[0].name
    runs = [Waiting(composed, folder, folder.name) for composed, folder in zip(composition.runs, folders, strict=True)]
    parts, before = [], ""
    for planned in plan(runs, name, None):
        parts.append(f"# ---- {planned.submission.path}/script.sh")
        parts.append(planned.script(f"aftercorr:JOB_OF_{before}" if planned.waits else None))
        parts += [f"# array element {index}: {run}" for index, run in enumerate(planned.submission.runs)]
        before = planned.submission.path.name
    parts += [f"# ---- {line}" for line in _before_submitting([one.composed.run for one in runs])]
    parts.append("# ---- environment: that of this shell (sbatch --export=ALL), with what the script sets and unsets")
    for one in runs:
        parts.append(f"# ---- {one.folder.path}/run.yaml\n{run_to_yaml(one.composed.run)}")
    return "\n".join(parts)


def _before_submitting(runs: Sequence[RunConfig]) -> Iterator[str]:
    """What the jobs will take, and what the user will have to mend or agree to."""
    cost = estimate(runs, Path(runs[0].run_root))
    yield from cost.text.splitlines()
    for check in (lambda: check_tracking_of_jobs(runs), lambda: check_cost(cost, runs[0].launcher)):
        try:
            check()
        except UserError as mistake:
            yield f"would be refused: {mistake}"


def plan(waiting: Sequence[Waiting], name: str, sweep: Path | None) -> Iterator[Planned]:
    """The arrays of these runs: each of one shape, no larger than sites allow; one that scores after what it scores."""
    run_root = _run_root(waiting)
    code, number = snapshot_path(run_root), next_number(run_root, name)
    for phases, chunk in _chunks(waiting):
        for phase in phases:
            path = path_of(run_root, name, number)
            number += 1
            yield Planned(
                Submission(path, tuple(one.folder.path for one in chunk), phase, sweep),
                shape_of(_run_of(chunk[0], phase)),
                Place(path, code, Path.cwd()),
                f"{name}-score" if phase is Phase.SCORE else name,
                tuple(one.title for one in chunk),
                waits=phase is not phases[0],
            )


def _chunks(waiting: Sequence[Waiting]) -> Iterator[tuple[Sequence[Phase], Sequence[Waiting]]]:
    """(What jobs of their own do one after another; the runs of one array)."""
    alike: dict[str, list[Waiting]] = {}
    for one in waiting:
        alike.setdefault(repr([(phase, shape_of(_run_of(one, phase))) for phase in _phases(one)]), []).append(one)
    for runs in alike.values():
        for begin in range(0, len(runs), LARGEST_ARRAY):
            yield _phases(runs[0]), runs[begin : begin + LARGEST_ARRAY]


def _phases(one: Waiting) -> Sequence[Phase]:
    if one.composed.scoring is None:
        return [Phase.ALL]
    is_trained = one.composed.run.schedule.epochs == 0 or one.folder.model.exists()
    return [Phase.SCORE] if is_trained else [Phase.TRAIN, Phase.SCORE]


def _run_of(one: Waiting, phase: Phase) -> RunConfig:
    scoring = one.composed.scoring
    return scoring if phase is Phase.SCORE and scoring is not None else one.composed.run


def _pinned(composed: ComposedRun) -> ComposedRun:
    return replace(composed, run=pinned(composed.run), scoring=composed.scoring and pinned(composed.scoring))


def _run_root(waiting: Sequence[Waiting]) -> Path:
    return Path(waiting[0].composed.run.run_root)


@contextmanager
def alone(run_root: Path) -> Iterator[None]:
    """One shell at a time submits runs of a run_root: two could both find that a run is not queued yet."""
    (run_root / ".jobs").mkdir(parents=True, exist_ok=True)
    try:
        with lock(run_root / ".jobs" / "submit.lock"):
            yield
    except Held as held:
        raise UserError(
            f"run_root={run_root}: {held.holder} is submitting runs of it; wait for that and look"
        ) from None


def _check_nobody_at_work(runs: Sequence[ComposedRun]) -> None:
    """Raise UserError for ``fresh=true`` of a run that SLURM has."""
    jobs, folders = queue(), [find(composed) for composed in runs]
    adopt(folders, jobs)
    for folder in folders:
        job = job_of(folder, jobs)
        if job is not None and job.is_active:
            raise UserError(f"fresh=true: {folder.name}: {job}; end that with scancel {job.id}, or leave fresh out")


def _say_submitted(planned: Planned, array: str) -> None:
    count, shape = len(planned.titles), planned.shape
    what = "scores" if planned.submission.phase is Phase.SCORE else "trains"
    side_by_side = f", at most {shape.launcher.parallel} at a time" if count > shape.launcher.parallel else ""
    progress.say(f"submitted job {array}: {what} {count} run{'s' * (count > 1)} on {shape} each{side_by_side}")
    for index, (title, run) in enumerate(zip(planned.titles, planned.submission.runs, strict=True)):
        progress.say(f"  {array}_{index}  {title}  {run}")


def _say_how_to_look(name: str, first: RunFolder, sweep: Sweep | None) -> None:
    if sweep:
        progress.say(f"look:    python -m ftx.sweep status {name}   (also: squeue --me, {first.path}/log.txt)")
        progress.say(f"end it:  python -m ftx.sweep cancel {name}")
    else:
        progress.say(f"look:    squeue --me; tail -F {first.path}/log.txt")
        progress.say("end it:  scancel JOB; the same command resumes it")
