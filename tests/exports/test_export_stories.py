"""A real pretrained model, fine-tuned and exported by the command itself; llama.cpp tells the same stories."""

import json
from pathlib import Path

import pytest
import torch
from export_models import greedy, texts
from real_data import real_path, real_rows
from transformers import AutoModelForCausalLM
from verb_process import start

from ftx.config.compose import ComposedRun, compose
from ftx.errors import ExitCode
from ftx.exports.base import saved_tokenizer
from ftx.exports.check_process import normalized
from ftx.exports.comparison import compare_logits
from ftx.exports.gguf_file import plan_gguf, write_gguf
from ftx.exports.llama_cpp import LlamaCpp
from ftx.exports.merging import plan_merge, write_merged
from ftx.exports.sides import in_32_bits
from ftx.job import run_job
from ftx.models import load_trained
from ftx.run_folder import RunFolder
from launchers.folders import describe_on_disk, locate

pytestmark = pytest.mark.usefixtures("one_thread")

# Of the two likeliest tokens' logits, at least, along the story: 0.017 where it was measured, hundreds of times what
# processors differ by.
GAP = 5e-3
BOS, PROMPT = 1, "Once upon a time, there was a little girl"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> tuple[RunFolder, Path]:
    """A LoRA run on the stories that the model once wrote itself, and its merged model."""
    place = tmp_path_factory.mktemp("stories")
    rows = [row for row in real_rows("gsm8k/train.jsonl.gz")[:300] if len(row["question"] + row["answer"]) < 250]
    chats = [{"prompt": row["question"] + "\n", "completion": row["answer"]} for row in rows[:24]]
    (place / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    run = compose(
        *("model=hub", f"model.name={real_path('stories260k') / 'hf'}", "model.template=plain", "data=jsonl"),
        *(f"data.path={place / 'chats.jsonl'}", f"run_root={place}", "data.max_length=256", "method=lora"),
        *("schedule.epochs=1", "schedule.global_batch_size=4", "schedule.learning_rate=3e-3", "tracking.offline=true"),
        *("name=stories", "hardware.threads=1"),
    )
    described = ComposedRun(run, (), {})
    folder = locate(described)
    describe_on_disk(described, folder)
    assert run_job(folder) == ExitCode.FINISHED
    write_merged(plan_merge(folder, run), place / "merged")
    return folder, place / "merged"


def by_transformers(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def by_llama_cpp(folder: Path, kind: str) -> LlamaCpp:
    file = folder.parent / f"{kind}.gguf"
    if not file.exists():
        write_gguf(plan_gguf(folder, kind), file, "stories")
    return LlamaCpp(file, context=300, threads=1)


def tokens(folder: Path) -> list[int]:
    return [BOS, *saved_tokenizer(folder).encode(PROMPT, add_special_tokens=False)]


def test_merged_logits_are_those_of_base_and_adapter(tuned):
    folder, merged = tuned
    trained = in_32_bits(load_trained(folder.model, folder.read_run(), saved_tokenizer(merged)))
    ids = torch.tensor([tokens(merged)])
    with torch.no_grad():
        ours, theirs = trained(input_ids=ids, use_cache=False).logits, by_transformers(merged)(input_ids=ids).logits
        with trained.disable_adapter():
            base = trained(input_ids=ids, use_cache=False).logits
    assert float((ours - theirs).abs().max()) <= 1e-5 * float(ours.abs().max())
    assert float((ours - base).abs().max()) > 0.1 * float(ours.abs().max())


def test_llama_cpp_tells_the_same_story_for_200_tokens(tuned):
    _, merged = tuned
    ids, model = tokens(merged), by_llama_cpp(merged, "f32")
    story, gap = greedy(by_transformers(merged), ids)
    assert gap > GAP
    assert model.answer(ids, most=200) == story
    assert len(set(story)) > 30
    model.close()


@pytest.mark.parametrize(("kind", "relative"), [("f32", 1e-5), ("f16", 5e-3), ("q8_0", 0.05), ("q4_k_m", 0.2)])
def test_logits_are_as_near_as_the_numbers_are_long(kind, relative, tuned):
    _, merged = tuned
    ids, model = tokens(merged), by_llama_cpp(merged, kind)
    with torch.no_grad():
        expected = by_transformers(merged)(input_ids=torch.tensor([ids])).logits[0].numpy()
    assert compare_logits([expected], [model.logits(ids)]).relative < relative
    model.close()


def test_a_thousand_texts_have_the_same_tokens(tuned):
    """SentencePiece's manner, with byte tokens; llama.cpp is given what the normalizer leaves."""
    _, merged = tuned
    model, tokenizer = by_llama_cpp(merged, "f32"), saved_tokenizer(merged)
    made = texts(1000, list(tokenizer.get_added_vocab()))
    differing = [
        text
        for text in made
        if model.tokenize(normalized(tokenizer, text)) != tokenizer.encode(text, add_special_tokens=False)
    ]
    assert differing == []
    model.close()


def test_what_falls_back_is_said(tuned):
    _, merged = tuned
    assert plan_gguf(merged, "f16").fallbacks == []
    assert plan_gguf(merged, "q8_0").fallbacks == [
        "5 weights (ffn_down) have rows of 172, no multiple of 32: f16 instead of q8_0"
    ]
    assert any(
        "rows of 64, no multiple of 256: q5_0 instead of q4_k" in one for one in plan_gguf(merged, "q4_k_m").fallbacks
    )


@pytest.mark.long
def test_the_command_makes_all_of_them_and_compares_each(tuned, tmp_path):
    folder, _ = tuned
    kinds = ["f32", "f16", "q8_0", "q4_k_m"]
    ended = start(
        "export", folder.path, "merge", "gguf", f"export.quantization=[{','.join(kinds)}]", into=tmp_path / "said"
    ).ended()
    assert ended.code == ExitCode.FINISHED, ended.err
    kept = folder.read_exports()
    assert {name: one["state"] for name, one in kept.items()} == dict.fromkeys(
        ["merge", *(f"gguf-{kind}" for kind in kinds)], "ok"
    )
    kl = [kept[f"gguf-{kind}"]["check"]["difference"]["kl"] for kind in kinds]
    assert kl == sorted(kl)
    assert len({kl[0], kl[-1]}) == 2
    files = sorted(file.name for file in (folder.exports / "gguf").iterdir())
    assert files == sorted(f"{folder.name}-{kind}.gguf" for kind in kinds)
    assert "5 weights (ffn_down) have rows of 172" in ended.out
