"""What debug=tiny puts in the place of what is on the hub, and what it leaves."""

from dataclasses import replace

import pytest

from ftx.config.compose import ComposedRun, compose, compose_all, evaluation_for
from ftx.config.schema import RunConfig
from ftx.config.stand_ins import with_stand_ins
from ftx.errors import UserError


def composed(*words: str) -> ComposedRun:
    return compose_all([*words, "debug=tiny"]).runs[0]


def tiny(*words: str) -> RunConfig:
    return composed(*words).run


def test_it_says_what_stands_in_for_what():
    assert composed("experiment=jupyter_agent").stand_ins == (
        "a small random qwen3 for Qwen/Qwen3-4B-Instruct-2507",
        "made-up rows for jupyter-agent/jupyter-agent-dataset",
        "made-up questions for the test tasks of dabstep",
        "2 processes on this CPU for 8 × NVIDIA H100",
    )


def test_what_is_here_is_used_as_it_is(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    chats = tmp_path / "chats.jsonl"
    run = composed("model=hub", f"model.name={tmp_path}", "model.template=qwen3", "data=jsonl", f"data.path={chats}")
    assert (run.run.model.name, run.run.model.weights) == (str(tmp_path), "pretrained")
    assert (run.run.data.path, run.run.data.max_length) == (str(chats), 1024)
    assert run.stand_ins == ()
    assert composed().stand_ins == ()
    assert (tiny().data.source, tiny().model) == ("stdlib_docs", compose().model)


def test_a_file_that_nobody_has_named_is_made_up():
    run = composed("experiment=ag_news_small")
    assert (run.run.data.source, run.run.data.path) == ("jsonl", "made-up:ag_news")
    assert run.stand_ins == ("made-up rows for data.path=FILE",)
    assert tiny("data=jsonl").data.path == "made-up:messages"
    with pytest.raises(UserError, match=r"data\.path is not set: data=jsonl needs data\.path=FILE"):
        compose_all(["experiment=ag_news_small"])


def test_of_a_mixture_only_what_is_on_the_hub_is_made_up(tmp_path):
    here = tmp_path / "chats.jsonl"
    run = composed(
        "data=mixture", f"data.sources.mine.path={here}", "data.sources.theirs.path=OWNER/NAME", "data.holdout=0.1"
    )
    assert {name: one.path for name, one in run.run.data.sources.items()} == {
        "mine": str(here),
        "theirs": "made-up:messages",
    }
    assert run.stand_ins == ("made-up rows for OWNER/NAME",)


def test_sources_keep_their_weights_and_proportions():
    sources = tiny("experiment=deepseek_r1_math_science").data.sources
    assert {name: one.rows for name, one in sources.items()} == {"math": 160, "science": 106}
    words = [f"data.sources.{name}.{key}" for name, key in (("a", "path=A/B"), ("a", "weight=0.7"), ("b", "path=C/D"))]
    weighted = tiny("data=mixture", *words, "data.sources.b.weight=0.3").data.sources
    assert {name: one.weight for name, one in weighted.items()} == {"a": 0.7, "b": 0.3}


def test_words_keep_what_they_say():
    run = tiny(
        *("experiment=tulu3_8b", "schedule.max_steps=2", "schedule.global_batch_size=16", "data.max_length=300"),
        *("hardware.processes_per_node=1", "evaluation.limit=3", "name=mine"),
    )
    assert (run.schedule.max_steps, run.schedule.global_batch_size, run.data.max_length) == (2, 16, 300)
    assert (run.hardware.processes_per_node, run.evaluation.limit, run.name) == (1, 3, "mine")
    assert run.hardware.device == "cpu"


def test_hardware_that_the_words_choose_is_what_it_runs_on():
    run = composed("experiment=tulu3_8b", "hardware=1xH100")
    assert run.run.hardware == compose("hardware=1xH100", "hardware.activation_checkpointing=true").hardware
    assert run.run.model.weights == "random"
    assert "this CPU" not in " ".join(run.stand_ins)


def test_half_floats_that_no_cpu_has():
    whole = compose("experiment=tulu3_8b_debug", "hardware.precision=fp16")
    small, _ = with_stand_ins(replace(whole, stand_ins=True), [], in_sweep=False)
    assert small.hardware.precision == "fp32"
    with pytest.raises(UserError, match=r"hardware\.precision=fp16: not on a CPU"):
        tiny("experiment=tulu3_8b_debug", "hardware.precision=fp16")


def test_a_model_that_nobody_knows_is_a_small_qwen3_with_turns():
    model = tiny("model=hub", "model.name=OWNER/NAME").model
    assert (model.weights, model.architecture.family, model.template) == ("random", "qwen3", "chatml")


def test_an_adapter_fits_no_other_model(tmp_path):
    with pytest.raises(UserError, match=r"model\.adapter=.*belongs on OWNER/NAME, which debug=tiny replaces"):
        tiny("model=hub", "model.name=OWNER/NAME", f"model.adapter={tmp_path}", "schedule.epochs=0")


def test_runs_of_a_sweep_share_the_machine():
    runs = [one.run for one in compose_all(["experiment=jupyter_agent_epochs", "debug=tiny"]).runs]
    assert [run.schedule.max_steps for run in runs] == [None, None, 4, 4, 4, 4]
    assert {(run.hardware.processes_per_node, run.launcher.parallel) for run in runs} == {(1, 2)}
    (alone,) = compose_all(["experiment=jupyter_agent", "debug=tiny"], multirun=True).runs
    assert alone.run.hardware.processes_per_node == 2


def test_nothing_leaves_the_machine():
    run = tiny("experiment=tulu3_8b", "export.hub=true", "export.repository=OWNER/NAME")
    assert (run.export.hub, run.export.push) == (True, "dry")


def test_a_warm_up_in_steps_is_no_longer_than_the_training():
    whole = compose("experiment=tulu3_8b", "schedule.warmup=100", "schedule.max_steps=200")
    short = replace(whole, stand_ins=True, schedule=replace(whole.schedule, max_steps=4))
    assert with_stand_ins(short, [], in_sweep=False)[0].schedule.warmup == 4
    assert with_stand_ins(short, ["schedule.warmup"], in_sweep=False)[0].schedule.warmup == 100


def test_questions_of_a_run_that_is_there_are_made_up_too():
    run = tiny("experiment=jupyter_agent")
    assert evaluation_for(run, ["evaluation=scibench"]).math.path == "made-up:scibench"
    assert evaluation_for(run, ["evaluation=dabstep"]).data_agent.path == "made-up:dabstep"
    whole = compose("experiment=jupyter_agent")
    assert evaluation_for(whole, ["evaluation=dabstep"]).data_agent.path is None


def test_without_it_nothing_is_replaced():
    (run,) = compose_all(["experiment=tulu3_8b"]).runs
    assert run.stand_ins == ()
    assert run.run.stand_ins is False
    assert run.run.name == "tulu3-8b"
