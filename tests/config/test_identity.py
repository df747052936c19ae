"""A run's identity: what changes the result changes the hash, and nothing else does."""

import os
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from ftx.config import identity, keys
from ftx.config.compose import compose
from ftx.config.identity import identity_keys, run_hash
from ftx.config.keys import flat, schema_fields
from ftx.config.schema import RunConfig, ScheduleConfig, SourceConfig
from ftx.config.schema_keys import key, section
from ftx.data import fingerprint, stdlib_docs
from ftx.data.fingerprint import data_fingerprint, model_fingerprint
from ftx.data.hub_names import hub_commit
from ftx.errors import UserError
from ftx.runs_on_disk import find_run_folder

# By contract: hardware counts, strategy, launcher, tracking, run_root, evaluation, logging intervals, name, attention.
# Paths are in it by content.
LEAVES_THE_RESULT = {
    "name",
    "run_root",
    "fresh",
    "model.suggested_learning_rate",
    "model.suggested_global_batch_size",
    "model.attention",
    "model.adapter",
    "export.merge",
    "export.gguf",
    "export.card",
    "export.hub",
    "export.quantization",
    "export.check",
    "export.repository",
    "export.private",
    "export.upload",
    "export.push",
    "export.register",
    "data.path",
    "data.holdout_path",
    "data.processes",
    "data.cache",
    "data.tasks",
    "data.size.conversations",
    "data.size.tokens",
    "hardware.device",
    "hardware.gpu",
    "hardware.nodes",
    "hardware.gpus_per_node",
    "hardware.processes_per_node",
    "hardware.strategy",
    "hardware.micro_batch",
    "hardware.threads",
    "hardware.activation_checkpointing",
    "hardware.activation_offload",
    "hardware.tf32",
    "hardware.cudnn_benchmark",
    "model.kernels",
    "model.loss",
    "model.compile",
    "data.share_prefix",
    "hardware.peak_tflops",
    "hardware.tflops.half",
    "hardware.tflops.tf32",
    "hardware.tflops.single",
    "hardware.memory_gib",
    "hardware.unified_memory",
    "hardware.bandwidth_gb_s",
    "hardware.interconnect_gb_s",
    "hardware.network_gb_s",
    "hardware.host_memory_gib",
    "schedule.log_every",
    "schedule.save_every",
    "schedule.eval_every",
    "schedule.keep_checkpoints",
    "schedule.save_weights",
    "schedule.profile_steps",
}
SECTIONS_THAT_LEAVE_IT = ("evaluation.", "tracking.", "launcher.", "search.", "expected.")
ALL_KEYS = [name for name, _, _ in schema_fields()]


def with_key(config: Any, name: str, value: Any) -> Any:
    """The frozen config with one dotted key changed."""
    first, _, rest = name.partition(".")
    return replace(config, **{first: with_key(getattr(config, first), rest, value) if rest else value})


def another(item, value: Any) -> Any:
    """A value of the field's type that is not ``value``."""
    kinds = get_args(item.type) or (item.type,)
    if value is True or value is False:
        return not value
    if isinstance(value, list):
        return [*value, "another"]
    if isinstance(value, dict):
        return {**value, "another": SourceConfig(rows=3)}
    if isinstance(value, int | float):
        return value + 1
    return "another" if str in kinds else 7


@pytest.fixture
def run() -> RunConfig:
    return compose()


def test_intervals_count_where_the_best_checkpoint_is_chosen(run):
    """They say which checkpoints there are to choose from."""
    best = with_key(run, "schedule.best_metric", "eval_loss")
    for name in ("schedule.save_every", "schedule.eval_every"):
        assert run_hash(with_key(best, name, 5), "", "") != run_hash(best, "", "")


def test_a_model_that_is_only_scored_is_another_run_without_the_scaffold(run):
    """A trained one is not: it would be trained again."""
    for epochs, differs in ((0, True), (2, False)):
        with_it = with_key(run, "schedule.epochs", epochs)
        without = with_key(with_it, "evaluation.scaffold", "none")
        assert (run_hash(with_it, "data", "") != run_hash(without, "data", "")) == differs


@pytest.mark.parametrize("name", ALL_KEYS)
def test_a_key_changes_the_hash_exactly_when_it_changes_the_result(name, run):
    item = {known: item for known, item, _ in schema_fields()}[name]
    changed = with_key(run, name, another(item, flat(run)[name]))
    same = run_hash(run, "data", "") == run_hash(changed, "data", "")
    assert same == (name in LEAVES_THE_RESULT or name.startswith(SECTIONS_THAT_LEAVE_IT))


def test_the_contract_names_only_keys_that_exist():
    assert set(ALL_KEYS) >= LEAVES_THE_RESULT


def test_words_that_leave_the_result_find_the_same_folder(run, tmp_path):
    words = ["hardware.micro_batch=1", "schedule.log_every=3", "launcher.parallel=2", "evaluation.limit=5"]
    assert run_hash(compose(*words), "data", "") == run_hash(run, "data", "")
    assert find_run_folder(run, "data", "").name == f"{run.name}-{run_hash(run, 'data', '')}"
    assert len(run_hash(run, "data", "")) == 8


def test_fingerprints_and_their_content_are_in_it(run):
    hashes = {run_hash(run, data, model) for data in ("a", "b") for model in ("", "c", "d")}
    assert len(hashes) == 6
    named = with_key(run, "model.name", "somewhere")
    moved = with_key(with_key(run, "model.name", "elsewhere"), "model.revision", "v2")
    assert run_hash(named, "data", "content") == run_hash(moved, "data", "content")


