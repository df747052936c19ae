"""MLflow's model registry, for real: what it loads answers as the trained model does, and nothing is there twice."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch
from finished_run import finished
from talkative import QUANTISABLE, write_beginning, write_talkative
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftx import disk, export
from ftx.chatting.loading import load_partner
from ftx.config.export_schema import ExportConfig
from ftx.engines.engine import Request
from ftx.engines.local import LocalEngine
from ftx.errors import ExitCode, ExportFailed, UserError
from ftx.exports import registry
from ftx.exports.registry import register
from ftx.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

MESSAGES = [{"role": "user", "content": "w3 w7 w11"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> tuple[str, ...]:
    """The words for a model to begin with."""
    folder = write_talkative(tmp_path_factory.mktemp("bases") / "talkative")
    return "model=hub", f"model.name={folder}", "model.template=chatml", "schedule.epochs=1"


@pytest.fixture(scope="module")
def full(new_place, base):
    place = new_place()
    return place, *finished(place, *base)


@pytest.fixture(scope="module")
def adapter(new_place, base):
    place = new_place()
    return place, *finished(place, *base, "method=lora", "schedule.learning_rate=5e-3")


@pytest.fixture
def tracked():
    """The tests' own MLflow is asked; what it was before comes back."""
    before = mlflow.get_tracking_uri()
    yield mlflow.set_tracking_uri
    mlflow.set_tracking_uri(before)


def greedy(folder: RunFolder, run) -> str:
    """What the trained model says; the registry's answers have no control tokens, and begin with no space."""
    partner = load_partner(folder, run, folder.name)
    request = Request("one", tuple(MESSAGES), max_new_tokens=16)
    (answer,) = LocalEngine(partner.model, partner.tokenizer, partner.template, 1).answer([request])
    return partner.tokenizer.decode(
        partner.tokenizer(answer.text, add_special_tokens=False)["input_ids"], skip_special_tokens=True
    ).lstrip()


def asked(uri: str) -> tuple[str, str]:
    """The answers of MLflow's two ways to load it."""
    chat = mlflow.pyfunc.load_model(uri).predict({"messages": MESSAGES, "max_tokens": 16})
    pipeline = mlflow.transformers.load_model(uri)
    said = pipeline(MESSAGES, max_new_tokens=16, do_sample=False, return_full_text=False)[0]["generated_text"]
    return chat[0]["choices"][0]["message"]["content"], said.lstrip()


def test_a_full_model_answers_as_it_was_trained(full, tracked):
    place, folder, run = full
    first = register(folder, run, ExportConfig(register="tiny"))
    assert (first.name, first.version, first.part, first.is_new) == ("tiny", "1", "model", True)
    tracked(place.uri)
    expected = greedy(folder, run)
    assert expected
    assert asked(first.uri) == (expected, expected)
    version = place.mlflow().get_model_version("tiny", "1")
    assert version.run_id == folder.read_status().mlflow_run_id
    assert version.tags["ftx.run"] == folder.name
    model = mlflow.models.get_model_info(first.uri)
    assert model.signature.inputs.input_names()[0] == "messages"
    logged = place.mlflow().get_logged_model(version.source.rpartition("/")[2])
    assert logged.source_run_id == version.run_id
    assert logged.experiment_id == place.mlflow().get_run(version.run_id).info.experiment_id
    assert place.mlflow().get_run(version.run_id).info.status == "FINISHED"


def test_the_same_content_is_registered_once(full, ftx_log):
    place, folder, run = full
    before = register(folder, run, ExportConfig(register="once", check=False))
    again = register(folder, run, ExportConfig(register="once", check=False))
    assert (again.version, again.is_new, again.is_checked) == (before.version, False, False)
    checked = register(folder, run, ExportConfig(register="once"))
    assert (checked.version, checked.is_new, checked.is_checked) == (before.version, False, True)
    assert place.mlflow().get_model_version("once", "1").tags["ftx.checked"] == "true"
    assert len(place.mlflow().search_model_versions("name='once'")) == 1
    tokenizer = folder.model / "tokenizer_config.json"
    was = tokenizer.read_text()
    try:
        tokenizer.write_text(json.dumps({**json.loads(was), "changed": True}))
        assert register(folder, run, ExportConfig(register="once", check=False)).version == "2"
    finally:
        tokenizer.write_text(was)


def test_an_adapter_on_its_base(adapter, tracked):
    place, folder, run = adapter
    made = register(folder, run, ExportConfig(register="adapter"))
    tracked(place.uri)
    expected = greedy(folder, run)
    partner = load_partner(folder, run, folder.name)
    with partner.speaking(base=True) as base:
        request = Request("one", tuple(MESSAGES), max_new_tokens=16)
        (untuned,) = LocalEngine(base, partner.tokenizer, partner.template, 1).answer([request])
    assert untuned.text != expected
    assert asked(made.uri) == (expected, expected)
    local = mlflow.artifacts.download_artifacts(made.uri)
    assert not list(Path(local).glob("model/*.safetensors"))
    assert (Path(local) / "peft" / "adapter_model.safetensors").exists()


