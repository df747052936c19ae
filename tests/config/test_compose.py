"""Words become runs: defaults, experiments, sweeps, choices of one's own, and run.yaml there and back."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ftx.config import arms
from ftx.config.compose import compose, compose_all
from ftx.config.help import choices_of, groups
from ftx.config.keys import flat
from ftx.config.schema import SCHEMA_VERSION, RunConfig
from ftx.config.stored import run_from_yaml, run_to_yaml
from ftx.environment import CHECKOUT
from ftx.errors import UserError

YAML_FILES = sorted(
    file for folder in ("conf", "launchers", "experiments") for file in (CHECKOUT / folder).rglob("*.yaml")
)
CHOICES = [(group, choice) for group in groups() for choice in choices_of(group)]
# What a choice cannot do without.
NEEDS = {
    "export=merge": ["method=lora"],
    "export=hub": ["export.repository=owner/name"],
    "model=hub": ["model.name=a/b"],
    "data=jsonl": ["data.path=a.jsonl"],
    "data=hub": ["data.path=a/b"],
    "data=mixture": ["data.sources.a.path=a.jsonl"],
    "method=full_bf16": ["hardware.precision=bf16"],
    "hardware=8xH100": ["schedule.global_batch_size=8"],
    "hardware=8xH200": ["schedule.global_batch_size=8"],
    "hardware=8x8xH100": ["schedule.global_batch_size=64"],
    "evaluation=bfcl": ["evaluation.function_calling.path=bfcl"],
    "evaluation=dabench": [f"evaluation.data_agent.path={CHECKOUT}"],
    "experiment=ag_news_small": ["data.path=train.csv", "data.holdout_path=test.csv"],
}


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder with choices of one's own."""
    folder = tmp_path / "mine"
    (folder / "model" / "team").mkdir(parents=True)
    text = "# A model of mine.\nweights: random\ntemplate: plain\nsuggested_learning_rate: 3e-3\n"
    (folder / "model" / "mine.yaml").write_text(text)
    (folder / "model" / "team" / "ours.yaml").write_text(text)
    (folder / "data").mkdir()
    (folder / "data" / "ours.yaml").write_text("# Data of ours.\nsource: jsonl\npath: ours.jsonl\n")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n# An experiment of mine.\ndefaults:\n  - override /method: lora\nname: my-experiment\n"
        "method:\n  lora:\n    rank: 4\n"
    )
    return folder


def runs(*words: str, multirun: bool = True) -> list[RunConfig]:
    return [composed.run for composed in compose_all(words, multirun=multirun).runs]


def test_defaults():
    run = compose()
    assert run.name == "tiny-full-stdlib_docs"
    assert run.run_root == str(CHECKOUT / "runs")
    assert run.tracking.uri == f"sqlite:///{CHECKOUT}/mlflow.db"
    assert run.tracking.experiment == run.name
    assert run.schedule.learning_rate == run.model.suggested_learning_rate == 1e-3
    assert run.schedule.global_batch_size == run.model.suggested_global_batch_size
    assert compose("schedule.learning_rate=1e-4").schedule.learning_rate == 1e-4


def test_tasks_come_with_the_data():
    assert compose().evaluation.tasks == ["classification"]
    assert compose("data=jsonl", "data.path=a.jsonl").evaluation.tasks == ["loss"]
    assert compose("data=math_science").evaluation.tasks == ["math", "loss"]
    assert compose("data=glaive_function_calling").evaluation.tasks == ["function_calling", "loss"]
    assert compose("evaluation.tasks=[loss]").evaluation.tasks == ["loss"]


def test_a_name_is_that_of_the_words_or_the_experiment():
    assert compose("method=lora").name == "tiny-lora-stdlib_docs"
    assert compose("name=mine").name == "mine"
    assert compose("name=mine").tracking.experiment == "mine"
    assert compose("name=mine", "tracking.experiment=ours").tracking.experiment == "ours"


