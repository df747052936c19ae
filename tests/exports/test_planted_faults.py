"""What the check has to find: each fault is planted in what was made, and the check of the sound one finds nothing."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from export_models import FAMILIES, adapted, save_model, tiny_tokenizer, write_chats
from safetensors.torch import load_file, save_file

from ftx.exports import gguf_layout, merging
from ftx.exports.check_process import check
from ftx.exports.comparison import GGUF, MERGED, faults
from ftx.exports.gguf_file import plan_gguf, write_gguf
from ftx.exports.merging import plan_merge, write_merged
from ftx.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["qwen3 tied", "llama"])
def trained(request, tmp_path_factory) -> tuple[RunFolder, object]:
    """With exports/merged/ as it should be."""
    place = tmp_path_factory.mktemp("faults")
    base = save_model(place / "base", FAMILIES[request.param], tiny_tokenizer())
    folder, run = adapted(place / "run", base, write_chats(place / "chats.jsonl"))
    write_merged(plan_merge(folder, run), folder.exports / "merged")
    return folder, run


def merged_copy(folder: RunFolder, target: Path) -> Path:
    shutil.copytree(folder.exports / "merged", target)
    return target


def swap(target: Path, one: str, other: str) -> None:
    file = target / "model.safetensors"
    weights = load_file(file)
    weights[one], weights[other] = weights[other], weights[one]
    save_file(weights, file, {"format": "pt"})


def edit_template(target: Path, old: str, new: str) -> None:
    file = target / "chat_template.jinja"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


LAYER = "model.layers.{}.self_attn.{}_proj.weight"
MERGED_FAULTS: dict[str, Callable[[Path], None]] = {
    "two layers' values swapped": lambda target: swap(target, LAYER.format(0, "v"), LAYER.format(1, "v")),
    "keys and values swapped": lambda target: swap(target, LAYER.format(2, "k"), LAYER.format(2, "v")),
    "two norms swapped": lambda target: swap(
        target, "model.layers.0.input_layernorm.weight", "model.layers.0.post_attention_layernorm.weight"
    ),
    "another role": lambda target: edit_template(target, "message.role +", "message.role | upper +"),
    "no newline after a turn": lambda target: edit_template(
        target, "{{- '\\n' }}\n{%- endfor %}\n{%- if add", "{%- endfor %}\n{%- if add"
    ),
    "no header of the answer": lambda target: edit_template(target, "add_generation_prompt", "false"),
}


def test_a_sound_merge_has_no_fault(trained):
    folder, _ = trained
    found = check(folder, "merge", folder.exports / "merged")
    assert faults(found, MERGED["fp32"]) == []
    assert found.difference.effect > 0.1
    assert len(found.samples) == 3
    assert all(sample.trained == sample.exported for sample in found.samples)


@pytest.mark.parametrize("factor", [0.0, 0.99, 2.0])
def test_a_wrong_scaling_is_found(factor, trained, tmp_path, monkeypatch):
    folder, run = trained
    read = merging.read_adapter
    monkeypatch.setattr(
        merging, "read_adapter", lambda path: dataclasses.replace(read(path), scaling=read(path).scaling * factor)
    )
    write_merged(plan_merge(folder, run), tmp_path / "merged")
    assert "its logits are off by" in faults(check(folder, "merge", tmp_path / "merged"), MERGED["fp32"])[0]


@pytest.mark.parametrize("fault", MERGED_FAULTS)
def test_a_fault_in_a_merged_model_is_found(fault, trained, tmp_path):
    folder, _ = trained
    target = merged_copy(folder, tmp_path / "merged")
    MERGED_FAULTS[fault](target)
    assert faults(check(folder, "merge", target), MERGED["fp32"])


@pytest.mark.parametrize("kind", ["f32", "q4_k_m"])
def test_a_sound_file_has_no_fault(kind, trained, tmp_path):
    folder, _ = trained
    assert file_faults(folder, folder.exports / "merged", kind, tmp_path) == []


@pytest.mark.parametrize("fault", ["two layers' values swapped", "two norms swapped", "no header of the answer"])
def test_a_fault_in_a_file_is_found_where_most_is_allowed(fault, trained, tmp_path):
    folder, _ = trained
    target = merged_copy(folder, tmp_path / "faulty")
    MERGED_FAULTS[fault](target)
    assert file_faults(folder, target, "q4_k_m", tmp_path)


def file_faults(folder: RunFolder, source: Path, kind: str, scratch: Path) -> list[str]:
    file = scratch / f"{source.name}-{kind}.gguf"
    write_gguf(plan_gguf(source, kind), file, "test")
    return faults(check(folder, f"gguf-{kind}", file), GGUF[kind])


def test_queries_and_keys_that_are_turned_the_wrong_way_are_found(trained, tmp_path, monkeypatch):
    folder, _ = trained
    wrong = () if is_llama(folder) else ("qwen3",)
    monkeypatch.setattr(gguf_layout, "IN_PAIRS", wrong)
    assert file_faults(folder, folder.exports / "merged", "q4_k_m", tmp_path)


def is_llama(folder: RunFolder) -> bool:
    return '"model_type": "llama"' in (folder.exports / "merged" / "config.json").read_text()


def test_a_wrong_base_frequency_is_found(trained, tmp_path):
    folder, _ = trained
    target = merged_copy(folder, tmp_path / "merged")
    text = (target / "config.json").read_text()
    assert '"rope_theta": 10000.0' in text
    (target / "config.json").write_text(text.replace('"rope_theta": 10000.0', '"rope_theta": 500000.0'))
    assert file_faults(folder, target, "q8_0", tmp_path)


def test_tokens_that_merge_in_another_order_are_found(trained, tmp_path):
    folder, _ = trained
    target = merged_copy(folder, tmp_path / "merged")
    described = json.loads((target / "tokenizer.json").read_text())
    described["model"]["merges"].reverse()
    (target / "tokenizer.json").write_text(json.dumps(described))
    (fault,) = faults(check(folder, "merge", target), MERGED["fp32"])
    assert fault.startswith("its tokens of ")
