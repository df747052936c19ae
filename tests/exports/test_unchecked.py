"""What was not compared with the trained model to the end does not leave the platform."""

import json

import pytest

from ftx.errors import UserError
from ftx.exports.parts import check_passed, files_to_upload
from ftx.run_folder import RunFolder

BROKEN = [{"state": "running", "since": "now"}, {"state": "failed", "wrong": ["killed"]}, {"state": "failed"}]


@pytest.mark.parametrize("entry", BROKEN)
@pytest.mark.parametrize(("name", "part"), [("merge", "merged"), ("gguf-q8_0", "gguf")])
def test_what_failed_or_never_ended_is_refused(tmp_path, name, part, entry):
    (tmp_path / "exports.json").write_text(json.dumps({name: entry}))
    with pytest.raises(UserError, match=rf"export.upload=\[{part}\]: {name} "):
        check_passed(RunFolder(tmp_path), part)
    check_passed(RunFolder(tmp_path), "model")


@pytest.mark.parametrize("state", ["ok", "unchecked"])
def test_what_passed_may_go(tmp_path, state):
    (tmp_path / "exports.json").write_text(json.dumps({"gguf-q8_0": {"state": state}}))
    check_passed(RunFolder(tmp_path), "gguf")


def test_of_several_files_those_that_passed_go_and_the_others_are_named(tmp_path, monkeypatch):
    place = tmp_path / "exports" / "gguf"
    place.mkdir(parents=True)
    for kind in ("q8_0", "q4_k_m", "f16", "bf16"):
        (place / f"mine-{kind}.gguf").write_bytes(b"weights")
    entries = {"gguf-q8_0": {"state": "ok"}, "gguf-q4_k_m": BROKEN[1], "gguf-bf16": BROKEN[0], "hub": BROKEN[1]}
    (tmp_path / "exports.json").write_text(json.dumps({**entries, "gguf-f16": {"state": "unchecked"}}))
    said: list[str] = []
    monkeypatch.setattr("ftx.progress.say", said.append)
    uploads = files_to_upload(RunFolder(tmp_path), ["gguf"])
    assert [one.path for one in uploads] == ["mine-f16.gguf", "mine-q8_0.gguf"]
    assert [one.partition(";")[0] for one in said] == [
        "gguf-q4_k_m failed its check: it is left out",
        "gguf-bf16 was not checked to the end: it is left out",
    ]
