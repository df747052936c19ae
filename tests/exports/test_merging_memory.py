"""How much memory merging takes, of a model of a gigabyte and of its largest matrix."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from export_models import SIZES, adapted, tiny_tokenizer, write_chats
from transformers import AutoModelForCausalLM, Qwen3Config

from ftx.disk import size_of
from ftx.exports.tensors import tensors_in

# 36 layers of 25 MB and an embedding of 67 MB, in 16 bits.
LARGE = Qwen3Config(
    **{
        **SIZES,
        "vocab_size": 32768,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "initializer_range": 0.02,
    },
    head_dim=128,
    tie_word_embeddings=True,
)
MERGE = """
import sys
from pathlib import Path
from ftx.exports.merging import plan_merge, write_merged
from ftx.run_folder import RunFolder

def peak():
    # Of this program alone: getrusage's begins with that of whoever started it.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

folder = RunFolder(Path(sys.argv[1]))
before = peak()
write_merged(plan_merge(folder, folder.read_run()), folder.exports / "merged")
print(before, peak())
"""


@pytest.mark.long
def test_a_model_of_a_gigabyte_is_merged_in_less_than_1_3_of_it(tmp_path):
    base = tmp_path / "base"
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        AutoModelForCausalLM.from_config(LARGE).save_pretrained(base)
    finally:
        torch.set_default_dtype(torch.float32)
    tiny_tokenizer().save_pretrained(base)
    assert size_of(base) > 0.95e9
    words = ("hardware.precision=bf16", "model.template=plain")
    folder, _ = adapted(tmp_path / "run", base, write_chats(tmp_path / "chats.jsonl"), *words)
    before, peak = merge_in_a_process(folder.path)
    assert peak - before < 1.3e9
    # Weight by weight: of the model itself there is never more than a part in memory.
    assert peak - before < 0.5 * size_of(base)
    merged = tensors_in(folder.exports / "merged")
    assert set(merged) == set(tensors_in(base))
    assert sum(one.bytes for one in merged.values()) > 0.95e9


def merge_in_a_process(folder: Path) -> tuple[int, int]:
    """Bytes at most in memory before and after, of a process that does nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", MERGE, str(folder)], capture_output=True, text=True, check=True, timeout=600
    )
    before, after = map(int, done.stdout.split()[-2:])
    return before, after