def test_the_merged_model_is_taken_where_there_is_one(adapter, tracked):
    from peft import PeftModel

    place, folder, run = adapter
    merged = folder.path / "exports" / "merged"
    base = AutoModelForCausalLM.from_pretrained(run.model.name, dtype=torch.float32)
    PeftModel.from_pretrained(base, folder.model).merge_and_unload().save_pretrained(merged)
    AutoTokenizer.from_pretrained(folder.model).save_pretrained(merged)
    try:
        made = register(folder, run, ExportConfig(register="merged"))
        assert made.part == "merged"
        tracked(place.uri)
        expected = greedy(folder, run)
        assert asked(made.uri) == (expected, expected)
        (folder.path / "exports.json").write_text('{"merge": {"state": "failed", "wrong": ["logits"]}}')
        with pytest.raises(UserError, match="merge failed its check"):
            register(folder, run, ExportConfig(register="merged-again"))
    finally:
        shutil.rmtree(folder.path / "exports")
        (folder.path / "exports.json").unlink(missing_ok=True)


def test_a_tokenizer_that_begins_every_text_begins_a_chat_once(new_place, tmp_path, tracked):
    place = new_place()
    base = write_beginning(tmp_path / "base")
    words = ("model=hub", f"model.name={base}", "model.template=llama3_1", "schedule.epochs=1")
    folder, run = finished(place, *words)
    tokenizer = AutoTokenizer.from_pretrained(folder.model)
    begin = tokenizer.bos_token_id
    rendered = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    assert tokenizer(rendered)["input_ids"][:2] == [begin, begin]
    made = register(folder, run, ExportConfig(register="begins"))
    tracked(place.uri)
    chat = mlflow.pyfunc.load_model(made.uri).predict({"messages": MESSAGES, "max_tokens": 16})
    expected = greedy(folder, run)
    assert expected
    assert chat[0]["choices"][0]["message"]["content"].lstrip() == expected
    assert chat[0]["usage"]["prompt_tokens"] == len(tokenizer(rendered, add_special_tokens=False)["input_ids"])


def test_what_mlflow_loads_is_compared_with_what_was_trained(full, monkeypatch):
    """A planted fault: other weights than those of the run."""
    place, folder, run = full
    load = registry._load

    def other(*given):
        loaded, *rest = load(*given)
        with torch.no_grad():
            loaded["model"].model.norm.weight.neg_()
        return loaded, *rest

    monkeypatch.setattr(registry, "_load", other)
    with pytest.raises(ExportFailed, match="what MLflow loads is not the model that was trained"):
        register(folder, run, ExportConfig(register="other"))
    assert place.mlflow().search_registered_models("name='other'") == []


def test_an_adapter_of_a_quantised_base_is_merged_first(new_place, tmp_path):
    """MLflow has no word for how a base is held."""
    place = new_place()
    base = write_talkative(tmp_path / "wide", QUANTISABLE)
    words = ("model=hub", f"model.name={base}", "model.template=chatml", "schedule.epochs=1", "method=qlora")
    folder, run = finished(place, *words)
    with pytest.raises(UserError, match=r"not in the 4 bits that it was trained on; merge it first"):
        register(folder, run, ExportConfig(register="x"))


def test_what_cannot_be_registered(full, new_place, tmp_path, monkeypatch):
    place, folder, run = full
    elsewhere = new_place()
    with pytest.raises(UserError, match=rf"{folder.name} is not in this MLflow; python -m ftx\.report --sync"):
        register(folder, replace(run, tracking=replace(run.tracking, uri=elsewhere.uri)), ExportConfig(register="x"))
    away = replace(run, tracking=replace(run.tracking, uri="http://me:s3cret@127.0.0.1:1"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        ExportFailed, match=r"export\.register=x: MLflow at http://127\.0\.0\.1:1 does not do it"
    ) as told:
        register(folder, away, ExportConfig(register="x"))
    assert "s3cret" not in str(told.value)
    monkeypatch.setattr(registry, "free_bytes", lambda folder: 1000)
    with pytest.raises(disk.DiskFull, match=r"export\.register=full: takes .* 0\.0 MiB are free; make room"):
        register(folder, run, ExportConfig(register="full"))
    assert place.mlflow().search_registered_models("name='full'") == []


def test_an_adapter_of_random_weights_is_merged_first(new_place, capsys):
    """The verb says so in its own words, and takes a run that is merged."""
    place = new_place()
    folder, run = finished(place, "method=lora", "schedule.epochs=1")
    with pytest.raises(UserError, match=r"made from the seed and lies nowhere; merge it first: python -m ftx\.export"):
        register(folder, run, ExportConfig(register="x"))
    words = [str(folder.path), "export.check=false"]
    capsys.readouterr()
    assert export.main([*words, "export.register=mine"]) == ExitCode.USER_MISTAKE
    assert f"merge it too: python -m ftx.export {folder.name} merge export.register=mine" in capsys.readouterr().err
    assert export.main([*words, "merge"]) == ExitCode.FINISHED
    assert export.main([*words, "export.register=mine"]) == ExitCode.FINISHED
    assert place.mlflow().get_model_version("mine", "1").tags["ftx.part"] == "merged"
    entry = folder.read_exports()["register"]
    assert (entry["state"], entry["registered_as"]) == ("unchecked", "mine")
