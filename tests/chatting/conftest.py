"""One model to begin with, and two runs that trained it: in full, and with an adapter."""

from pathlib import Path

import pytest
from talkative import QUANTISABLE, write_talkative
from tiny_training import on, write_chats

from ftx.config.compose import ComposedRun, compose
from ftx.errors import ExitCode
from ftx.job import run_job
from ftx.run_folder import RunFolder
from launchers.local import describe_on_disk, locate


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return write_talkative(tmp_path_factory.mktemp("bases") / "talkative")


@pytest.fixture(scope="session")
def full(base, tmp_path_factory) -> RunFolder:
    return trained(base, tmp_path_factory.mktemp("full"), "schedule.learning_rate=2e-3")


@pytest.fixture(scope="session")
def lora(base, tmp_path_factory) -> RunFolder:
    return trained(base, tmp_path_factory.mktemp("lora"), "method=lora", "schedule.learning_rate=5e-3")


@pytest.fixture(scope="session")
def wide(tmp_path_factory) -> Path:
    return write_talkative(tmp_path_factory.mktemp("bases") / "wide", QUANTISABLE)


@pytest.fixture(scope="session", params=["lora", "qlora", "full"])
def in_16_bits(wide, request, tmp_path_factory) -> RunFolder:
    """As every run on a GPU is."""
    method = () if request.param == "full" else ("method.lora.rank=4",)
    words = (f"method={request.param}", *method, "hardware.precision=bf16", "schedule.learning_rate=2e-3")
    return trained(wide, tmp_path_factory.mktemp(request.param), *words)


def trained(base: Path, place: Path, *words: str) -> RunFolder:
    model = ("model=hub", f"model.name={base}", "model.template=chatml", "tracking.offline=true")
    run = compose(*on(write_chats(place)), *model, "hardware.threads=1", "evaluation.tasks=[]", *words)
    described = ComposedRun(run, (), {})
    folder = locate(described)
    describe_on_disk(described, folder)
    assert run_job(folder) == ExitCode.FINISHED, folder.read_status().reason
    return folder
