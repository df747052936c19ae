"""Uploads to a stand-in for the hub by processes of their own: what arrives, what is sent again, what is never said."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from finished_run import files_of, finished
from push_hub import SIGNATURE, TOKEN, PushHub, Repository
from talkative import write_talkative

from ftx import metrics_log
from ftx.config.export_schema import ExportConfig
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.exports.card import signed
from ftx.exports.hub import check_can_push
from ftx.exports.parts import files_to_upload
from ftx.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

# As the job and the verbs do it: what goes wrong is logged with its traceback.
SCRIPT = """
import json, logging, sys, traceback
from pathlib import Path
from ftx.config.export_schema import ExportConfig
from ftx.environment import set_library_defaults
from ftx.errors import UserError
from ftx.exports.hub import push
from ftx.progress import also_into, start_console
from ftx.run_folder import RunFolder

folder, export = RunFolder(Path(sys.argv[1])), ExportConfig(**json.loads(sys.argv[2]))
start_console()
with also_into(folder.log):
    try:
        pushed = push(folder, folder.read_run(), export)
        print("PUSHED", pushed.files, pushed.sent, pushed.commit)
    except UserError as error:
        logging.getLogger("ftx").error("%s", error)
        folder.write_status(state="failed", reason=str(error))
        sys.exit(2)
    except Exception as error:
        logging.getLogger("ftx").error("%s", "".join(traceback.format_exception(error)))
        folder.write_status(state="failed", reason=f"{type(error).__name__}: {error}")
        assert error.__cause__ is error.__context__ is None
        sys.exit(1)
"""


@pytest.fixture(scope="module")
def trained(new_place):
    """A run with an adapter, and beside it files as exports leave them."""
    place = new_place()
    folder, _ = finished(place, "method=lora", "method.lora.rank=2")
    merged = folder.path / "exports" / "merged"
    merged.mkdir(parents=True)
    for number in (1, 2, 3):
        (merged / f"model-0000{number}-of-00003.safetensors").write_bytes(bytes([number]) * 400_000)
    (merged / "config.json").write_text("{}")
    (folder.path / "exports" / "gguf").mkdir()
    (folder.path / "exports" / "gguf" / "mine-q8_0.gguf").write_bytes(b"gguf" * 50_000)
    (folder.path / "exports" / "gguf" / "check.json").write_text("{}")
    return place, folder


@pytest.fixture
def hub() -> Iterator[PushHub]:
    with PushHub() as serving:
        yield serving


def start_push(hub: PushHub, folder: RunFolder, home: Path, token: str = TOKEN, offline=False, **export):
    given = {"hub": True, "repository": "me/mine", **export}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder.path), json.dumps(given)],
        env={**hub.with_token(home, token, offline), "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pushed(hub: PushHub, folder: RunFolder, home: Path, **settings) -> tuple[int, str]:
    process = start_push(hub, folder, home, **settings)
    said, _ = process.communicate()
    return process.returncode, said


def names(folder: RunFolder, *parts: str) -> dict[str, bytes]:
    return {one.path: one.instead or one.file.read_bytes() for one in files_to_upload(folder, parts)}


def test_an_adapter_arrives_in_a_private_repository(hub, trained, tmp_path):
    _, folder = trained
    code, said = pushed(hub, folder, tmp_path)
    assert code == 0, said
    repository = hub.repositories["me/mine"]
    assert repository.private
    assert repository.files == names(folder, "model")
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= set(repository.files)
    assert repository.commits == 1
    before = list(hub.received)
    code, said = pushed(hub, folder, tmp_path)
    assert (code, hub.received, repository.commits) == (0, before, 1)
    assert "are there already, nothing to do" in said


def test_no_path_of_this_machine_goes_along(hub, trained, new_place, tmp_path):
    """Not in the adapter's own description of its base either."""
    place = new_place()
    base = write_talkative(tmp_path / "secret-project" / "talkative")
    model = ("model=hub", f"model.name={base}", "model.template=chatml", "method=lora", "schedule.epochs=1")
    folder, _ = finished(place, *model)
    code, said = pushed(hub, folder, tmp_path / "home")
    assert code == 0, said
    files = hub.repositories["me/mine"].files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "talkative"
    assert "adapter_config.json: the base is a folder of this machine" in said
    for path, data in files.items():
        assert b"secret-project" not in data, path
        assert str(place.path).encode() not in data, path
    code, said = pushed(hub, folder, tmp_path / "home")
    assert "are there already, nothing to do" in said


