"""The loss against full logits in float64, and whole trainings against a loop written out by hand."""

import copy
import json
import math
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from ftx import metrics_log
from ftx.callbacks import Length
from ftx.config.compose import compose
from ftx.config.schema import RunConfig
from ftx.data.collate import collate
from ftx.data.order import order_of
from ftx.data.prepare import Prepared, prepare
from ftx.data.store import Row
from ftx.errors import UserError
from ftx.loss import TokenLoss, evaluate_loss
from ftx.models import load_model
from ftx.run_folder import RunFolder
from ftx.stopping import StopRequest
from ftx.trainer import check_supervised, micro_batches_in_step, train

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """25 conversations of uneven lengths, with answers of 1 to 30 words."""
    draw = random.Random(4)

    def words(most: int) -> str:
        return " ".join(f"w{draw.randrange(40)}" for _ in range(draw.randint(1, most)))

    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    path.write_text("".join(json.dumps({"prompt": words(12), "completion": words(30)}) + "\n" for _ in range(25)))
    return path


def composed(data: Path, *words: str) -> RunConfig:
    sizes = {"vocabulary_size": 320, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "head_dim": 8}
    return compose(
        *(f"model.architecture.{name}={size}" for name, size in sizes.items()),
        *("data=jsonl", f"data.path={data}", f"run_root={data.parent}", "data.holdout=0.2", "data.packing=false"),
        *("hardware.micro_batch=1", "schedule.global_batch_size=4", "schedule.log_every=1"),
        *words,
    )


def token_losses(model: torch.nn.Module, row: Row) -> list[torch.Tensor]:
    """Of each conversation in ``row`` alone: the loss of every supervised token, from all logits of a plain forward."""
    found = []
    for start, end in pairwise(np.cumsum([0, *row.lengths])):
        ids = torch.tensor(row.input_ids[start:end], dtype=torch.long)
        supervised = torch.tensor(row.supervised[start:end])
        losses = cross_entropy(model(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="none")
        found.append(losses[supervised[1:]])
    return found


def in_float64(model: torch.nn.Module) -> torch.nn.Module:
    exact = copy.deepcopy(model)
    exact.set_attn_implementation("eager")
    return exact.double()


@pytest.mark.parametrize("packing", ["false", "true"])
def test_summed_loss_and_gradient_equal_those_of_all_logits_in_float64(data, packing):
    run = composed(data, f"data.packing={packing}", "data.max_length=128")
    prepared = prepare(run)
    model = load_model(run, prepared.tokenizer)
    exact = in_float64(model)
    rows = list(prepared.train)[:3]
    batch = collate(rows)
    labels = batch.pop("labels")
    loss = TokenLoss()(model(**batch), labels, num_items_in_batch=torch.tensor(17))
    loss.backward()
    expected = torch.cat([losses for row in rows for losses in token_losses(exact, row)]).sum() / 17
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for ours, right in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.double(), right.grad, atol=1e-5, rtol=1e-4)


def test_a_fully_masked_batch_logs_loss_zero_and_succeeds_trl_6668(data, tmp_path):
    """It is found before anything is trained. Preparation leaves such rows out, so the marks are taken away here."""
    run = composed(data, "schedule.global_batch_size=2", "data.order=source")
    prepared = prepare(run)
    prepared.train.tokens.supervised = prepared.train.tokens.supervised.copy()
    members = np.concatenate([prepared.train.members_of(row) for row in (6, 7)])
    prepared.train.tokens.supervised[members[0]] = 0
    check_supervised(order_of(run, prepared), Length(10, 20))
    prepared.train.tokens.supervised[members[1]] = 0
    names = [prepared.train[row].ids[0] for row in (6, 7)]
    with pytest.raises(UserError, match=rf"step 4 has no supervised token, in {names[0]}, {names[1]}: "):
        train(run, prepared, load_model(run, prepared.tokenizer), RunFolder(tmp_path), StopRequest(), lambda: None)
    check_supervised(order_of(run, prepared), Length(10, 3))


