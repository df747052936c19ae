"""``python -m ftx.evaluate`` on what a short training made: the run, its model, its adapter, and the base beside."""

import json
from pathlib import Path

import pytest
import torch
from mlflow_records import runs_in
from run_records import scored
from transformers import AutoModelForCausalLM, AutoTokenizer
from verb_process import start

from ftx import compose, evaluate
from ftx.errors import UserError
from ftx.run_folder import RunFolder

COLOURS = {"warm": ("red", "orange", "yellow", "pink", "gold"), "cold": ("blue", "green", "violet", "white", "grey")}
THINGS = ("ball", "door", "house", "car", "leaf", "coat", "boat", "chair", "lamp", "stone", "flower", "cup")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    """What colour has a thing: warm or cold, which a small model learns within seconds."""
    path = tmp_path_factory.mktemp("colours") / "colours.jsonl"
    lines = [
        {"prompt": f"the {thing} is {colour} and number {number}", "completion": json.dumps({"kind": kind})}
        for number in range(6)
        for kind, colours in COLOURS.items()
        for colour in colours
        for thing in THINGS
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def words(place, rows: Path, *more: str) -> list[str]:
    model = ("model.architecture.vocabulary_size=400", "model.architecture.hidden_size=64", "hardware.threads=1")
    data = ("data=jsonl", f"data.path={rows}", "data.max_length=256", "data.holdout=60", "data.packing=false")
    learning = ("schedule.learning_rate=5e-3", "schedule.global_batch_size=16", "hardware.micro_batch=16")
    here = (f"run_root={place.runs}", f"tracking.uri={place.uri}", "evaluation.tasks=[classification]")
    return [*model, *data, *learning, "schedule.epochs=6", "schedule.eval_every=never", *here, *more]


@pytest.fixture(scope="module")
def trained(new_place, rows):
    """A place, and its run with what it scored."""
    place = new_place()
    ended = start("train", *words(place, rows), into=place.path / "said").ended()
    assert ended.code == 0, ended
    folder = place.folder()
    return place, folder, scored(folder)


def said(place, *arguments: object):
    return start("evaluate", *arguments, into=place.path / "said").ended()


def predictions(folder: RunFolder) -> dict[str, dict]:
    lines = folder.predictions("classification").read_text().splitlines()
    return {record["id"]: record for record in map(json.loads, lines)}


def test_likelihood_and_generation_agree_on_a_trained_model(trained):
    place, folder, before = trained
    assert before["classification"]["accuracy"]["value"] > 0.9
    generated = predictions(folder)
    ended = said(place, folder.name, f"run_root={place.runs}", "evaluation.classification.by=likelihood")
    assert ended.code == 0, ended
    by_likelihood = predictions(folder)
    assert {name: one["predicted"] for name, one in by_likelihood.items()} == {
        name: one["predicted"] for name, one in generated.items()
    }
    assert all(one["likelihoods"].keys() == COLOURS.keys() for one in by_likelihood.values())
    again = said(place, folder.path, "evaluation.classification.by=generation")
    assert again.code == 0
    assert scored(folder) == before
    assert predictions(folder) == generated


def test_a_run_is_scored_on_a_task_that_it_was_not_trained_with(trained, rows):
    """Against a plain pass over the held-out conversations by a model that transformers loads."""
    place, folder, _ = trained
    weights = (folder.model / "model.safetensors").stat().st_mtime_ns
    ended = said(place, folder.name, f"run_root={place.runs}", "evaluation.tasks=[loss]", "evaluation.limit=5")
    assert ended.code == 0, ended
    assert (folder.model / "model.safetensors").stat().st_mtime_ns == weights
    entry = folder.read_scores()["loss"]["eval_loss"]
    assert entry["n"] == 5
    held_out = [json.loads(line) for line in folder.predictions("loss").read_text().splitlines()]
    texts = rows.read_text().splitlines()
    summed = tokens = 0.0
    model = AutoModelForCausalLM.from_pretrained(folder.model)
    tokenizer = AutoTokenizer.from_pretrained(folder.model)
    for record in held_out:
        row = json.loads(texts[int(record["id"].rpartition(":")[2]) - 1])
        asked = [{"role": "user", "content": row["prompt"]}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        answer = tokenizer(row["completion"] + "<|im_end|>", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].double()
        foretold = logits[len(prompt) - 1 : -1].log_softmax(-1)
        summed -= float(foretold.gather(1, torch.tensor(answer)[:, None]).sum())
        tokens += len(answer)
    assert entry["value"] == pytest.approx(summed / tokens, rel=1e-4)


def test_the_base_beside_the_trained_one(trained, rows):
    """The base is a run of its own; the flips are those that the predictions give."""
    place, folder, _ = trained
    base = evaluate(compose(*words(place, rows)))
    assert base["classification"]["accuracy"]["value"] < 0.5
    (other,) = [RunFolder(path.parent) for path in place.runs.glob("*/run.yaml") if path.parent.name != folder.name]
    assert other.read_run().schedule.epochs == 0
    ended = said(place, "compare", other.name, folder.name, "--run-root", place.runs)
    assert ended.code == 0, ended
    before, after = predictions(other), predictions(folder)
    mended = sum(after[name]["correct"] and not before[name]["correct"] for name in after)
    assert mended > 45
    assert "classification.accuracy" in ended.out
    assert f"{mended}" in ended.out
    assert {one.data.tags["ftx.run"] for one in runs_in(place.mlflow())} >= {folder.name, other.name}


def test_a_models_folder_is_scored_as_the_run_that_made_it(trained, new_place, rows):
    _, folder, before = trained
    place = new_place()
    given = [word for word in words(place, rows) if not word.startswith(("model.", "schedule."))]
    ended = said(place, folder.model, *given, "model.template=chatml")
    assert ended.code == 0, ended
    assert scored(place.folder()) == before


def test_an_adapter_is_scored_on_its_model(trained, new_place, rows):
    """The same scores as the run has that trained it."""
    _, folder, _ = trained
    place = new_place()
    given = [word for word in words(place, rows) if not word.startswith("model.")]
    base = ("model=hub", f"model.name={folder.model}", "model.template=chatml", "method=lora")
    assert start("train", *given, *base, "schedule.epochs=1", into=place.path / "said").ended().code == 0
    lora = place.folder()
    elsewhere = new_place()
    given = [word for word in words(elsewhere, rows) if not word.startswith(("model.", "schedule."))]
    ended = said(elsewhere, lora.model, *given, "model.template=chatml")
    assert ended.code == 0, ended
    assert elsewhere.folder().read_run().model.adapter == str(lora.model)
    assert scored(elsewhere.folder()) == scored(lora)
    assert predictions(elsewhere.folder()) == predictions(lora)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no run of this name, no folder with a model or adapter"),
        (["a/b", "c/d"], "c/d: one run or model at a time"),
        (["schedule.epochs=2"], "schedule.epochs: ftx.evaluate trains nothing"),
        (["compare", "one", "two"], "one: no such run"),
        (["import", "one", "file"], "one: no such run"),
        (["RUN", "schedule.epochs=3"], "is what it is, only evaluation words apply to a run"),
        (["RUN", "evaluation.tasks=[clasification]"], "no such task (did you mean classification?)"),
        (["RUN", "evaluation.url=http://x/v1"], "nothing in this run reads it"),
    ],
)
def test_a_mistake_is_one_line(trained, arguments, message):
    place, folder, _ = trained
    ended = said(place, *[str(folder.path) if one == "RUN" else one for one in arguments])
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_run_that_is_not_trained_has_nothing_to_score(trained, tmp_path):
    _, folder, _ = trained
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.yaml").write_text((folder.path / "run.yaml").read_text())
    with pytest.raises(UserError, match="has no model/ to score"):
        evaluate(RunFolder(tmp_path / "run"), "evaluation.tasks=[loss]")
