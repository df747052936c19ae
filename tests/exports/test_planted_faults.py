"""What the check has to find: each fault is planted in what was made, and the check of the sound one finds nothing."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from export_models import FAMILIES, LLAMA3_ROPE, SIZES, adapted, save_model, tiny_tokenizer, write_chats
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from ftx.exports import gguf_layout, merging
from ftx.exports.check_process import check
from ftx.exports.comparison import bound_of, describe, faults
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


def edit_json(target: Path, name: str, **values: object) -> None:
    file = target / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


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
    "another end of generation": lambda target: edit_json(target, "generation_config.json", eos_token_id=77),
    "one end too many": lambda target: edit_json(target, "generation_config.json", eos_token_id=[2, 77]),
    "another end token": lambda target: edit_json(target, "tokenizer_config.json", eos_token="a"),
}


def test_a_sound_merge_has_no_fault(trained):
    folder, _ = trained
    found = check(folder, "merge", folder.exports / "merged")
    assert faults(found, bound_of("merge", "fp32")) == []
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
    assert "its logits are off by" in faults(check(folder, "merge", tmp_path / "merged"), bound_of("merge", "fp32"))[0]


@pytest.mark.parametrize("fault", MERGED_FAULTS)
def test_a_fault_in_a_merged_model_is_found(fault, trained, tmp_path):
    folder, _ = trained
    target = merged_copy(folder, tmp_path / "merged")
    MERGED_FAULTS[fault](target)
    assert faults(check(folder, "merge", target), bound_of("merge", "fp32"))


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
    return faults(check(folder, f"gguf-{kind}", file), bound_of(f"gguf-{kind}", "fp32"))


def test_queries_and_keys_that_are_turned_the_wrong_way_are_found(trained, tmp_path, monkeypatch):
    folder, _ = trained
    wrong = () if is_llama(folder) else ("qwen3",)
    monkeypatch.setattr(gguf_layout, "IN_PAIRS", wrong)
    assert file_faults(folder, folder.exports / "merged", "q4_k_m", tmp_path)


def bos_where_there_is_none(writer: gguf.GGUFWriter, _: bool) -> None:
    writer.add_bos_token_id(80)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)


# Methods of the writer, and what they do instead.
FILE_FAULTS: dict[str, dict[str, Callable]] = {
    "another end": {
        "add_eos_token_id": lambda writer, _: writer.add_uint32("tokenizer.ggml.eos_token_id", 77),
        "add_eot_token_id": lambda writer, _: None,
    },
    "a begin token that training had not": {"add_add_bos_token": bos_where_there_is_none},
    "all are control tokens": {
        "add_token_types": lambda writer, types: writer.add_array(
            "tokenizer.ggml.token_type", [int(gguf.TokenType.CONTROL)] * len(types)
        )
    },
}
FILE_FAULTS_FOUND = {
    "another end": "it ends an answer at ",
    "a begin token that training had not": "its tokens of the question ",
    "all are control tokens": "it takes ordinary tokens for control tokens: ",
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_what_llama_cpp_would_misuse_a_file_by_is_found(fault, trained, tmp_path, monkeypatch):
    folder, _ = trained
    for method, instead in FILE_FAULTS[fault].items():
        monkeypatch.setattr(gguf.GGUFWriter, method, instead)
    found = file_faults(folder, folder.exports / "merged", "f32", tmp_path)
    assert any(one.startswith(FILE_FAULTS_FOUND[fault]) for one in found), found


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
    found = faults(check(folder, "merge", target), bound_of("merge", "fp32"))
    assert found
    assert all(fault.startswith("its tokens of ") for fault in found)


@pytest.fixture(scope="module")
def in_16_bits(tmp_path_factory) -> tuple[RunFolder, object]:
    """A bf16 run whose training has moved logits by about a twentieth."""
    place = tmp_path_factory.mktemp("bf16")
    base = save_model(place / "base", FAMILIES["llama"], tiny_tokenizer())
    words = ("hardware.precision=bf16", "method.lora.alpha=0.3")
    folder, run = adapted(place / "run", base, write_chats(place / "chats.jsonl"), *words)
    write_merged(plan_merge(folder, run), folder.exports / "merged")
    return folder, run


@pytest.mark.parametrize("export", ["merge", "gguf-f32", "gguf-f16", "gguf-bf16", "gguf-q8_0"])
def test_what_is_made_of_a_bf16_run_has_no_fault(export, in_16_bits, tmp_path):
    """The weights are the sums rounded once, and so is what they are compared with: only a file's own type is left."""
    folder, _ = in_16_bits
    made = folder.exports / "merged"
    if export != "merge":
        made = tmp_path / "made.gguf"
        write_gguf(plan_gguf(folder.exports / "merged", export.removeprefix("gguf-")), made, "test")
    found = check(folder, export, made)
    assert faults(found, bound_of(export, "bf16")) == []
    assert 0.03 < found.difference.effect < 0.15
    assert found.difference.rounding > 1e-3
    if export in ("merge", "gguf-f32"):
        assert found.difference.relative < 1e-5


