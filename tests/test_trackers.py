"""TensorBoard and W&B: what their own readers find is what metrics.jsonl says, whatever happened to the run."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from run_records import rows_of
from tracker_records import said_by, scores_of, tensorboard_of, wandb_files, wandb_of, wandb_run, wandb_summary
from verb_process import until

from ftx.config.compose import compose
from ftx.config.keys import flat
from ftx.environment import LIBRARY_DEFAULTS, has_wandb_key
from ftx.errors import UserError
from ftx.preflight import check_tracking
from ftx.run_folder import RunFolder
from ftx.to_wandb import id_of

ALSO = "tracking.also=[tensorboard,wandb]"
SINGLE = 2e-7
"""How far a 32-bit float is off, as a share of it."""


def same_points(found, said, rel=0.0):
    assert found.keys() == said.keys()
    for name, points in said.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        values, wanted = ([value for _, value in some] for some in (found[name], points))
        assert values == pytest.approx(wanted, rel=rel, abs=0), name


def both_have_everything(folder: RunFolder):
    """Each step once, in order, and the scores."""
    said, scores = said_by(folder), scores_of(folder)
    same_points(tensorboard_of(folder), said | {name: [(0, value)] for name, value in scores.items()}, rel=SINGLE)
    (file,) = wandb_files(folder)
    same_points(wandb_of(folder), said)
    summary = wandb_summary(file)
    assert {name: summary[name] for name in scores} == scores
    assert summary["ftx.state"] == folder.read_status().state


def rows_reach(place, count):
    return lambda: any(len(file.read_text().splitlines()) > count for file in place.runs.glob("*/metrics.jsonl"))


def test_a_run_that_is_interrupted_killed_and_resumed(place):
    """The first start's trackers have steps that the second one cuts: its last checkpoint is lost."""
    words = (ALSO, "schedule.epochs=3", "schedule.log_every=1", "schedule.save_every=4", "schedule.keep_checkpoints=9")
    first = place.start(*words)
    until(rows_reach(place, 10), first, "ten rows")
    first.send(signal.SIGTERM)
    assert first.ended().code == 75
    folder = place.folder()
    (file,) = wandb_files(folder)
    sent_as = wandb_run(file).run_id
    interrupted_at = rows_of(folder)[-1]["step"]
    assert max(step for step, _ in wandb_of(folder)["train_loss"]) == interrupted_at
    assert max(step for step, _ in tensorboard_of(folder)["train_loss"]) == interrupted_at
    for name in range(5, 30):
        shutil.rmtree(folder.checkpoints / f"step-{name}", ignore_errors=True)

    second = place.start(*words)
    until(lambda: (folder.path / "metrics.cut-1.jsonl").exists() and rows_reach(place, 9)(), second, "rows again")
    second.killed()

    ended = place.train(*words)
    assert ended.code == 0, ended
    assert [row["step"] for row in rows_of(folder) if "train_loss" in row] == list(range(1, 28))
    both_have_everything(folder)
    assert "warning" not in ended.out.lower()

    (file,) = wandb_files(folder)
    there, run = wandb_run(file), folder.read_run()
    assert (there.project, there.display_name) == (run.tracking.experiment, folder.name)
    assert there.run_id == sent_as == id_of(folder)
    config = {item.key: json.loads(item.value_json) for item in there.config.update if item.key != "_wandb"}
    assert config == {name: value for name, value in flat(run).items() if not name.startswith("expected.")}


def test_a_run_that_is_started_over_is_another_one_there(place):
    """`wandb sync runs/*/wandb/offline-run-*` sends each under an id of its own."""
    words = (ALSO, "schedule.epochs=1", "schedule.log_every=1", "schedule.max_steps=3", "evaluation.tasks=[loss]")
    assert place.train(*words).code == 0
    first = place.folder()
    before, sent_as = said_by(first), id_of(first)
    assert place.train(*words, "fresh=true").code == 0
    second = place.folder()
    (aside,) = (RunFolder(path) for path in place.runs.glob("*.old-1"))
    assert id_of(aside) == sent_as != id_of(second)

    files = sorted(place.runs.glob("*/wandb/offline-run-*/*.wandb"))
    assert [wandb_run(file).run_id for file in files] == [id_of(second), sent_as]
    same_points(wandb_of(aside), before)
    both_have_everything(second)
    assert [step for step, _ in wandb_of(second)["train_loss"]] == [1, 2, 3]


def test_what_a_run_is_called_at_wandb(tmp_path):
    """The longest id that is taken still has the whole hash; two folders of one name, made at other times, differ."""
    folders = [RunFolder(tmp_path / place / ("x" * 200)) for place in ("mine", "theirs")]
    for made, folder in enumerate(folders):
        folder.path.mkdir(parents=True)
        (folder.path / "provenance.json").write_text("{}")
        os.utime(folder.path / "provenance.json", ns=(made, made))
    mine, theirs = map(id_of, folders)
    assert (len(mine), len(theirs)) == (128, 128)
    assert mine[:-8] == theirs[:-8]
    assert mine != theirs
    moved = folders[0].path.rename(tmp_path / f"{folders[0].name}.old-3")
    assert id_of(RunFolder(moved)) == mine