def test_only_what_has_changed_is_sent(hub, trained, tmp_path):
    _, folder = trained
    pushed(hub, folder, tmp_path, upload=["merged"])
    one = folder.path / "exports" / "merged" / "model-00002-of-00003.safetensors"
    before = one.read_bytes()
    try:
        one.write_bytes(b"!" + before[1:])
        hub.received.clear()
        code, said = pushed(hub, folder, tmp_path, upload=["merged"])
    finally:
        one.write_bytes(before)
    assert (code, hub.received) == (0, [one.name]), said
    assert hub.repositories["me/mine"].files[one.name].startswith(b"!")


def test_an_upload_that_was_killed_goes_on(hub, trained, tmp_path):
    """In the middle of the second of three files: nothing shows on the hub, and the first is not sent again."""
    _, folder = trained
    first, second, third = (f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))
    hub.hold = second
    process = start_push(hub, folder, tmp_path, upload=["merged"])
    assert hub.held.wait(300)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert hub.repositories["me/mine"].files == {}
    assert first in hub.received
    assert second not in hub.received
    hub.hold = ""
    code, said = pushed(hub, folder, tmp_path, upload=["merged"])
    assert code == 0, said
    assert sorted(name for name in hub.received if name.startswith("model")) == [first, second, third]
    assert hub.repositories["me/mine"].files == names(folder, "merged")


def test_all_parts_in_one_repository(hub, trained, tmp_path):
    """The merged model at the root, its adapter apart; of gguf/ the models."""
    _, folder = trained
    code, said = pushed(hub, folder, tmp_path, upload=["gguf", "model", "merged"])
    assert code == 0, said
    files = set(hub.repositories["me/mine"].files)
    assert {"config.json", "adapter/adapter_config.json", "mine-q8_0.gguf", "README.md"} <= files
    assert {"adapter_config.json", "check.json", "adapter/README.md"} & files == set()
    assert b"Model Card for Model ID" not in names(folder, "model")["README.md"]
    readme = hub.repositories["me/mine"].files["README.md"].decode()
    assert "This repository also has files for llama.cpp" in readme
    assert "library_name: transformers" in readme


def test_dry_shows_everything_and_asks_nobody(hub, trained, tmp_path):
    """Also where the hub is out of bounds and nobody is logged in."""
    _, folder = trained
    code, said = pushed(hub, folder, tmp_path, token="", offline=True, push="dry", upload=["merged"])
    assert code == 0, said
    assert hub.asked == []
    for path, data in names(folder, "merged").items():
        assert f"| {path} " in said
        assert f"{len(data) / 2**20:,.1f} MiB |" in said
    assert "would go to me/mine, made as a private repository if it is not there" in said


def test_a_public_repository_gets_nothing_that_was_meant_to_be_private(hub, trained, tmp_path):
    _, folder = trained
    hub.repositories["me/mine"] = Repository(private=False)
    code, said = pushed(hub, folder, tmp_path)
    assert code == 2
    assert "export.private=true: me/mine is public on the hub, so nothing was sent" in said
    assert (hub.received, hub.repositories["me/mine"].files) == ([], {})
    code, said = pushed(hub, folder, tmp_path, private=False)
    assert code == 0, said
    assert hub.repositories["me/mine"].files


def test_a_repository_that_comes_out_public_gets_nothing_either(hub, trained, tmp_path):
    _, folder = trained
    hub.always_public = True
    code, said = pushed(hub, folder, tmp_path)
    assert code == 2
    assert "me/mine is public on the hub, so nothing was sent" in said
    assert hub.received == []


def test_old_weights_in_the_repository_are_pointed_out(hub, trained, tmp_path):
    _, folder = trained
    hub.repositories["me/mine"] = Repository(private=True, files={"adapter_config.json": b"{}", "notes.txt": b""})
    code, said = pushed(hub, folder, tmp_path, upload=["merged"])
    assert code == 0
    assert "me/mine also has adapter_config.json, which this push does not bring" in said
    assert "adapter_config.json" in hub.repositories["me/mine"].files


def test_weights_of_others_stay(hub, trained, tmp_path):
    """Unless a push of ftx brought them: its card, of this run or another, or a commit of this run says so."""
    _, folder = trained
    theirs = {"adapter_model.safetensors": b"years of work", "README.md": b"# Theirs\n"}
    hub.repositories["me/mine"] = Repository(private=True, files=dict(theirs))
    code, said = pushed(hub, folder, tmp_path)
    assert code == 2
    assert "export.repository=me/mine: has adapter_model.safetensors that no push of ftx brought" in said
    assert "name another repository, or delete there what is to go" in said
    assert (hub.received, hub.repositories["me/mine"].files) == ([], theirs)
    of_another_run = signed("# Another run\n").encode()
    hub.repositories["me/mine"].files["README.md"] = of_another_run
    code, said = pushed(hub, folder, tmp_path)
    assert code == 0, said
    assert hub.repositories["me/mine"].files == names(folder, "model")
    hub.repositories["me/mine"] = Repository(True, dict(theirs), titles=["first", f"Upload {folder.name}"])
    code, said = pushed(hub, folder, tmp_path)
    assert code == 0, said
    assert hub.repositories["me/mine"].files == {**names(folder, "model"), "README.md": theirs["README.md"]}