def test_paths_do_not_depend_on_where_a_job_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    words = ["data=jsonl", "data.path=a.jsonl", "data.cache=cache", "run_root=runs", "tracking.uri=sqlite:///m.db"]
    run = compose(*words, "model=hub", "model.name=weights")
    assert run.data.path == str(tmp_path / "a.jsonl")
    assert run.data.cache == str(tmp_path / "cache")
    assert run.run_root == str(tmp_path / "runs")
    assert run.tracking.uri == f"sqlite:///{tmp_path}/m.db"
    assert run.model.name == str(tmp_path / "weights")
    assert compose("model=hub", "model.name=owner/model").model.name == "owner/model"
    assert compose(*words[:1], 'data.path="~/a.jsonl"').data.path == str(Path.home() / "a.jsonl")


def test_from_any_folder_and_nothing_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(compose_all(["experiment=stdlib_docs_epochs", "launcher=local"]).runs) == 6
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_that_declares_its_sweep():
    composition = compose_all(["experiment=stdlib_docs_epochs"])
    assert composition.is_sweep and composition.swept == ("schedule.epochs",)
    assert [composed.run.schedule.epochs for composed in composition.runs] == [0, 1, 2, 3, 5, 7]
    assert {composed.run.name for composed in composition.runs} == {"stdlib-docs-epochs"}
    assert {composed.run.tracking.experiment for composed in composition.runs} == {"stdlib-docs-epochs"}


def test_a_word_inside_an_experiment():
    changed = runs("experiment=stdlib_docs_epochs", "schedule.learning_rate=5e-4", multirun=False)
    assert [run.schedule.learning_rate for run in changed] == [5e-4] * 6
    assert [run.schedule.epochs for run in runs("experiment=stdlib_docs_epochs", "schedule.epochs=2,4")] == [2, 4]
    one = compose_all(["experiment=stdlib_docs_epochs", "schedule.epochs=2"])
    assert [composed.run.schedule.epochs for composed in one.runs] == [2] and one.swept == ()


def test_a_sweep_is_expanded():
    assert [run.schedule.epochs for run in runs("schedule.epochs=0,1,5")] == [0, 1, 5]
    assert [run.schedule.epochs for run in runs("schedule.epochs=range(1,4)")] == [1, 2, 3]
    both = compose_all(["schedule.epochs=1,2", "seed=7,8"], multirun=True)
    assert [(composed.run.schedule.epochs, composed.run.seed) for composed in both.runs] == [
        (1, 7),
        (1, 8),
        (2, 7),
        (2, 8),
    ]
    assert both.swept == ("schedule.epochs", "seed")
    assert both.runs[1].words == ("schedule.epochs=1", "seed=8")
    assert compose_all(["schedule.epochs=1"], multirun=True).is_sweep
    assert not compose_all(["schedule.epochs=1"]).is_sweep


@pytest.mark.parametrize(
    ("words", "experiment"),
    [
        (["schedule.epochs=1,2"], "tiny-full-stdlib_docs"),
        (["method=full,lora"], "tiny-stdlib_docs"),
        (["model=tiny,qwen3_4b", "method=full,lora", "schedule.global_batch_size=8"], "stdlib_docs"),
        (["model=tiny,mine", "method=full,lora", "data=stdlib_docs,ours"], "sweep"),
        (["method=full,lora", "name=mine"], "mine"),
        (["name=mine,yours"], "tiny-full-stdlib_docs"),
        (["method=full,lora", "name=mine", "tracking.experiment=ours"], "ours"),
    ],
)
def test_the_experiment_is_the_name_without_what_is_swept(words, experiment, own):
    composition = compose_all(words, multirun=True, config_dir=own)
    assert {composed.run.tracking.experiment for composed in composition.runs} == {experiment}


def test_arms_of_a_group_have_names_of_their_own():
    assert [run.name for run in runs("method=full,lora")] == ["tiny-full-stdlib_docs", "tiny-lora-stdlib_docs"]


def test_one_wrong_arm_and_there_is_no_run():
    with pytest.raises(UserError, match=r"schedule\.epochs=-1"):
        compose_all(["schedule.epochs=1,-1"], multirun=True)


