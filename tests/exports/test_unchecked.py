"""What was not compared with the trained model to the end does not leave the platform."""

import json

import pytest

from ftx.errors import UserError
from ftx.exports.parts import check_passed
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