def test_a_card_that_was_changed_there_stays(hub, trained, tmp_path):
    _, folder = trained
    assert pushed(hub, folder, tmp_path)[0] == 0
    files = hub.repositories["me/mine"].files
    changed = files["README.md"].replace(b"## Data", b"My own words.\n\n## Data")
    assert changed != files["README.md"]
    files |= {"README.md": changed, "adapter_model.safetensors": b"older"}
    code, said = pushed(hub, folder, tmp_path)
    assert code == 0, said
    assert "me/mine: its README.md was changed by hand, so it stays as it is" in said
    assert files["README.md"] == changed
    assert files["adapter_model.safetensors"] == names(folder, "model")["adapter_model.safetensors"]
    code, said = pushed(hub, folder, tmp_path)
    assert "nothing to do" in said


def test_somebody_else_who_commits_meanwhile_is_not_written_over(hub, trained, tmp_path):
    _, folder = trained
    hub.repositories["me/mine"] = Repository(private=True, beside=True)
    code, said = pushed(hub, folder, tmp_path)
    assert code == 1
    assert "somebody else has changed it meanwhile" in said
    assert hub.repositories["me/mine"].files == {}


@pytest.mark.long
def test_the_token_is_in_nothing_that_is_written(hub, trained, tmp_path):
    """The hub tells what it was given, in answers of all kinds; what was said, logged and tracked has none of it."""
    place, folder = trained
    everything = []
    faults = ({}, {"/commit/": 500}, {"/repos/create": 403}, {"/lfs/": 400}, {"/preupload/": 413}, {"/models/": 401})
    for fail in faults:
        hub.repositories.clear()
        hub.objects.clear()
        hub.fail = fail
        code, said = pushed(hub, folder, tmp_path / "home")
        assert code == (0 if not fail else 1 if 500 in fail.values() else 2), said
        everything.append(said)
    hub.fail = {}
    code, said = pushed(hub, folder, tmp_path / "home", token="hf_wrong0123456789")
    assert code == 2
    assert "the hub does not accept the token" in said
    everything += [said, *(file.read_bytes().decode(errors="replace") for file in files_of(folder.path))]
    everything += [file.read_bytes().decode(errors="replace") for file in files_of(place.path)]
    mlflow = place.mlflow()
    recorded = mlflow.get_run(folder.read_status().mlflow_run_id).data
    everything += [str(recorded.params), str(recorded.tags)]
    for text in everything:
        for secret in (TOKEN, "hf_wrong0123456789", "s3cr3t", SIGNATURE):
            assert secret not in text
    assert "the upload broke off" in folder.log.read_text()
    assert all("***" in said for said in everything[1 : len(faults)])
    assert metrics_log.read(folder.metrics)


def test_words_of_a_mistake(trained, monkeypatch):
    with pytest.raises(
        UserError, match=r"HF_HUB_OFFLINE forbids asking the hub; unset it, or look at .* export\.push=dry"
    ):
        check_can_push(ExportConfig(hub=True, repository="me/mine"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="nobody is logged in to the hub; hf auth login does it"):
        check_can_push(ExportConfig(hub=True, repository="me/mine"))
    check_can_push(ExportConfig(hub=True, repository="me/mine", push="dry"))


def test_an_export_that_failed_its_check_stays_here(trained):
    _, folder = trained
    entries = {
        "merge": {"state": "failed", "made": "exports/merged", "wrong": ["logits"]},
        "gguf-q8_0": {"state": "failed", "made": "exports/gguf/mine-q8_0.gguf", "wrong": ["logits"]},
    }
    (folder.path / "exports.json").write_text(json.dumps(entries))
    try:
        with pytest.raises(UserError, match=r"export\.upload=\[merged\]: merge failed its check"):
            files_to_upload(folder, ["merged"])
        with pytest.raises(UserError, match=r"export\.upload=\[gguf\]: gguf-q8_0 failed its check"):
            files_to_upload(folder, ["gguf", "model"])
        assert files_to_upload(folder, ["model"])
    finally:
        (folder.path / "exports.json").unlink()


def test_a_part_that_is_not_there(trained, tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"export\.upload=\[merged\]: run has no exports/merged/; python -m ftx\.export"
    ):
        files_to_upload(RunFolder(tmp_path / "run"), ["model", "merged"])
