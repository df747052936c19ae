"""``python -m ftx.export`` and ``export=[…]`` at the end of a run: what is made and kept, what a failure leaves."""

import dataclasses
import json

import pytest
from export_models import write_chats
from safetensors.torch import load_file
from verb_process import start

from ftx.config.compose import ComposedRun, compose
from ftx.errors import ExitCode
from ftx.exports import merging
from ftx.job import run_job
from ftx.run_folder import RunFolder
from launchers.folders import describe_on_disk, locate

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"vocabulary_size": 400, "hidden_size": 32, "intermediate_size": 64, "layers": 2, "head_dim": 8}


@pytest.fixture
def chats(tmp_path):
    return write_chats(tmp_path / "chats.jsonl")


def composed(chats, *words: str):
    return compose(
        *("model=tiny", *(f"model.architecture.{name}={size}" for name, size in SIZES.items())),
        *("data=jsonl", f"data.path={chats}", f"run_root={chats.parent}", "data.holdout=0.3", "hardware.threads=1"),
        *("schedule.epochs=2", "schedule.global_batch_size=4", "schedule.learning_rate=1e-2", "tracking.offline=true"),
        *("name=exported", *words),
    )


def described(run) -> RunFolder:
    one = ComposedRun(run, (), {})
    folder = locate(one)
    describe_on_disk(one, folder)
    return folder


def export(folder: RunFolder, *words: str):
    return start(
        "export", folder.name, *words, "--run-root", folder.path.parent, into=folder.path.parent / "said"
    ).ended()


def states(folder: RunFolder) -> dict[str, str]:
    return {name: one["state"] for name, one in folder.read_exports().items()}


@pytest.mark.long
def test_a_failed_check_leaves_the_run_and_the_same_command_tries_only_the_export_again(chats, monkeypatch):
    run = composed(chats, "method=lora", "export=[merge]")
    folder, read = described(run), merging.read_adapter
    with monkeypatch.context() as planted:
        planted.setattr(
            merging, "read_adapter", lambda path: dataclasses.replace(read(path), scaling=2 * read(path).scaling)
        )
        assert run_job(folder) == ExitCode.FAILED
    status = folder.read_status()
    assert status.state == "failed"
    assert status.reason.startswith("export: ")
    assert "merged: is not the model that was trained: its logits are off by" in status.reason
    entry = folder.read_exports()["merge"]
    assert entry["state"] == "failed"
    assert entry["wrong"]
    assert (folder.exports / "merged" / "model.safetensors").exists()
    assert "eval_loss" in folder.read_scores()["loss"]
    assert not folder.is_complete(run)
    trained = (folder.model / "adapter_model.safetensors").stat().st_mtime_ns
    metrics = folder.metrics.read_text()
    assert run_job(folder) == ExitCode.FINISHED
    assert (folder.model / "adapter_model.safetensors").stat().st_mtime_ns == trained
    assert folder.metrics.read_text() == metrics
    assert states(folder) == {"merge": "ok"}
    assert folder.is_complete(run)
    check = folder.read_exports()["merge"]["check"]
    assert check["difference"]["relative"] < 1e-5 < check["difference"]["effect"]
    assert [sample["trained"] == sample["exported"] for sample in check["samples"]] == [True] * 3


@pytest.mark.long
def test_files_of_a_full_run_are_made_of_its_own_weights(chats):
    folder = described(composed(chats, "method=full"))
    assert run_job(folder) == ExitCode.FINISHED
    assert export(folder, "merge").err == (
        "error: export=merge: method=full has no adapter to merge, model/ is the whole model already; leave merge out, "
        "as in export=[]\n"
    )
    ended = export(folder, "gguf", "export.quantization=[q8_0]")
    assert ended.code == ExitCode.FINISHED, ended.err
    assert states(folder) == {"gguf-q8_0": "ok"}
    file = folder.exports / "gguf" / f"{folder.name}-q8_0.gguf"
    assert f"{file}: logits off by" in ended.out
    assert file.stat().st_size < 0.5 * (folder.model / "model.safetensors").stat().st_size
    assert not (folder.exports / "merged").exists()
    assert [one.name for one in folder.exports.iterdir()] == ["gguf"]


def test_without_a_check_it_says_so_and_a_run_that_wants_one_makes_it_again(chats):
    folder = described(composed(chats, "method=lora"))
    assert run_job(folder) == ExitCode.FINISHED
    assert states(folder) == {}
    ended = export(folder, "gguf", "export.quantization=[f16]", "export.check=false")
    assert ended.code == ExitCode.FINISHED, ended.err
    assert "not compared with the trained model (export.check=false)" in ended.out
    assert states(folder) == {"merge": "unchecked", "gguf-f16": "unchecked"}
    run = composed(chats, "method=lora", "export=[merge,gguf]")
    assert folder.missing_exports(run) == ["merge", "gguf-f16"]
    unchecked = composed(chats, "method=lora", "export=[merge,gguf]", "export.check=false")
    assert folder.missing_exports(unchecked) == []
    weights = load_file(folder.exports / "merged" / "model.safetensors")
    assert "lm_head.weight" not in weights


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ggfu",), "export=ggfu: no such choice (did you mean gguf?); there are card, gguf, hub, merge"),
        ((), "what to export is not said: name one or more of card, gguf, hub, merge"),
        (("gguf", "seed=3"), "seed=3: the run is what it is; only what to export, and export.KEY=VALUE, can be said"),
        (("merge", "export.quantization=[f16]"), "nothing in this run reads it, only export=gguf does"),
        (("gguf", "export.quantization=[q4_km]"), "no such value (did you mean q4_k_m?)"),
        (("merge",), "has no model/ to export; the command that trained it goes on with it"),
    ],
)
def test_a_mistake_is_one_line(words, said, chats):
    folder = described(composed(chats, "method=lora"))
    ended = export(folder, *words)
    assert ended.code == ExitCode.USER_MISTAKE
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (folder.path / "exports.json").exists()


def test_what_a_killed_writer_left_is_removed_by_the_next(chats):
    folder = described(composed(chats, "method=lora", "export=[merge]", "export.check=false"))
    half = [folder.exports / ".merged.writing", folder.exports / "gguf" / ".x.gguf.writing"]
    half[0].mkdir(parents=True)
    half[1].parent.mkdir()
    half[1].write_text("half")
    assert run_job(folder) == ExitCode.FINISHED
    assert not any(one.exists() for one in half)
    assert json.loads((folder.path / "exports.json").read_text())["merge"]["made"] == "exports/merged"


def test_a_full_disk_leaves_nothing_half_written(chats, monkeypatch):
    from ftx.exports import making

    folder = described(composed(chats, "method=lora", "export=[merge]"))
    monkeypatch.setattr(making, "free_bytes", lambda _: 1000)
    assert run_job(folder) == ExitCode.USER_MISTAKE
    assert "merged: takes 32." in folder.read_status().reason
    assert states(folder) == {"merge": "failed"}
    assert list(folder.exports.iterdir()) == []
