"""What a check needs besides the export: the run's data and template as they were, and memory; said before merging."""

import json
from pathlib import Path

import pytest
import torch
from export_models import FAMILIES, adapted, save_model, tiny_tokenizer, write_chats

from ftx import templates
from ftx.data import cache
from ftx.data.fingerprint import data_fingerprint, model_fingerprint
from ftx.data.prepare import prepare_on_disk
from ftx.errors import UserError
from ftx.exports import check_memory, check_process
from ftx.exports.check import check_can_compare
from ftx.exports.check_memory import available_bytes, bytes_needed
from ftx.exports.check_process import check
from ftx.exports.check_samples import prepared_set
from ftx.exports.comparison import bound_of, describe, faults
from ftx.exports.merging import plan_merge, write_merged
from ftx.exports.steps import make_exports
from ftx.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("base") / "base", FAMILIES["qwen3 tied"], tiny_tokenizer())


@pytest.fixture
def trained(base, tmp_path) -> tuple[RunFolder, object]:
    """Prepared, with what it was trained on in provenance.json."""
    folder, run = adapted(
        tmp_path / "run", base, write_chats(tmp_path / "chats.jsonl"), "hardware.precision=bf16", "export=[merge]"
    )
    known = {"model_fingerprint": model_fingerprint(run), "data_fingerprint": data_fingerprint(run)}
    (folder.path / "provenance.json").write_text(json.dumps(known))
    prepare_on_disk(run)
    return folder, run


def test_data_that_were_moved_away_are_found_in_the_cache(trained, tmp_path):
    folder, run = trained
    known = prepare_on_disk(run)
    (tmp_path / "chats.jsonl").rename(tmp_path / "elsewhere.jsonl")
    assert prepared_set(folder, run) == known
    make_exports(folder, run, ["merge"])
    assert folder.read_exports()["merge"]["state"] == "ok"


def test_data_that_are_others_now_are_not_asked_about(trained, tmp_path):
    folder, run = trained
    known = prepare_on_disk(run)
    write_chats(tmp_path / "chats.jsonl", count=30)
    assert prepared_set(folder, run) == known


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, "cannot be read"),
        (lambda file: write_chats(file, count=30), "is not what run was trained on any more"),
    ],
)
def test_without_them_it_is_said_before_anything_is_made(change, said, trained, tmp_path):
    folder, run = trained
    prepared = prepare_on_disk(run)
    (prepared / "conversations").unlink()
    change(tmp_path / "chats.jsonl")
    with pytest.raises(UserError, match=rf"data\.path=.*{said}.*export\.check=false"):
        make_exports(folder, run, ["merge"])
    assert folder.read_exports() == {}
    assert not (folder.exports / "merged").exists()


def test_an_edited_template_of_the_family_is_nothing_to_a_run_of_before(trained, tmp_path, monkeypatch):
    folder, run = trained
    known = prepare_on_disk(run)
    checkout = tmp_path / "checkout"
    (checkout / "templates").mkdir(parents=True)
    text = templates.load_template("chatml").text
    (checkout / "templates" / "chatml.jinja").write_text(text.replace("message.role", "message.role | upper"))
    monkeypatch.setattr(templates, "CHECKOUT", checkout)
    monkeypatch.setattr(cache, "CHECKOUT", checkout)
    (tmp_path / "chats.jsonl").unlink()
    assert prepared_set(folder, run) == known
    write_merged(plan_merge(folder, run), folder.exports / "merged")
    assert faults(check(folder, "merge", folder.exports / "merged"), bound_of("merge", "bf16")) == []


def test_what_does_not_fit_is_refused_before_anything_is_made(trained, monkeypatch):
    folder, run = trained
    monkeypatch.setattr(check_memory, "available_bytes", lambda: 10**8)
    with pytest.raises(UserError, match=r"about 9\d\d\.\d MiB, and 95\.4 MiB are free here; .*export\.check=false"):
        make_exports(folder, run, ["merge"])
    assert folder.read_exports() == {}


def test_where_32_bits_do_not_fit_the_stored_type_is_computed_in(trained, monkeypatch):
    folder, run = trained
    weights, logits = check_memory._numbers(run)
    assert weights == sum(one.numel() for one in saved_weights(run))
    needed = [bytes_needed(weights, logits, dtype) for dtype in (torch.bfloat16, torch.float32)]
    assert needed[1] - needed[0] == 2 * weights
    monkeypatch.setattr(check_memory, "available_bytes", lambda: sum(needed) / 2)
    check_can_compare(folder, run)
    write_merged(plan_merge(folder, run), folder.exports / "merged")
    found = check_process.check(folder, "merge", folder.exports / "merged")
    bound = bound_of("merge", "bf16", found.computed_in)
    assert faults(found, bound) == []
    assert "in bfloat16, as memory is short for 32 bits" in describe(found, bound)


def saved_weights(run) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    return list(load_file(Path(run.model.name) / "model.safetensors").values())


MEMINFO = "MemTotal:  8000000 kB\nMemFree:  100 kB\nMemAvailable:  4000000 kB\n"


def test_the_least_of_the_machine_and_the_groups_counts(tmp_path):
    proc, groups = tmp_path / "proc", tmp_path / "sys/fs/cgroup"
    assert available_bytes(tmp_path) is None
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    assert available_bytes(tmp_path) == 4_096_000_000
    (proc / "self/cgroup").write_text("0::/slurm/job_1\n")
    job = groups / "slurm/job_1"
    job.mkdir(parents=True)
    for folder, limit in ((job, "max"), (job.parent, "3000000000")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("2000000000\n")
        (folder / "memory.stat").write_text("anon 1500000000\ninactive_file 500000000\n")
    assert available_bytes(tmp_path) == 3_000_000_000 - 2_000_000_000 + 500_000_000
    (proc / "self/cgroup").write_text("4:cpu:/\n3:memory:/job\n")
    (groups / "memory/job").mkdir(parents=True)
    (groups / "memory/job/memory.limit_in_bytes").write_text("1000000000\n")
    (groups / "memory/job/memory.usage_in_bytes").write_text("300000000\n")
    (groups / "memory/job/memory.stat").write_text("inactive_file 0\n")
    assert available_bytes(tmp_path) == 700_000_000
