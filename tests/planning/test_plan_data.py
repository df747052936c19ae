"""What a plan says of data, of its length in steps, and of what stays on disk."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from hub_server import Hub, Repository
from small_run import STEPS_PER_EPOCH, composed, write_chats

from ftx.config.compose import compose
from ftx.config.schema import DataSizeConfig
from ftx.data.order import order_of
from ftx.data.prepare import prepare
from ftx.environment import CHECKOUT
from ftx.errors import UserError
from ftx.planning.data_facts import WHO_SAYS, data_size
from ftx.planning.duration import Time
from ftx.planning.report import plan_of
from ftx.planning.text import describe

MB = 10**6


def test_adapters_of_deepseek_stay_below_half_a_gigabyte():
    """Three checkpoints of 18.5 million numbers in 32 bits with two moments of a byte, and what is learned itself."""
    plan = plan_of(compose("experiment=deepseek_r1_math_science"))
    assert plan.work.steps == 3 * -(-14_123 // 16)
    assert 3 * 18_464_768 * 6 + 18_464_768 * 4 < plan.disk.most < 500 * MB


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("batch", [3, 4, 7, 16, 64])
def test_a_short_last_step_begins_no_epoch(tmp_path, batch, epochs):
    """As many checkpoints as epochs, whatever is left of the rows; and the steps are those of the training's order."""
    chats = write_chats(tmp_path / "chats.jsonl")
    words = (f"schedule.global_batch_size={batch}", f"schedule.epochs={epochs}", "schedule.keep_checkpoints=9")
    run = composed(chats, *words)
    prepared = prepare(run)
    plan = plan_of(run)
    assert plan.work.steps == epochs * order_of(run, prepared).steps_per_epoch
    assert plan.work.tokens == pytest.approx(epochs * prepared.counts.train_tokens)
    one = plan_of(composed(chats, *words[:1], "schedule.epochs=1"))
    assert plan.disk.end - one.disk.end == pytest.approx((epochs - 1) * plan.disk.checkpoint, rel=1e-2)


def test_an_epoch_that_is_not_finished_counts_as_begun(tmp_path):
    chats = write_chats(tmp_path / "chats.jsonl")
    one, more = (
        composed(chats, f"schedule.max_steps={steps}", "schedule.keep_checkpoints=9")
        for steps in (STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1)
    )
    prepare(one)
    planned, longer = plan_of(one), plan_of(more)
    assert longer.disk.end - planned.disk.end == pytest.approx(planned.disk.checkpoint, rel=1e-2)
    assert longer.work.tokens == pytest.approx(1.2 * planned.work.tokens)


def test_a_measured_time_is_told_where_the_data_is_unknown():
    run = compose("experiment=olmo2_7b")
    measured = Time(2.0, "by the tokens/s of 3 earlier runs", measured=True)
    text = describe(plan_of(run, measured=measured))
    assert "before it is prepared" in text
    assert "time         2.0 h × 64 GPUs = 128.0 GPU-hours (by the tokens/s of 3 earlier runs)" in text


def test_who_knows_each_choices_size_is_said():
    choices = [yaml.safe_load(file.read_text()) for file in (CHECKOUT / "conf/data").glob("*.yaml")]
    sizes = {DataSizeConfig(**choice["size"]) for choice in choices if "size" in choice}
    assert sizes == set(WHO_SAYS)
    assert "tokens estimated" in data_size(compose("experiment=ag_news")).source
    assert data_size(compose("experiment=jupyter_agent")).source == "as published"
    told = compose("experiment=jupyter_agent", "data.size.tokens=1000000")
    assert data_size(told).source == "as data.size says"


def test_a_number_is_held_out_as_a_share_is():
    assert data_size(compose("experiment=jupyter_agent", "data.holdout=1000")).conversations == 50_389
    assert data_size(compose("experiment=jupyter_agent", "data.holdout=0")).conversations == 51_389
    both = compose("experiment=jupyter_agent", "data.holdout=1000", "data.limit=700")
    assert data_size(both).conversations == 700
    with pytest.raises(UserError, match=r"^data\.holdout=60000: there are 51,389 conversations"):
        data_size(compose("experiment=jupyter_agent", "data.holdout=60000"))


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["data=jsonl", "data.path={}"], "data.path"),
        (["data=mixture", "data.sources.mine.path={}"], "data.sources.mine.path"),
        (["experiment=glaive_function_calling", "data.holdout_path={}"], "data.holdout_path"),
    ],
)
def test_a_file_that_is_not_there_is_a_mistake(tmp_path, words, key):
    run = compose(*(word.format(tmp_path / "none.jsonl") for word in words))
    with pytest.raises(UserError) as caught:
        plan_of(run)
    assert str(caught.value).startswith(f"{key}: no such file: ")


def test_data_of_the_hub_counts_once_it_is_prepared_and_the_hub_is_not_asked(tmp_path):
    """Nor for the commit of a revision that nobody here knows."""
    rows = "".join(json.dumps({"prompt": f"{n}?", "completion": f"It is {n}."}) + "\n" for n in range(20)).encode()
    words = ["data=hub", "data.path=team/talks", "data.holdout=0.2", f"run_root={tmp_path}"]
    with Hub(datasets={"team/talks": Repository({"train.jsonl": rows})}) as hub:

        def verb(*arguments: str) -> str:
            environment = {**hub.environment(tmp_path / "hub"), "PYTHONPATH": os.pathsep.join(sys.path)}
            command = [sys.executable, "-m", *arguments, *words]
            return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

        assert json.loads(verb("ftx.plan", "--json"))["data"] is None
        assert hub.requests == []
        verb("ftx.data", "prepare")
        asked = len(hub.requests)
        planned = json.loads(verb("ftx.plan", "--json"))
        assert len(hub.requests) == asked
    assert planned["data"]["conversations"] == 16
    assert planned["data"]["source"] == "as prepared"


def test_what_the_hubs_cache_calls_main_is_the_commit(tmp_path, monkeypatch):
    """A folder of the hub's cache, as a download leaves it, stands for the revision too."""
    from huggingface_hub import constants

    from ftx.data.hub_names import UnknownCommit, asking_nobody, hub_commit

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    question = {"kind": "dataset", "word": "data.path", "cache": tmp_path / "none"}
    with asking_nobody(), pytest.raises(UnknownCommit):
        hub_commit("team/talks", "main", **question)
    refs = tmp_path / "datasets--team--talks" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("b" * 40)
    with asking_nobody():
        assert hub_commit("team/talks", "main", **question) == "b" * 40


def test_made_up_data_counts_once_it_is_prepared(tmp_path):
    run = compose("experiment=glaive_function_calling", "debug=tiny", f"run_root={tmp_path}")
    assert plan_of(run).data is None
    counts = prepare(run).counts
    plan = plan_of(run)
    assert (plan.data.rows, plan.data.tokens) == (counts.train_rows, counts.train_tokens)