@pytest.mark.parametrize(("export", "factor"), [("merge", 0.9), ("gguf-q8_0", 0.0), ("gguf-q8_0", 0.5)])
def test_less_than_was_learned_is_found_where_it_is_no_more_than_noise(
    export, factor, in_16_bits, tmp_path, monkeypatch
):
    folder, run = in_16_bits
    read = merging.read_adapter
    monkeypatch.setattr(
        merging, "read_adapter", lambda path: dataclasses.replace(read(path), scaling=read(path).scaling * factor)
    )
    made = tmp_path / "merged"
    write_merged(plan_merge(folder, run), made)
    if export != "merge":
        write_gguf(plan_gguf(made, export.removeprefix("gguf-")), tmp_path / "made.gguf", "test")
        made = tmp_path / "made.gguf"
    found = check(folder, export, made)
    wrong = faults(found, bound_of(export, "bf16"))
    if export == "merge":
        assert any("its logits are off by" in one for one in wrong)
        return
    assert found.difference.relative < bound_of(export, "bf16").relative
    assert found.difference.learned == pytest.approx(factor, abs=0.1)
    assert any("of what training has moved logits by" in one for one in wrong), wrong


def test_what_noise_would_hide_is_said_and_is_no_fault(in_16_bits, tmp_path):
    folder, _ = in_16_bits
    write_gguf(plan_gguf(folder.exports / "merged", "q4_k_m"), tmp_path / "made.gguf", "test")
    found, bound = check(folder, "gguf-q4_k_m", tmp_path / "made.gguf"), bound_of("gguf-q4_k_m", "bf16")
    assert faults(found, bound) == []
    assert "too little to tell from this precision's own noise" in describe(found, bound)


@pytest.mark.parametrize(
    ("noise", "learned", "is_found"),
    [(0.2, 0.8, False), (0.2, 0.7, True), (1.0, 0.5, True), (1.45, 1.34, False), (1.45, 0.3, True), (1.6, 0.0, False)],
)
def test_how_much_may_be_missing_depends_on_the_noise(noise, learned, is_found, in_16_bits):
    """1.45 and 1.34 are a sound q4_k_m file of a small model; a base has learned nothing."""
    folder, _ = in_16_bits
    found = check(folder, "merge", folder.exports / "merged")
    numbers = dataclasses.replace(found.difference, effect=0.04, aside=0.04 * noise, learned=learned, rounding=None)
    wrong = faults(dataclasses.replace(found, difference=numbers), bound_of("merge", "bf16"))
    assert any("of what training has moved logits by" in one for one in wrong) == is_found


@pytest.mark.parametrize("kind", ["q8_0", "q4_k_m"])
def test_positions_that_go_wrong_far_on_are_found(kind, tmp_path):
    """As where a file lacks what stretches Llama 3.1's rotations, which the first few hundred tokens hardly show."""
    rope = {**LLAMA3_ROPE, "original_max_position_embeddings": 8192}
    sizes = {**SIZES, "num_hidden_layers": 2, "max_position_embeddings": 131072}
    base = save_model(tmp_path / "base", LlamaConfig(**sizes, head_dim=64, rope_parameters=rope), tiny_tokenizer())
    folder, run = adapted(tmp_path / "run", base, write_chats(tmp_path / "chats.jsonl"))
    write_merged(plan_merge(folder, run), folder.exports / "merged")
    target = merged_copy(folder, tmp_path / "merged")
    edit_json(target, "config.json", rope_parameters={"rope_type": "default", "rope_theta": rope["rope_theta"]})
    file = tmp_path / "wrong.gguf"
    write_gguf(plan_gguf(target, kind), file, "test")
    found = check(folder, f"gguf-{kind}", file)
    assert found.difference.near < bound_of(f"gguf-{kind}", "fp32").relative
    assert any(
        "after 4,096 tokens its logits are off by" in one for one in faults(found, bound_of(f"gguf-{kind}", "fp32"))
    )