def trained(run: RunConfig, folder: Path) -> tuple[torch.nn.Module, list[dict], list[list[torch.Tensor]]]:
    """The model, its training rows, and the gradients after each backward pass."""
    prepared = prepare(run)
    model = load_model(run, prepared.tokenizer)
    passes: list[list[torch.Tensor]] = []
    weights = list(model.parameters())
    # The embedding's is the last gradient of a backward pass.
    weights[0].register_post_accumulate_grad_hook(lambda _: passes.append([one.grad.clone() for one in weights]))
    folder.mkdir()
    train(run, prepared, model, RunFolder(folder), StopRequest(), lambda: None)
    rows = [row for row in metrics_log.read(folder / "metrics.jsonl") if "train_loss" in row]
    return model, rows, passes


def trained_by_hand(run: RunConfig, prepared: Prepared, steps: int):
    """Plain loops: each conversation alone, the mean over a global batch's supervised tokens, clipping, AdamW."""
    model = load_model(run, prepared.tokenizer)
    model.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.schedule.learning_rate, weight_decay=0.0)
    records, first_gradient = [], []
    order = order_of(run, prepared)
    for epoch in range(run.schedule.epochs):
        for step in range(order.steps_per_epoch):
            if len(records) == steps:
                break
            warmup = int(run.schedule.warmup)
            done = len(records)
            share = done / warmup if done < warmup else (steps - done) / (steps - warmup)
            for group in optimizer.param_groups:
                group["lr"] = run.schedule.learning_rate * share
            rows = map(order.row, order.rows(epoch, step))
            losses = torch.cat([one for row in rows for one in token_losses(model, row)])
            losses.mean().backward()
            first_gradient = first_gradient or [weights.grad.clone() for weights in model.parameters()]
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), run.method.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            records.append((run.schedule.learning_rate * share, float(losses.detach().sum()), len(losses), float(norm)))
    return model, records, first_gradient


@pytest.mark.parametrize(
    "words",
    [
        ("data.packing=false", "schedule.global_batch_size=3"),
        ("data.packing=false", "schedule.max_steps=7"),
        ("data.packing=true", "data.max_length=128"),
        ("data.packing_scope=global_batch", "data.packing=true", "data.max_length=128", "schedule.global_batch_size=6"),
    ],
    ids=["short_last_step", "max_steps", "packed", "packed_by_step"],
)
def test_training_equals_a_loop_by_hand_in_every_step(data, tmp_path, words):
    """20 conversations, uneven in tokens; the last step of an epoch is short where the rows do not divide."""
    run = composed(data, "schedule.epochs=2", "schedule=linear", "schedule.warmup=2", *words)
    model, rows, passes = trained(run, tmp_path / "run")
    prepared = prepare(run)
    steps = run.schedule.max_steps or 2 * math.ceil(len(prepared.train) / run.schedule.global_batch_size)
    assert run.schedule.max_steps or len(prepared.train) % run.schedule.global_batch_size
    expected, records, first_gradient = trained_by_hand(run, prepared, steps)
    assert len(rows) == len(records) == steps
    supervised = 0
    for row, (rate, summed, tokens, norm) in zip(rows, records, strict=True):
        supervised += tokens
        assert row["learning_rate"] == pytest.approx(rate, rel=1e-6)
        assert row["train_loss"] == pytest.approx(summed / tokens, rel=2e-5)
        assert row["grad_norm"] == pytest.approx(norm, rel=2e-4)
        assert row["supervised_tokens"] == supervised
    assert len({tokens for _, _, tokens, _ in records}) > 1
    first_step = passes[micro_batches_in_step(run, order_of(run, prepared)) - 1]
    for ours, right in zip(first_step, first_gradient, strict=True):
        torch.testing.assert_close(ours, right, atol=1e-6, rtol=1e-4)
    for ours, right in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, right, atol=2e-5, rtol=1e-4)
    saved = load_saved(tmp_path / "run" / "model")
    for name, weights in model.state_dict().items():
        assert torch.equal(saved[name], weights), name


