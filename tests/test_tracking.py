"""What MLflow has of a run: all of metrics.jsonl, once, whatever happened to the run, the server or the network."""

import signal

import pytest
from mlflow_records import files_in, has_everything, runs_in
from verb_process import until

from ftx.run_folder import RunFolder

WORDS = ("schedule.epochs=1", "schedule.log_every=2")


def test_a_run(place):
    """Interrupted once; a value too long for MLflow is cut there, and whole in run.yaml."""
    long = ",".join(f"module_{number}" for number in range(1000))
    words = (*WORDS, "method=lora", f"method.lora.targets=[q_proj,{long}]")
    run = place.start(*words)
    until(lambda: any(file.stat().st_size for file in place.runs.glob("*/metrics.jsonl")), run, "a row")
    run.send(signal.SIGTERM)
    assert run.ended().code == 75
    folder = place.folder()
    interrupted = place.mlflow().get_run(folder.read_status().mlflow_run_id)
    assert (interrupted.info.status, interrupted.data.tags["ftx.reason"]) == ("KILLED", "SIGTERM")

    ended = place.train(*words)
    assert ended.code == 0, ended
    logged = has_everything(place.mlflow(), folder)
    assert len(runs_in(place.mlflow())) == 1
    assert logged.data.params["schedule.epochs"] == "1"
    assert logged.data.params["method.name"] == "lora"
    assert len(logged.data.params["method.lora.targets"]) == 500
    assert "module_999" in (folder.path / "run.yaml").read_text()
    assert logged.data.tags["ftx.reason"] == ""
    figures = files_in(place.mlflow(), logged.info.run_id, "figures")
    assert figures == {f"figures/{file.name}" for file in folder.figures.iterdir()}
    assert len(figures) == 2


@pytest.mark.long
def test_offline_and_sent_later(place):
    """A sweep: nothing is sent while it runs; --sync makes the parent too, and twice is as good as once."""
    words = ("-m", "schedule.epochs=0,1", "tracking.offline=true")
    assert place.train(*words).code == 0
    assert runs_in(place.mlflow()) == []

    # One arm that was never started.
    never = place.runs / "never-00000000"
    never.mkdir()
    some_run = next(place.runs.glob("tiny-*"))
    for name in ("run.yaml", "provenance.json", "overrides.txt"):
        (never / name).write_text((some_run / name).read_text())

    for _ in range(2):
        synced = place.report("--sync")
        assert synced.code == 0, synced
        assert synced.out.count("is up to date") == 3
        mlflow = place.mlflow()
        assert len(runs_in(mlflow)) == 4
        for path in place.runs.glob("tiny-*"):
            has_everything(mlflow, RunFolder(path))
        by_tag = {run.data.tags.get("ftx.run"): run for run in runs_in(mlflow)}
        assert by_tag[never.name].info.status == "SCHEDULED"
        parent = by_tag[None]
        assert parent.info.status == "FINISHED"
        children = {run.data.tags.get("mlflow.parentRunId") for name, run in by_tag.items() if name and "tiny" in name}
        assert children == {parent.info.run_id}


def test_two_runs_at_once_into_one_file(place):
    """The experiment does not exist yet, and both want to make it."""
    both = [place.start(*WORDS, f"schedule.learning_rate={rate}", "name=both") for rate in (0.001, 0.002)]
    assert [run.ended().code for run in both] == [0, 0]
    folders = [RunFolder(file.parent) for file in place.runs.glob("*/run.yaml")]
    for folder in folders:
        has_everything(place.mlflow(), folder)
    assert len(runs_in(place.mlflow())) == 2
    assert not any("does not answer" in run.out.read_text() for run in both)


def test_whoever_made_the_mlflow_run_died_before_describing_it(place):
    """The next one does; the run stays the same."""
    assert place.train("schedule.epochs=0", "tracking.offline=true").code == 0
    mlflow, folder = place.mlflow(), place.folder()
    bare = mlflow.create_run(mlflow.create_experiment("tiny"), tags={"ftx.run": folder.name}).info.run_id
    folder.write_status(mlflow_run_id=bare)
    assert place.report("--sync").code == 0
    assert has_everything(mlflow, folder).info.run_id == bare
    assert mlflow.get_run(bare).data.params["schedule.epochs"] == "0"


@pytest.mark.parametrize("verb", ["train", "sync"])
def test_a_file_that_is_no_database(place, verb):
    (place.path / "mlflow.db").write_text("not a database" * 100)
    ended = place.train("schedule.epochs=0", f"tracking.offline={str(verb == 'sync').lower()}")
    assert ended.code == 0, ended
    assert ("does not answer" in ended.out) == (verb == "train")
    synced = place.report("--sync")
    assert synced.code == 1
    assert "Traceback" not in synced.err