def test_the_way_to_a_value_does_not_count():
    assert run_hash(compose("schedule.epochs=3"), "data", "") == run_hash(compose(), "data", "")
    assert identity_keys(RunConfig()) == {}


def test_a_key_that_comes_later_orphans_nobody(run, monkeypatch):
    before = run_hash(run, "data", "")
    later = make_dataclass("Later", [("label_smoothing", float, key(0.0))], bases=(ScheduleConfig,), frozen=True)
    grown = make_dataclass("Grown", [("schedule", later, section(later))], bases=(RunConfig,), frozen=True)
    for module in (identity, keys):
        monkeypatch.setattr(module, "RunConfig", grown)
    monkeypatch.setattr(identity, "schema_fields", lambda: schema_fields(grown))
    values = {item.name: getattr(run, item.name) for item in fields(run)}
    schedule = later(**{item.name: getattr(run.schedule, item.name) for item in fields(run.schedule)})
    same = grown(**{**values, "schedule": schedule})
    assert "schedule.label_smoothing" in [name for name, _, _ in schema_fields(grown)]
    assert run_hash(same, "data", "") == before
    assert run_hash(with_key(same, "schedule.label_smoothing", 0.1), "data", "") != before


def chats(folder: Path, text: str, name: str = "a.jsonl") -> RunConfig:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return compose("data=jsonl", f"data.path={folder / name}", f"data.cache={folder.parent / 'cache'}")


def test_data_is_known_by_its_content_wherever_it_lies(tmp_path):
    here, there = chats(tmp_path / "here", "a"), chats(tmp_path / "there", "a", "b.jsonl")
    other = chats(tmp_path / "other", "b")
    assert data_fingerprint(here) == data_fingerprint(there) != data_fingerprint(other)
    hashes = [run_hash(run, data_fingerprint(run), "") for run in (here, there, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_standard_library_is_known_by_its_content(run):
    assert data_fingerprint(run) == stdlib_docs.fingerprint()


def weights(folder: Path, config: str = "{}") -> RunConfig:
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(b"weights")
    return compose("model=hub", f"model.name={folder}", f"data.cache={folder.parent / 'cache'}")


def test_a_model_folder_is_known_by_its_content_wherever_it_lies(tmp_path):
    here, there = weights(tmp_path / "here"), weights(tmp_path / "there")
    other = weights(tmp_path / "other", '{"layers": 2}')
    (tmp_path / "there" / "README.md").write_text("not a part of the model")
    (tmp_path / "there" / "optimizer.pt").write_text("neither")
    assert model_fingerprint(here) == model_fingerprint(there) != model_fingerprint(other)
    hashes = [run_hash(run, "data", model_fingerprint(run)) for run in (here, there, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_an_adapter_on_it_makes_another_model(tmp_path):
    base = weights(tmp_path / "base")
    first, same, other = (tmp_path / name for name in ("first", "same", "other"))
    for folder, content in ((first, "a"), (same, "a"), (other, "b")):
        folder.mkdir()
        (folder / "adapter_config.json").write_text(content)
    with_first, with_same, with_other = (with_key(base, "model.adapter", str(one)) for one in (first, same, other))
    assert model_fingerprint(with_first) == model_fingerprint(with_same)
    assert len({model_fingerprint(one) for one in (base, with_first, with_other)}) == 3


def test_random_weights_have_no_fingerprint(run):
    assert model_fingerprint(run) == ""


def test_a_hub_commit_is_itself_and_a_branch_is_looked_up_where_the_hub_is_off_limits(tmp_path, monkeypatch):
    from huggingface_hub import constants

    commit = "0123456789abcdef" * 2 + "01234567"
    assert hub_commit("owner/model", commit, kind="model", word="model.name", cache=tmp_path) == commit
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"model\.name=owner/model: .*HF_HUB_OFFLINE"):
        hub_commit("owner/model", "main", kind="model", word="model.name", cache=tmp_path)
    reference = tmp_path / "models--owner--model" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text(commit)
    run = compose("model=hub", "model.name=owner/model")
    assert model_fingerprint(run) == f"owner/model@{commit}"


@dataclass
class Counted:
    """Counts how often a file is really read."""

    times: int = 0
    read: Any = field(default=fingerprint.files.fingerprint)

    def __call__(self, path: Path) -> str:
        self.times += 1
        return self.read(path)


def test_hashes_are_remembered_until_size_or_time_change(tmp_path, monkeypatch):
    counted = Counted()
    monkeypatch.setattr(fingerprint.files, "fingerprint", counted)
    run = chats(tmp_path / "data", "one")
    path = Path(str(run.data.path))
    first = data_fingerprint(run)
    assert (tmp_path / "cache" / "fingerprints.json").is_file()
    assert data_fingerprint(run) == first and counted.times == 1
    path.write_text("longer")
    second = data_fingerprint(run)
    assert second != first and counted.times == 2
    stat = path.stat()
    path.write_text("LONGER")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert data_fingerprint(run) not in (first, second) and counted.times == 3


def test_a_damaged_memory_is_no_obstacle(tmp_path):
    run = chats(tmp_path / "data", "one")
    first = data_fingerprint(run)
    for text in ("", "{", '{"cut": '):
        (tmp_path / "cache" / "fingerprints.json").write_text(text)
        assert data_fingerprint(run) == first
