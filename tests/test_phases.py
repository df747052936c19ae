"""A run that one job trains and another one scores: the same scores, nothing done twice."""

from dataclasses import replace

import pytest
from mlflow_records import has_everything, runs_in
from run_records import scored
from verb_process import DEADLINE_SECONDS, SERVER

from ftx.config.compose import compose_all
from ftx.job import run_job
from ftx.run_folder import Phase, RunFolder
from ftx.runs_on_disk import open_run_folder
from launchers.folders import describe_on_disk, locate
from launchers.ranks import run_phases

WORDS = ("schedule.epochs=1", "schedule.log_every=3")
APART = (*WORDS, "evaluation.hardware=cpu")


@pytest.fixture(scope="module")
def together(new_place):
    """The scores and predictions of a run that one job trains and scores."""
    place = new_place()
    ended = place.train(*WORDS)
    assert ended.code == 0, ended
    return result_of(place.folder())


def result_of(folder):
    return scored(folder), folder.predictions("classification").read_text()


def job(folder, phase):
    """The exit code of a job for one part of the run, in a process of its own."""
    process = SERVER.Process(target=be_job, args=(folder.path, phase))
    process.start()
    process.join(DEADLINE_SECONDS)
    return process.exitcode


def be_job(path, phase):
    raise SystemExit(run_job(RunFolder(path), phase))


def described(place, *words):
    """The run's folder as the launcher leaves it to jobs."""
    (composed,) = compose_all([str(word) for word in place.words(*words)]).runs
    folder = locate(composed)
    describe_on_disk(composed, folder)
    return folder


def status(folder):
    read = folder.read_status()
    return read.state, read.reason


@pytest.mark.long
def test_trained_here_and_scored_there(place, together):
    ended = place.train(*APART)
    assert ended.code == 0, ended
    folder = place.folder()
    assert result_of(folder) == together
    assert status(folder) == ("finished", "")
    assert folder.read_scoring().hardware.micro_batch == 1 != folder.read_run().hardware.micro_batch
    has_everything(place.mlflow(), folder)
    assert len(runs_in(place.mlflow())) == 1
    assert ended.out.count("classification (n = 20)") == folder.log.read_text().count("classification (n = 20)") == 1

    again = place.train(*APART)
    assert "finished already" in again.out
    describe_on_disk(compose_all([str(word) for word in place.words(*WORDS)]).runs[0], folder)
    assert not (folder.path / "scoring.yaml").exists()


@pytest.mark.long
def test_a_job_for_each_part(place, together):
    """What scores waits for what trains; in between, every side says that the run is not done."""
    folder = described(place, *APART)
    assert job(folder, Phase.SCORE) == 2
    assert status(folder)[0] == "failed" and "no model/ to score" in status(folder)[1]

    for _ in range(2):
        assert job(folder, Phase.TRAIN) == 0
        assert status(folder) == ("pending", "trained; to be scored")
        assert not folder.read_scores() and not folder.is_complete(folder.read_run())
        tracked = place.mlflow().get_run(folder.read_status().mlflow_run_id)
        assert (tracked.info.status, tracked.data.tags["ftx.state"]) == ("SCHEDULED", "pending")
    trained = (folder.model / "model.safetensors").stat().st_mtime_ns

    assert job(folder, Phase.SCORE) == 0
    assert result_of(folder) == together
    assert status(folder) == ("finished", "")
    has_everything(place.mlflow(), folder)
    assert job(folder, Phase.TRAIN) == 0
    assert status(folder) == ("finished", "")
    assert (folder.model / "model.safetensors").stat().st_mtime_ns == trained


@pytest.mark.long
def test_the_runs_of_a_sweep(place, together):
    """A base model, with nothing to train, and a run that a job had trained: both are only scored."""
    folder = described(place, *APART)
    assert job(folder, Phase.TRAIN) == 0
    trained = (folder.model / "model.safetensors").stat().st_mtime_ns
    ended = place.train("-m", *APART, "schedule.epochs=0,1", "launcher.parallel=2")
    assert ended.code == 0, ended
    folders = [RunFolder(file.parent) for file in place.runs.glob("*/run.yaml")]
    assert [status(one) for one in folders] == [("finished", "")] * 2
    assert [one.read_scores()["classification"]["accuracy"]["n"] for one in folders] == [20, 20]
    assert result_of(folder) == together
    assert (folder.model / "model.safetensors").stat().st_mtime_ns == trained


@pytest.mark.long
def test_a_failure_to_score(place):
    """It is the run's own, with its reason; mended, only the scoring is done again, as scoring.yaml has it."""
    folder = described(place, *APART)
    assert job(folder, Phase.TRAIN) == 0
    (folder.path / "predictions").write_text("")
    assert job(folder, Phase.SCORE) == 1
    assert status(folder)[0] == "failed" and "predictions" in status(folder)[1]
    (folder.path / "predictions").unlink()
    run, scoring = folder.read_run(), folder.read_scoring()
    scoring = replace(scoring, evaluation=replace(scoring.evaluation, limit=10))
    open_run_folder(folder, run, [], {}, scoring)
    assert run_phases(folder, run, scoring, 1, with_time=True) == 0
    assert folder.read_scores()["classification"]["accuracy"]["n"] == 10
