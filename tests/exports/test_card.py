"""The model card of real runs: front matter, every number as recorded, nothing private, nobody's own words lost."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from finished_run import finished
from hub_server import Hub, Repository
from huggingface_hub import ModelCard
from peft import PeftModel
from talkative import QUANTISABLE, write_talkative
from transformers import AutoModelForCausalLM

from ftx import metrics_log
from ftx.config.export_schema import ExportConfig
from ftx.config.stored import run_from_yaml
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.exports.card import write_card
from ftx.exports.origins import Licence, base_of, data_of
from ftx.exports.public import public, redacted
from ftx.models import load_trained
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


def test_what_a_quantised_runs_card_loads_is_what_was_trained(new_place, tmp_path):
    """The example, carried out; the numbers are those of the model as it was trained."""
    base = write_talkative(tmp_path / "wide", QUANTISABLE)
    words = ("model=hub", f"model.name={base}", "model.template=chatml", "method=qlora", "schedule.learning_rate=5e-3")
    folder, run = finished(new_place(), *words)
    text, _ = card_of(folder, run, ExportConfig(repository="me/mine"))
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    carried_out: dict = {}
    exec(example.replace("me/mine", str(folder.model)), carried_out)
    prompt = carried_out["prompt"]
    tokenizer = carried_out["tokenizer"]
    assert carried_out["answer"].shape[1] <= prompt["input_ids"].shape[1] + 512
    ends = json.loads((folder.model / "generation_config.json").read_text())["eos_token_id"]
    assert f"eos_token_id={ends})" in example
    trained = load_trained(folder.model, run, tokenizer)
    on_the_whole = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder.model)
    with torch.no_grad():
        expected, found, other = (
            model.eval()(**prompt).logits for model in (trained, carried_out["model"], on_the_whole)
        )
    # On some CPUs bitsandbytes multiplies in 16 bits.
    assert (found - expected).norm() < 0.02 * expected.norm()
    assert (other - expected).norm() > 0.1 * expected.norm()
    exports = folder.path / "exports" / "merged"
    exports.mkdir(parents=True)
    (exports / "model.safetensors").write_bytes(b"w")
    write_card(folder, run, ExportConfig())
    assert "what 4 bits (NF4) left of it, dequantised" in (exports / "README.md").read_text()
    assert "NF4" not in text.partition("## Method")[0].partition("## Use")[0]


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


LICENCE_OF = """
import sys
from ftx.config.compose import compose
from ftx.data.model_parts import pretrained_parts
from ftx.exports.origins import base_of
from ftx.models import load_model

run = compose("model=hub", f"model.name={sys.argv[1]}", "model.template=chatml")
load_model(run, pretrained_parts(run).tokenizer)
licence = base_of(run).licence
print("LICENCE", licence and licence.id)
"""


def test_the_licence_of_a_base_comes_with_it_from_the_hub(tmp_path):
    """And is known without the hub afterwards."""
    files = {file.name: file.read_bytes() for file in write_talkative(tmp_path / "base").iterdir()}
    with_card = Repository({**files, "README.md": b"---\nlicense: cc-by-nc-4.0\n---\n# Big\n"})
    with Hub(models={"big/base": with_card, "big/silent": Repository(files)}) as hub:

        def licence_of(name: str, *, offline: bool) -> str:
            environment = {**hub.environment(tmp_path / "home", offline), "PYTHONPATH": str(CHECKOUT)}
            command = [sys.executable, "-c", LICENCE_OF, name]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

        assert licence_of("big/base", offline=False).endswith("LICENCE cc-by-nc-4.0")
        assert licence_of("big/base", offline=True).endswith("LICENCE cc-by-nc-4.0")
        assert licence_of("big/silent", offline=False).endswith("LICENCE None")


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
    assert merged.data.eval_results
    assert "Measured on the adapter and its base before they were merged" in merged.content
    gguf = ModelCard.load(exports / "gguf" / "README.md")
    assert "gguf" in gguf.data.tags
    assert "- `mine-q8_0.gguf`" in gguf.content
    assert gguf.data.eval_results is None
    assert "with transformers, not on these files" in gguf.content
    assert re.search(r"`mine-q8_0\.gguf` +\| +not compared", gguf.content)
    difference = {"relative": 0.0123, "kl": 0.00045, "same_choice": 0.987, "positions": 3, "effect": None}
    folder.write_export("gguf-q8_0", state="ok", made="exports/gguf/mine-q8_0.gguf", check={"difference": difference})
    write_card(folder, run, ExportConfig(upload=["merged", "gguf"], repository="me/mine"))
    gguf = ModelCard.load(exports / "gguf" / "README.md")
    assert re.search(r"`mine-q8_0\.gguf` +\| +0\.012 \| +0\.00045 \| +98\.7% \|", gguf.content)


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