@pytest.mark.long
def test_a_sweep_and_scores_that_come_later(place):
    """The arms of a sweep are a group; a run that is scored again has the new scores, and --sync writes it anew."""
    assert place.train("-m", ALSO, "schedule.epochs=0,1", "evaluation.tasks=[loss]", "tracking.offline=true").code == 0
    folders = [RunFolder(file.parent) for file in sorted(place.runs.glob("*/run.yaml"))]
    for folder in folders:
        both_have_everything(folder)
    trained = next(folder for folder in folders if folder.model.exists())
    before = scores_of(trained)
    ended = place.report("--sync", trained.name)
    assert ended.code == 0, ended
    assert [line.split(": ", 1)[1] for line in ended.out.splitlines()] == [
        f"MLflow at {place.uri} is up to date",
        "TensorBoard is up to date",
        "W&B is up to date",
    ]
    both_have_everything(trained)
    assert place.train("-m", ALSO, "schedule.epochs=0,1").code == 0
    for folder in folders:
        both_have_everything(folder)
        (file,) = wandb_files(folder)
        there = wandb_run(file)
        assert there.run_group == folder.read_membership().sweep
        assert there.display_name == folder.read_membership().title
    assert scores_of(trained).keys() > before.keys()


@pytest.mark.parametrize(("tracker", "named"), [("tensorboard", "TensorBoard"), ("wandb", "W&B")])
def test_one_that_cannot_write_ends_nothing(place, tracker, named):
    """Said once; the other trackers have everything, and --sync writes it where that is possible again."""
    words = (ALSO, "schedule.epochs=1", "schedule.log_every=1", "evaluation.tasks=[loss]")
    assert place.train(*words, "schedule.max_steps=1", "evaluation.tasks=[]", "tracking.also=[]").code == 0
    (there,) = place.runs.glob("tiny-*")
    shutil.rmtree(there)
    run = place.start(*words)
    until(lambda: any(place.runs.glob("tiny-*")), run, "the run's folder")
    run.send(signal.SIGSTOP)
    folder = RunFolder(next(place.runs.glob("tiny-*")))
    folder.path.joinpath(tracker).write_text("in the way")
    run.send(signal.SIGCONT)
    ended = run.ended()
    assert ended.code == 0, ended
    warnings = [line for line in ended.out.splitlines() if "warning" in line.lower()]
    assert len(warnings) == 1, ended.out
    assert f"{named} gets no more of this run (" in warnings[0]
    assert f"python -m ftx.report --sync {folder.name}" in warnings[0]
    assert "Traceback" not in ended.out + ended.err
    other = tensorboard_of(folder) if tracker == "wandb" else wandb_of(folder)
    assert [step for step, _ in other["train_loss"]] == list(range(1, 10))

    failed = place.report("--sync", folder.name)
    assert (failed.code, len(failed.err.splitlines())) == (1, 1)
    assert failed.err.startswith(f"error: {folder.name}: {named} gets no more of this run (")
    folder.path.joinpath(tracker).unlink()
    assert place.report("--sync", folder.name).code == 0
    both_have_everything(folder)


@pytest.mark.long
def test_a_wandb_server_that_is_away(place, monkeypatch):
    """The run ends as it would; the warning comes once."""
    words = (ALSO, "tracking.wandb_mode=online", "schedule.epochs=1", "evaluation.tasks=[loss]")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    ended = subprocess.run(
        [sys.executable, "-m", "ftx.train", *map(str, place.words(*words))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended
    said = ended.stdout + ended.stderr
    assert said.count("W&B gets no more of this run (") == 1
    assert "Traceback" not in said
    folder = place.folder()
    assert folder.read_status().state == "finished"
    same_points(
        tensorboard_of(folder),
        said_by(folder) | {name: [(0, value)] for name, value in scores_of(folder).items()},
        rel=SINGLE,
    )


def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch):
    run = compose(ALSO, f"run_root={tmp_path}", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    check_tracking(run)
    for name in ("tensorboard", "wandb"):
        monkeypatch.setattr("ftx.preflight.find_spec", lambda asked, gone=name: None if asked == gone else object())
        with pytest.raises(UserError, match=rf"tracking\.also=\[{name}\]: .*pip install 'ftx\[trackers\]'"):
            check_tracking(run)


def test_where_the_mode_comes_from(monkeypatch):
    """The word, then the environment, then offline; a run without W&B asks nobody."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert compose(ALSO).tracking.wandb_mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert compose(ALSO).tracking.wandb_mode == "online"
    assert compose(ALSO, "tracking.offline=true").tracking.wandb_mode == "offline"
    assert compose(ALSO, "tracking.wandb_mode=offline").tracking.wandb_mode == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert compose("tracking.also=[tensorboard]").tracking.wandb_mode is None
    with pytest.raises(UserError, match=r"WANDB_MODE=disabled: .*tracking\.wandb_mode=offline"):
        compose(ALSO)


def test_online_asks_for_a_key(tmp_path, monkeypatch):
    """Where `wandb login` puts one, or in the environment."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "mine"))
    run = compose(ALSO, "tracking.wandb_mode=online", f"run_root={tmp_path}", f"tracking.uri=sqlite:///{tmp_path}/a.db")
    with pytest.raises(UserError, match=r"tracking\.wandb_mode=online: .*wandb login.*WANDB_API_KEY"):
        check_tracking(run)
    (tmp_path / "mine").write_text("machine api.wandb.ai\n  login user\n  password key\n")
    assert has_wandb_key()
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.example:8080")
    assert not has_wandb_key()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    check_tracking(run)


def test_wandb_reports_nothing_about_itself():
    from wandb.env import error_reporting_enabled

    assert LIBRARY_DEFAULTS["WANDB_ERROR_REPORTING"] == "false"
    assert not error_reporting_enabled()
