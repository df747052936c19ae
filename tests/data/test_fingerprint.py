"""What is queued names commits: a branch of the hub may have moved on when it starts."""

from dataclasses import replace

from ftx.config.model_schema import ModelConfig
from ftx.config.schema import DataConfig, RunConfig, SourceConfig
from ftx.data.cache import prepared_folder
from ftx.data.fingerprint import data_fingerprint, model_fingerprint, pinned

MODEL, TALKS, CODE = "a" * 40, "b" * 40, "c" * 40


def known(run, tmp_path):
    """The run, with what the hub answered once."""
    commits = tmp_path / "hub_commits"
    commits.mkdir()
    for name, commit in {
        "model team--model@main": MODEL,
        "dataset team--talks@main": TALKS,
        "dataset team--code@old": CODE,
    }.items():
        (commits / name).write_text(commit)
    return replace(run, data=replace(run.data, cache=str(tmp_path)))


def test_revisions_of_the_hub_become_commits(tmp_path):
    data = DataConfig(source="hub", path="team/talks")
    run = known(RunConfig(model=ModelConfig(name="team/model"), data=data), tmp_path)
    queued = pinned(run)
    assert (queued.model.revision, queued.data.revision) == (MODEL, TALKS)
    assert (model_fingerprint(queued), data_fingerprint(queued)) == (model_fingerprint(run), data_fingerprint(run))
    assert pinned(queued) == queued
    assert prepared_folder(queued) == prepared_folder(run)


def test_each_source_of_a_mixture_has_its_own(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    sources = {
        "talks": SourceConfig(path="team/talks", weight=1.0),
        "code": SourceConfig(path="team/code", revision="old", weight=1.0),
        "mine": SourceConfig(path=str(rows), weight=1.0),
    }
    model = ModelConfig(weights="random")
    run = known(RunConfig(model=model, data=DataConfig(source="mixture", sources=sources)), tmp_path)
    queued = pinned(run)
    revisions = {name: source.revision for name, source in queued.data.sources.items()}
    assert revisions == {"talks": TALKS, "code": CODE, "mine": "main"}
    assert queued.model == model
    assert data_fingerprint(queued) == data_fingerprint(run)
