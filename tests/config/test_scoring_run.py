"""evaluation.hardware: the same run, in one process, on hardware of another choice."""

from dataclasses import replace

import pytest

from ftx.config.compose import compose_all, scoring_of
from ftx.config.hardware_schema import HardwareConfig
from ftx.config.identity import identity_keys
from ftx.errors import UserError

ON_EIGHT = ("hardware=8xH100", "hardware.nodes=2", "schedule.global_batch_size=16")


def composed(*words, config_dir=None):
    (one,) = compose_all(words, config_dir=config_dir).runs
    return one


def test_nobody_asks_for_it():
    assert composed().scoring is None
    assert composed("evaluation.tasks=[]").scoring is None


def test_one_process_of_another_choice():
    one = composed(*ON_EIGHT, "evaluation.hardware=cpu", "hardware.activation_checkpointing=true")
    assert one.scoring.hardware == HardwareConfig(device="cpu", precision="bf16")
    assert replace(one.scoring, hardware=one.run.hardware) == one.run
    assert one.scoring.evaluation.hardware == "cpu"
    eight = composed("evaluation.hardware=8xH100").scoring.hardware
    assert (eight.device, eight.gpu, eight.precision) == ("cuda", "NVIDIA H100", "fp32")
    assert (eight.nodes, eight.gpus_per_node, eight.processes_per_node) == (1, 1, 1)


AGENT = ("launcher=slurm", "tracking.offline=true", "evaluation=dabstep")


@pytest.mark.parametrize(
    ("words", "alone"),
    [
        ((*ON_EIGHT, *AGENT), True),
        (("hardware=1xH100", *AGENT), False),
        ((*ON_EIGHT, *AGENT, "evaluation.hardware=own"), False),
        ((*ON_EIGHT, *AGENT, "schedule.epochs=0"), False),
        ((*ON_EIGHT, *AGENT, "evaluation.tasks=[loss]", "evaluation=standard"), False),
    ],
    ids=["by itself", "one device", "own", "nothing to train", "no agent"],
)
def test_an_agent_does_not_keep_a_cluster_waiting(words, alone):
    scoring = composed(*words).scoring
    assert (scoring is not None) == alone
    if scoring is not None:
        taken = scoring.hardware
        assert (taken.nodes, taken.processes_per_node, taken.gpu) == (1, 1, "NVIDIA H100")


def test_the_run_is_the_same_run():
    assert identity_keys(composed("evaluation.hardware=1xH100").run) == identity_keys(composed().run)


@pytest.mark.parametrize(
    ("words", "hardware", "key", "value"),
    [
        (["hardware.precision=fp16"], "cpu", "hardware.precision", "fp32"),
        (["hardware.precision=fp16"], "1xH100", "hardware.precision", "fp16"),
        (["hardware.precision=bf16"], "cpu", "hardware.precision", "bf16"),
        (["model.attention=varlen"], "cpu", "model.attention", "auto"),
        (["model.attention=varlen"], "1xH100", "model.attention", "varlen"),
        (["model.kernels=liger"], "cpu", "model.kernels", "auto"),
        (["model.loss=liger"], "cpu", "model.loss", "auto"),
        (["hardware=cpu", "model.attention=cpu"], "1xH100", "model.attention", "auto"),
    ],
)
def test_what_the_other_device_does_not_have(words, hardware, key, value):
    before = () if "hardware=cpu" in words else ("hardware=1xH100",)
    section, name = key.split(".")
    scoring = composed(*before, *words, f"evaluation.hardware={hardware}").scoring
    assert getattr(getattr(scoring, section), name) == value


def test_each_run_of_a_sweep():
    runs = compose_all(["seed=1,2", "evaluation.hardware=8xH100"], multirun=True).runs
    assert [(one.scoring.seed, one.scoring.hardware.gpus_per_node) for one in runs] == [(1, 1), (2, 1)]


def test_a_choice_of_ones_own(tmp_path):
    """With a defaults list of its own, in a folder of the group; over it, the schema's defaults."""
    (tmp_path / "hardware" / "team").mkdir(parents=True)
    (tmp_path / "hardware" / "team" / "h200.yaml").write_text(
        "# One of ours.\ndefaults:\n  - /hardware/1xH100@_here_\n  - _self_\ngpu: NVIDIA H200\n"
    )
    one = composed("evaluation.hardware=team/h200", config_dir=tmp_path)
    assert (one.scoring.hardware.device, one.scoring.hardware.gpu) == ("cuda", "NVIDIA H200")
    assert scoring_of(one.run, tmp_path) == one.scoring
    with pytest.raises(UserError, match=r"evaluation\.hardware=team/h200: no such choice"):
        scoring_of(one.run)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# A typo.\ndevise: cuda\n", r"hardware\.devise: no such key \(did you mean hardware\.device\?\)"),
        ("# A device.\ndevice: tpu\n", r"evaluation\.hardware=mine: hardware\.device=tpu: no such value"),
        ("# Broken.\ndevice: [cpu\n", r"mine\.yaml, line .*not valid yaml"),
    ],
)
def test_a_choice_that_cannot_be(tmp_path, text, says):
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        composed("evaluation.hardware=mine", config_dir=tmp_path)
