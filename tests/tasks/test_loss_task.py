"""The loss task against a plain forward pass over each held-out conversation."""

import json
import math

import numpy as np
import pytest
import torch
from scored_alone import scored_alone
from torch.nn.functional import cross_entropy

from ftx.config.compose import compose
from ftx.config.evaluation_schema import EvaluationConfig
from ftx.data.prepare import Prepared, prepare
from ftx.data.tokenize import tokenize
from ftx.models import load_model
from ftx.tasks import loss


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A random model, what was prepared for it, and (summed loss, tokens) of each held-out conversation by its id."""
    folder = tmp_path_factory.mktemp("loss")
    rows = [{"prompt": f"count to {at}", "completion": " ".join(map(str, range(at + 1)))} for at in range(30)]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = compose(
        *("data=jsonl", f"data.path={folder}/chats.jsonl", f"run_root={folder}", "data.holdout=0.3"),
        *("model.architecture.vocabulary_size=320", "model.architecture.hidden_size=32", "data.max_length=128"),
    )
    prepared = prepare(run)
    model = load_model(run, prepared.tokenizer)
    return model, prepared, alone(model, prepared)


@torch.no_grad()
def alone(model, prepared: Prepared) -> dict[str, tuple[float, int]]:
    found = {}
    for one in tokenize(prepared.held_out, prepared.tokenizer, prepared.template):
        ids = torch.tensor(one.input_ids, dtype=torch.long)
        losses = cross_entropy(model(input_ids=ids[None]).logits[0, :-1].double(), ids[1:], reduction="none")
        supervised = torch.tensor(one.supervised[1:])
        found[one.id] = float(losses[supervised].sum()), int(supervised.sum())
    return found


@pytest.mark.parametrize("limit", [None, 4])
def test_loss_and_perplexity_equal_each_conversation_alone(given, limit):
    model, prepared, expected = given
    assert len(prepared.evaluation) < len(prepared.held_out) == 9
    result = scored_alone(loss, model, prepared, EvaluationConfig(limit=limit))
    ids = [one.id for one in prepared.held_out[:limit]]
    sums, tokens = np.array([expected[name] for name in ids]).T
    mean = sums.sum() / tokens.sum()
    assert result.scores["eval_loss"]["value"] == pytest.approx(mean, rel=1e-5)
    assert result.scores["perplexity"]["value"] == pytest.approx(math.exp(mean), rel=1e-4)
    assert {entry["n"] for entry in result.scores.values()} == {len(ids)}
    assert sorted(one["id"] for one in result.predictions) == sorted(ids)
    for one in result.predictions:
        summed, count = expected[one["id"]]
        assert one["tokens"] == count
        assert one["loss"] == pytest.approx(summed / count, rel=1e-5)


def test_the_intervals_hold_the_value_and_perplexitys_is_that_of_the_loss(given):
    model, prepared, expected = given
    scores = scored_alone(loss, model, prepared, EvaluationConfig()).scores
    low, high = scores["eval_loss"]["ci95"]
    assert low < scores["eval_loss"]["value"] < high
    assert scores["perplexity"]["ci95"] == pytest.approx([math.exp(low), math.exp(high)])
    means = [summed / count for summed, count in expected.values()]
    assert min(means) < low < high < max(means)