def load_saved(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()


def test_the_loss_curve_is_the_same_for_any_micro_batch_and_any_logging(data, tmp_path):
    """21 rows in steps of 4: the last step of each epoch has one row, which no other divides evenly."""
    words = ("schedule.epochs=2", "data.holdout=0.15")
    curves = {
        micro: trained(composed(data, *words, f"hardware.micro_batch={micro}"), tmp_path / str(micro))[1]
        for micro in (1, 2, 4)
    }
    assert len(curves[1]) == 2 * math.ceil(21 / 4)
    for micro in (2, 4):
        for name, rel in (("train_loss", 1e-6), ("grad_norm", 1e-5)):
            assert [row[name] for row in curves[micro]] == pytest.approx([row[name] for row in curves[1]], rel=rel)
    _, sparse, _ = trained(composed(data, *words, "schedule.log_every=5"), tmp_path / "sparse")
    assert [row["step"] for row in sparse] == [5, 10, 12]
    seen, at = np.array([row["supervised_tokens"] for row in curves[1]]), 0
    tokens = np.diff([0, *seen])
    losses = np.array([row["train_loss"] for row in curves[1]])
    for row in sparse:
        part = slice(at, row["step"])
        at = row["step"]
        assert row["train_loss"] == pytest.approx(
            float((losses[part] * tokens[part]).sum() / tokens[part].sum()), rel=1e-6
        )
        assert row["supervised_tokens"] == seen[row["step"] - 1]


def test_the_loss_curve_is_the_same_without_whole_logits(data, tmp_path):
    """One run with the plain loss, one with the chunked, whose chunks are of three tokens."""
    curves = {}
    for way in ("plain", "chunked"):
        run = composed(data, "schedule.epochs=2", f"model.loss={way}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ftx.chunked_loss.CHUNK_BYTES", 3 * 4 * 320)
            _, curves[way], _ = trained(run, tmp_path / way)
    assert len(curves["plain"]) == 10
    for name in ("train_loss", "grad_norm"):
        plain, chunked = ([row[name] for row in curves[way]] for way in ("plain", "chunked"))
        assert chunked == pytest.approx(plain, rel=1e-6 if name == "train_loss" else 1e-5)
        assert chunked != plain


def test_evaluation_is_the_same_for_any_packing_and_equals_each_conversation_alone(data):
    by_packing = {}
    for packing in ("true", "false"):
        run = composed(data, f"data.packing={packing}", "data.max_length=128", "data.holdout=0.5")
        prepared = prepare(run)
        model = load_model(run, prepared.tokenizer)
        model.train()
        evaluated = evaluate_loss(model, prepared.evaluation, CPU)
        assert model.training
        names = [name for row in prepared.evaluation for name in row.ids]
        by_packing[packing] = dict(zip(names, zip(evaluated.sums, evaluated.tokens, strict=True), strict=True))
        assert len(names) == 13
        assert (len(prepared.evaluation) < 13) == (packing == "true")
    assert set(by_packing["true"]) == set(by_packing["false"])
    exact = in_float64(model)
    for row in prepared.evaluation:
        with torch.no_grad():
            (losses,) = token_losses(exact, row)
        for found in by_packing.values():
            summed, tokens = found[row.ids[0]]
            assert tokens == len(losses)
            assert summed == pytest.approx(float(losses.sum()), abs=1e-4, rel=1e-6)
    total = sum(summed for summed, _ in by_packing["false"].values())
    assert evaluated.mean == pytest.approx(total / sum(tokens for _, tokens in by_packing["false"].values()))


def test_a_conversation_that_is_all_answer_keeps_its_loss_to_itself(data):
    """The first position of a segment predicts too; it belongs to its own conversation, not to the one before."""
    run = composed(data)
    model = load_model(run, prepare(run).tokenizer)
    lengths = [4, 2, 7]
    ids = np.arange(13, dtype=np.int32) * 7 % 300
    row = Row(ids, np.arange(13) != 8, np.array(lengths, dtype=np.int32), ("a", "b", "c"))
    evaluated = evaluate_loss(model, [row], CPU)
    with torch.no_grad():
        expected = token_losses(in_float64(model), row)
    assert evaluated.tokens == [len(losses) for losses in expected] == [3, 1, 5]
    assert evaluated.sums == pytest.approx([float(losses.sum()) for losses in expected], rel=1e-6)
