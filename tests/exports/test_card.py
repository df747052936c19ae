"""The model card of real runs: front matter, every number as recorded, nothing private, nobody's own words lost."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from finished_run import finished
from huggingface_hub import ModelCard

from ftx import metrics_log
from ftx.config.export_schema import ExportConfig
from ftx.config.stored import run_from_yaml
from ftx.errors import UserError
from ftx.exports.card import write_card
from ftx.exports.origins import Licence, base_of, data_of
from ftx.exports.public import public, redacted
from ftx.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def full(new_place):
    return finished(new_place(), "schedule.eval_every=epoch", "seed=7", "name=tiny-chats")


@pytest.fixture(scope="module")
def adapter(new_place, full, tmp_path_factory):
    """On the weights of the first run, which have a card that states a licence."""
    base = shutil.copytree(full[0].model, tmp_path_factory.mktemp("bases") / "base")
    (base / "README.md").write_text(
        "---\nlicense: other\nlicense_name: tiny-1\nlicense_link: https://x.org/l\n---\n# B\n"
    )
    return finished(
        new_place(), "model=hub", f"model.name={base}", "model.template=chatml", "method=lora", "method.lora.rank=2"
    )


def card_of(folder: RunFolder, run, export=None) -> tuple[str, ModelCard]:
    file = write_card(folder, run, export or ExportConfig())
    assert file == folder.model / "README.md"
    return file.read_text(), ModelCard.load(file)


def test_a_full_runs_card(full):
    folder, run = full
    (folder.model / "README.md").unlink(missing_ok=True)
    text, card = card_of(folder, run)
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.base_model is None
    assert card.data.get("base_model_relation") is None
    assert set(card.data.tags) == {"sft", "full"}
    score = folder.read_scores()["loss"]["eval_loss"]
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found["loss.eval_loss"] == score["value"]
    low, high = score["ci95"]
    row = re.search(r"\| `loss\.eval_loss` +\|(.*)", text)[1]
    assert f"{score['value']:.3f}" in row
    assert f"[{low:.3f}, {high:.3f}]" in row
    assert re.search(rf"\| +{score['n']} \|$", row)
    assert folder.read_provenance()["data_fingerprint"] in text
    last = [row for row in metrics_log.read(folder.metrics) if "train_loss" in row][-1]
    assert f"{last['step']} steps ({last['epoch']:.3g} epochs)" in text
    assert f"{last['total_tokens']:,} tokens were trained on, {last['supervised_tokens']:,} of them" in text
    assert re.search(rf"\| torch +\| {re.escape(folder.read_provenance()['packages']['torch'])} ", text)
    assert (folder.model / "figures" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert "](figures/learning_curves.png)" in text


def test_the_settings_are_those_of_the_run(full):
    """The folded block, read back, is the run but for what is private."""
    folder, run = full
    (folder.model / "README.md").unlink(missing_ok=True)
    text, _ = card_of(folder, run)
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
    again = run_from_yaml(block, Path("card"))
    assert again.data == replace(run.data, path="chats.jsonl")
    assert (again.method, again.schedule, again.model, again.seed) == (run.method, run.schedule, run.model, 7)
    assert {"tracking", "launcher", "export", "run_root"}.isdisjoint(yaml.safe_load(block))
    assert re.search(r"\| `seed` +\| `7` ", text)
    command = re.search(r"python -m ftx\.train (.*)", text)[1]
    assert "data.path=chats.jsonl" in command
    assert "seed=7" in command
    assert "run_root" not in command


def test_nothing_private_is_in_a_card(full, adapter, monkeypatch):
    for folder, run in (full, adapter):
        secret = replace(
            run,
            tracking=replace(run.tracking, uri="https://me:tr4ck1ng@mlflow.corp/x"),
            data=replace(run.data, transforms=["mine:hf_abcdefghijklmnop"]),
        )
        (folder.model / "README.md").unlink(missing_ok=True)
        text, _ = card_of(folder, secret)
        host = folder.read_provenance()["host"]
        for word in (
            str(folder.path.parent),
            "private",
            "customer",
            "tr4ck1ng",
            "mlflow.corp",
            "hf_abcdef",
            f" {host}",
        ):
            assert word not in text, word
        assert "/tmp/" not in text


def test_an_adapters_card(adapter):
    folder, run = adapter
    text, card = card_of(folder, run, ExportConfig(repository="me/mine"))
    assert card.data.library_name == "peft"
    assert (card.data.license, card.data.get("license_name")) == ("other", "tiny-1")
    # Its base is a folder here, which the hub does not know.
    assert card.data.base_model is None
    assert 'AutoPeftModelForCausalLM.from_pretrained("me/mine")' in text
    assert "Base model `base`: [tiny-1](https://x.org/l), and it applies" in text
    assert re.search(r"`method\.lora\.rank` +\| `2` ", text)


def test_a_base_on_the_hub_and_data_sets_from_there(adapter, tmp_path, monkeypatch):
    """By their names; licences out of the hub's cache where it has the cards."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "a" * 40
    for kind, name, licence in (("models", "big--base", "apache-2.0"), ("datasets", "some--talks", "cc-by-4.0")):
        cached = tmp_path / f"{kind}--{name}"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text(commit)
        (cached / "snapshots" / commit).mkdir(parents=True)
        (cached / "snapshots" / commit / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    folder, run = adapter
    run = replace(
        run,
        model=replace(run.model, name="big/base", revision="main"),
        data=replace(run.data, source="hub", path="some/talks"),
    )
    assert base_of(run).licence == Licence("apache-2.0")
    assert [one.licence for one in data_of(run)] == [Licence("cc-by-4.0")]
    (folder.model / "README.md").unlink(missing_ok=True)
    text, card = card_of(folder, run)
    assert (card.data.base_model, card.data.get("base_model_relation")) == ("big/base", "adapter")
    assert (card.data.datasets, card.data.license) == (["some/talks"], "apache-2.0")
    assert "[some/talks](https://huggingface.co/datasets/some/talks)" in text
    unknown = replace(run, model=replace(run.model, name="other/base"))
    assert base_of(unknown).licence is None
    (folder.model / "README.md").unlink()
    text, card = card_of(folder, unknown)
    assert card.data.license is None
    assert "its licence was not recorded here" in text


def test_cards_lie_beside_every_export(adapter):
    folder, run = adapter
    exports = folder.path / "exports"
    (exports / "merged").mkdir(parents=True, exist_ok=True)
    (exports / "merged" / "model.safetensors").write_bytes(b"w")
    (exports / "gguf").mkdir(exist_ok=True)
    (exports / "gguf" / "mine-q8_0.gguf").write_bytes(b"w")
    (folder.model / "README.md").unlink(missing_ok=True)
    write_card(folder, run, ExportConfig(upload=["merged", "gguf"], repository="me/mine"))
    merged = ModelCard.load(exports / "merged" / "README.md")
    assert merged.data.library_name == "transformers"
    assert "This repository also has files for llama.cpp" in merged.content
    gguf = ModelCard.load(exports / "gguf" / "README.md")
    assert "gguf" in gguf.data.tags
    assert "- `mine-q8_0.gguf`" in gguf.content


def test_a_card_that_was_changed_by_hand_stays(full, ftx_log):
    folder, run = full
    (folder.model / "README.md").unlink(missing_ok=True)
    written, _ = card_of(folder, run)
    changed, _ = card_of(folder, replace(run, seed=8))
    assert changed != written
    mine = changed.replace("## Data", "My own words.\n\n## Data")
    (folder.model / "README.md").write_text(mine)
    text, _ = card_of(folder, run)
    assert text == mine
    assert "was changed by hand, so it stays as it is" in ftx_log.text


def test_a_run_without_a_model_has_no_card(full, tmp_path):
    with pytest.raises(UserError, match="has no model/ to describe"):
        write_card(RunFolder(tmp_path), full[1], ExportConfig())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/me/my data/chats.jsonl", "chats.jsonl"),
        ("~/chats.jsonl", "chats.jsonl"),
        ("OWNER/NAME", "OWNER/NAME"),
        ("{a:{path:/home/me/x.jsonl},b:{path:some/talks}}", "{a:{path:x.jsonl},b:{path:some/talks}}"),
        ("https://me:pass@host/x", "https://host/x"),
        (["/a/b", 3], ["b", 3]),
        ("1/2 of 3/4", "1/2 of 3/4"),
    ],
)
def test_what_everybody_may_read(value, shown):
    assert public(value) == shown


def test_known_secrets_and_what_looks_like_one():
    assert redacted("Bearer abc123 at http://u:p@h/", ["abc123"]) == "Bearer *** at http://h/"
    assert redacted("hf_0123456789abcdef and self_made") == "*** and self_made"
    assert redacted(json.dumps({"t": "github_pat_0123456789"})) == '{"t": "***"}'
