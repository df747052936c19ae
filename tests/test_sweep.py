"""Several runs from one command: their folder, their report, what a repeat does, what one failure does to the rest."""

import csv
import json

import pytest
from mlflow.entities import ViewType
from verb_process import start

from ftx.run_folder import RunFolder

WORDS = ("-m", "schedule.epochs=0,1,2", "schedule.eval_every=never")
EPOCHS = (0, 1, 2)


def in_sweep(place):
    """The only sweep's folder."""
    (folder,) = (place.runs / "sweeps").iterdir()
    return folder


def run_of(place, epochs):
    """The folder of the arm with so many epochs."""
    described = json.loads((in_sweep(place) / "sweep.json").read_text())
    (name,) = [run["run"] for run in described["runs"] if run["swept"] == {"schedule.epochs": str(epochs)}]
    return RunFolder(place.runs / name)


def scored_at(place, *epochs):
    """When arms were scored."""
    return [(run_of(place, one).path / "scores.json").stat().st_mtime_ns for one in epochs]


def parents(place):
    """The MLflow runs that hang under no other."""
    mlflow = place.mlflow()
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments(ViewType.ALL)]
    return [run for run in mlflow.search_runs(experiments) if "mlflow.parentRunId" not in run.data.tags]


@pytest.mark.long
def test_a_sweep(place):
    """One story in chapters, since every arm is a process of its own."""
    nothing_starts_when_one_arm_is_wrong(place)
    one_arm_fails(place)
    only_what_is_missing_is_made(place)
    children_hang_under_the_parent(place)
    a_repeat_trains_nothing(place)
    the_report_verb(place)


def nothing_starts_when_one_arm_is_wrong(place):
    wrong = place.train("-m", "schedule.epochs=0,1,-2")
    assert wrong.code == 2
    assert not list(place.runs.glob("**/run.yaml"))


def one_arm_fails(place):
    """Something lies in its way; the others finish, and exit code, report and MLflow say what happened."""
    folder = planted(place, "schedule.epochs=1", "schedule.eval_every=never")
    failed = place.train(*WORDS, "launcher.parallel=2", cwd=place.cache)
    assert failed.code == 1, failed
    sweep = in_sweep(place)
    assert failed.out.splitlines()[0] == f"sweep: {sweep}"
    assert [run_of(place, epochs).read_status().state for epochs in EPOCHS] == ["finished", "failed", "finished"]
    assert run_of(place, 1).path == folder.path
    reason = folder.read_status().reason
    assert "predictions" in reason
    assert f"epochs=1: failed: {reason} (see {folder.log})" in failed.out
    report = (sweep / "report.md").read_text()
    assert "failed: " in report
    assert "predictions" in report
    (parent,) = parents(place)
    assert parent.info.status == "FAILED"


def only_what_is_missing_is_made(place):
    """One arm is mended, another's folder is gone: the report says so, and the same command makes these two."""
    sweep, before, parent = in_sweep(place), scored_at(place, 0, 2), parents(place)[0].info.run_id
    (run_of(place, 1).path / "predictions").unlink()
    run_of(place, 2).path.rename(place.path / "gone")
    shown = place.report(sweep.name)
    assert shown.code == 0, shown
    assert "pending" in shown.out

    mended = place.train(*WORDS, "launcher.parallel=2")
    assert mended.code == 0, mended
    after = scored_at(place, 0, 2)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert "epochs=0: finished already" in mended.out.splitlines()
    assert in_sweep(place) == sweep
    assert [run.info.run_id for run in parents(place)] == [parent]
    figures = {f"{name}.{kind}" for name in ("figure", "learning_curves", "confusion") for kind in ("png", "svg")}
    assert {path.name for path in sweep.iterdir()} == {"sweep.json", "report.md", "report.csv", *figures}
    report = (sweep / "report.md").read_text()
    assert "failed" not in report
    text, _, pictures = report.removeprefix(f"# {sweep.name}\n\n").partition("\n\n![")
    assert text in mended.out
    assert pictures.count("](") == 3
    assert "## Cost" in text
    assert f"figure: {sweep / 'figure.png'}" in mended.out
    arms = list(csv.DictReader((sweep / "report.csv").open()))
    assert [arm["schedule.epochs"] for arm in arms] == ["0", "1", "2"]


def a_repeat_trains_nothing(place):
    """The same folder and the same MLflow parent."""
    sweep, before, parent = in_sweep(place), scored_at(place, *EPOCHS), parents(place)[0].info.run_id
    again = place.train(*WORDS)
    assert again.code == 0
    assert scored_at(place, *EPOCHS) == before
    said = [line for line in again.out.splitlines() if line.startswith("epochs=")]
    assert said == [f"epochs={epochs}: finished already" for epochs in EPOCHS]
    assert in_sweep(place) == sweep
    assert [run.info.run_id for run in parents(place)] == [parent]


def planted(place, *words):
    """The folder that a run will have, with a file where predictions/ should be."""
    from ftx.config.compose import compose
    from ftx.data.fingerprint import data_fingerprint, model_fingerprint
    from ftx.runs_on_disk import find_run_folder

    run = compose(*map(str, place.words(*words)))
    folder = find_run_folder(run, data_fingerprint(run), model_fingerprint(run))
    folder.path.mkdir(parents=True)
    (folder.path / "predictions").write_text("")
    return folder


def children_hang_under_the_parent(place):
    mlflow = place.mlflow()
    (parent,) = parents(place)
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == in_sweep(place).name
    names = {file.path for file in mlflow.list_artifacts(parent.info.run_id)}
    assert {"report.md", "report.csv", "figure.png", "figure.svg", "learning_curves.png", "confusion.svg"} <= names
    assert "Best accuracy: " in parent.data.tags["mlflow.note.content"]
    assert (parent.data.tags["ftx.state"], parent.data.tags["ftx.experiment"]) == ("finished", "tiny-full-stdlib_docs")
    for epochs in EPOCHS:
        folder = run_of(place, epochs)
        child = mlflow.get_run(folder.read_status().mlflow_run_id)
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["ftx.run"] == folder.name
        assert child.data.params["schedule.epochs"] == str(epochs)
        assert child.info.run_name == f"epochs={epochs}"
        assert child.info.status == "FINISHED"
        accuracy = folder.read_scores()["classification"]["accuracy"]["value"]
        assert [point.value for point in mlflow.get_metric_history(child.info.run_id, "classification/accuracy")] == [
            accuracy
        ]


def the_report_verb(place):
    """By folder and by name; one metric only; the state of what is not finished; what it does not know."""
    sweep = in_sweep(place)
    by_name, by_folder = place.report(sweep.name), start("report", sweep, into=place.path / "said").ended()
    assert by_name.code == by_folder.code == 0
    assert by_name.out == by_folder.out
    assert "| schedule.epochs |" in by_name.out
    assert "macro_f1" in by_name.out
    one_metric = place.report(sweep.name, "--metric", "macro_f1")
    assert one_metric.code == 0
    assert "macro_f1" in one_metric.out
    assert "accuracy" not in one_metric.out.partition("figure:")[0]

    run_of(place, 1).write_status(state="running", reason="")
    killed = place.report(sweep.name)
    assert "interrupted" in killed.out
    assert "its process is gone" in killed.out

    unknown = place.report("no-such")
    assert unknown.code == 2
    assert unknown.err == f"error: no-such: no such sweep; there are {sweep.name}\n"