def test_the_api_refuses_a_sweep():
    with pytest.raises(UserError, match="returns one"):
        compose("experiment=stdlib_docs_epochs")


def test_choices_of_ones_own(own):
    run = compose("model=mine", config_dir=own)
    assert (run.name, run.model.template, run.schedule.learning_rate) == ("mine-full-stdlib_docs", "plain", 3e-3)
    assert compose("model=team/ours", config_dir=own).name == "team-ours-full-stdlib_docs"
    experiment = compose("experiment=mine", config_dir=own)
    assert (experiment.name, experiment.method.name, experiment.method.lora.rank) == ("my-experiment", "lora", 4)
    with pytest.raises(UserError, match=r"model=mine: no such choice"):
        compose("model=mine")


def test_a_key_in_an_experiment_that_nothing_reads(own):
    file = own / "experiment" / "mine.yaml"
    file.write_text("# @package _global_\n# Reads nothing.\nmethod:\n  lora:\n    rank: 4\n")
    with pytest.raises(UserError, match=r"method\.lora\.rank=4: nothing in this run reads it"):
        compose("experiment=mine", config_dir=own)


def test_experiments_of_the_checkout_may_choose(own, monkeypatch):
    folder = own / "experiment"
    monkeypatch.setitem(arms.OUTSIDE_CONF, "experiment", (folder, "_global_"))
    assert compose("experiment=mine").method.name == "lora"


def test_run_yaml_there_and_back():
    for words in ([], ["method=lora", "method.lora.targets=[q_proj]", "data.limit=5", "schedule.save_every=20"]):
        run = compose(*words)
        assert run_from_yaml(run_to_yaml(run), Path("run.yaml")) == run


def test_run_yaml_of_another_time():
    text = run_to_yaml(compose("schedule.epochs=5"))
    older = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("fresh:"))
    assert len(older) < len(text)
    assert run_from_yaml(older, Path("run.yaml")) == compose("schedule.epochs=5")
    newer = text.replace(f"schema_version: {SCHEMA_VERSION}", f"schema_version: {SCHEMA_VERSION + 1}")
    with pytest.raises(UserError, match=rf"a/run\.yaml: schema_version={SCHEMA_VERSION + 1} is not known"):
        run_from_yaml(newer, Path("a/run.yaml"))
    with pytest.raises(UserError, match="schema_version=None"):
        run_from_yaml(text.split("\n", 1)[1], Path("run.yaml"))
    with pytest.raises(UserError, match=r"run\.yaml: .*epochz"):
        run_from_yaml(text.replace("epochs", "epochz"), Path("run.yaml"))


def test_cfg_job_shows_a_run_for_hardware_that_is_not_here(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-m", "ftx.train", "--cfg", "job", "hardware=8xH100", "model=qwen3_4b", "run_root=/proc/x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "${" not in shown.stdout
    values = flat(yaml.safe_load(shown.stdout))
    assert set(values) == set(flat(RunConfig()))
    assert values["hardware.gpus_per_node"] == 8
    assert values["schedule.learning_rate"] == values["model.suggested_learning_rate"] == 5e-6
    assert values["evaluation.tasks"] == ["classification"]
    assert list(tmp_path.iterdir()) == []


def test_cfg_job_shows_every_run_of_a_sweep(tmp_path):
    shown = subprocess.run(
        [sys.executable, "-m", "ftx.train", "--cfg", "job", "-m", "schedule.epochs=1,2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0
    assert [run["schedule"]["epochs"] for run in yaml.safe_load_all(shown.stdout)] == [1, 2]


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_a_yaml_file_opens_with_a_comment_of_one_line(file):
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "@package" not in line]
    assert lines[0].startswith("# ") and lines[0].endswith((".", "?"))
    assert len(lines) == 1 or not lines[1].startswith("#")


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_a_choice_composes_with_the_defaults(group, choice):
    composition = compose_all([f"{group}={choice}", *NEEDS.get(f"{group}={choice}", [])])
    assert all(composed.choices[group] == choice for composed in composition.runs)
