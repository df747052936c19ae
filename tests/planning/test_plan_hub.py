"""What a plan takes from the hub: a ``config.json`` that nobody here knows, asked for once; of data, nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import Hub, Repository

from ftx.architectures import random_model
from ftx.config.model_schema import ArchitectureConfig

UNKNOWN = ArchitectureConfig(family="llama", hidden_size=96, layers=3, heads=6, head_dim=16)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """Of a model on the hub."""
    folder = tmp_path_factory.mktemp("model")
    with torch.device("meta"):
        random_model(UNKNOWN).config.save_pretrained(folder)
    return {"config.json": (folder / "config.json").read_bytes()}


def plan(hub: Hub, home: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ftx.plan", *words],
        check=False,
        capture_output=True,
        text=True,
        env={**hub.environment(home), "PYTHONPATH": os.pathsep.join(sys.path)},
    )


MODEL = ("model=hub", "model.name=team/model", "model.template=chatml")


def test_an_unknown_model_is_asked_for_and_then_known(files, tmp_path):
    with Hub(models={"team/model": Repository(files)}) as hub:
        first = plan(hub, tmp_path, *MODEL, "--json")
        asked = len(hub.requests)
        again = plan(hub, tmp_path, *MODEL, "--json")
        assert len(hub.requests) == asked
    with torch.device("meta"):
        expected = sum(weights.numel() for weights in random_model(UNKNOWN).parameters())
    assert json.loads(first.stdout)["parameters"] == json.loads(again.stdout)["parameters"] == expected


def test_a_hub_that_is_away_is_one_line(tmp_path):
    with Hub() as gone:
        pass
    found = plan(gone, tmp_path, *MODEL)
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1
    assert found.stderr.startswith("error: model.name=team/model: nobody here knows its dimensions")


def test_a_model_that_the_hub_does_not_have_is_asked_for_once(tmp_path):
    with Hub() as hub:
        found = plan(hub, tmp_path, *MODEL)
        assert [request.method for request in hub.requests] == ["HEAD"]
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1
