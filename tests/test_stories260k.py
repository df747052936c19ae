"""A real pretrained model and real texts from end to end: load, answer, fine-tune in full and with LoRA, reload."""

import csv
import gzip
import html
import json
import os
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ftx import metrics_log
from ftx.config.compose import ComposedRun, compose
from ftx.data.prepare import prepare
from ftx.environment import CHECKOUT
from ftx.errors import ExitCode
from ftx.generation import generate
from ftx.job import run_job
from ftx.loss import evaluate_loss
from ftx.models import load_model, load_trained
from ftx.run_folder import RunFolder
from launchers.local import describe_on_disk, locate

SHARED_DATA = Path(os.environ.get("FTX_SHARED_DATA", CHECKOUT.parent / "shared" / "data"))
STORIES = SHARED_DATA / "stories260k" / "hf"
CPU = torch.device("cpu")

pytestmark = [
    pytest.mark.skipif(not STORIES.is_dir(), reason=f"needs {STORIES}: set FTX_SHARED_DATA"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def gsm8k(tmp_path_factory) -> Path:
    """The shorter problems with their worked answers."""
    path = tmp_path_factory.mktemp("gsm8k") / "problems.jsonl"
    with gzip.open(SHARED_DATA / "gsm8k" / "train.jsonl.gz", "rt") as lines, path.open("w") as written:
        for row in map(json.loads, islice(lines, 400)):
            if len(row["question"] + row["answer"]) < 250:
                written.write(json.dumps({"prompt": row["question"] + "\n", "completion": row["answer"]}) + "\n")
    return path


def composed(data: Path, *words: str):
    return compose(
        *("model=hub", f"model.name={STORIES}", "data=jsonl", f"data.path={data}", f"run_root={data.parent / 'runs'}"),
        *("model.template=plain", "data.max_length=256", "data.limit=48", "schedule.epochs=3"),
        *(
            "schedule.global_batch_size=4",
            "hardware.micro_batch=2",
            "schedule.learning_rate=2e-3",
            "tracking.offline=true",
        ),
        *("schedule.log_every=1", *words),
    )


def finished(run) -> RunFolder:
    described = ComposedRun(run, (), {})
    folder = locate(described)
    describe_on_disk(described, folder)
    assert run_job(folder) == ExitCode.FINISHED, folder.read_status().reason
    return folder


def losses(folder: RunFolder, name: str) -> list[float]:
    return [row[name] for row in metrics_log.read(folder.metrics) if name in row]


def assert_it_learned(folder: RunFolder, by: float) -> None:
    train_loss, eval_loss = losses(folder, "train_loss"), losses(folder, "eval_loss")
    assert sum(train_loss[-4:]) / 4 < sum(train_loss[:4]) / 4 - by
    assert len(eval_loss) == 4
    assert eval_loss[-1] < eval_loss[0] - by


def test_greedy_decoding_from_bos_gives_the_reference_story(gsm8k):
    reference = json.loads((STORIES.parent / "greedy_reference_ids.json").read_text())
    run = composed(gsm8k)
    prepared = prepare(run)
    model = load_model(run, prepared.tokenizer)
    bos, *story = reference
    assert bos == prepared.tokenizer.bos_token_id
    answers = generate(model, [[bos]], max_new_tokens=len(story), batch_size=1, stop_ids=[], pad_id=0)
    assert answers == [story]


def test_auto_does_not_guess_a_template(gsm8k):
    run = composed(gsm8k, "model.template=auto")
    described = ComposedRun(run, (), {})
    folder = locate(described)
    describe_on_disk(described, folder)
    assert run_job(folder) == ExitCode.USER_MISTAKE
    assert "model.template=auto: the tokenizer's own template is missing; choose" in folder.read_status().reason


@pytest.mark.parametrize("template", ["plain", "chatml"])
def test_full_fine_tuning_lowers_both_losses_and_keeps_the_model(gsm8k, template):
    run = composed(gsm8k, f"model.template={template}")
    folder = finished(run)
    assert_it_learned(folder, by=0.3)
    prepared = prepare(run)
    assert prepared.template.name == template
    again = evaluate_loss(load_trained(folder.model, run, prepared.tokenizer), prepared.evaluation, CPU)
    scored = folder.read_scores()["loss"]
    assert scored["eval_loss"]["value"] == pytest.approx(again.mean, rel=1e-6)
    assert scored["eval_loss"]["n"] == len(again.sums) == len(prepared.held_out)
    assert losses(folder, "eval_loss")[-1] == pytest.approx(again.mean, rel=1e-6)


def test_lora_lowers_both_losses_and_reloads_to_the_weights_merged_by_hand(gsm8k):
    run = composed(gsm8k, "method=lora", "method.lora.rank=8", "method.lora.alpha=24", "schedule.learning_rate=1e-2")
    folder = finished(run)
    assert_it_learned(folder, by=0.2)
    assert not (folder.model / "model.safetensors").exists()
    adapter = load_file(folder.model / "adapter_model.safetensors")
    merged = AutoModelForCausalLM.from_pretrained(STORIES, attn_implementation="eager", dtype=torch.float32)
    weights = merged.state_dict()
    changed = 0
    for name, down in adapter.items():
        if ".lora_A." in name:
            target = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            weights[target] += 24 / 8 * adapter[name.replace("lora_A", "lora_B")] @ down
            changed += 1
    assert changed == 5 * 7  # layers × (q, k, v, o, gate, up, down)
    prepared = prepare(run)
    reloaded = load_trained(folder.model, run, prepared.tokenizer).eval()
    ids = torch.tensor(prepared.evaluation[0].input_ids, dtype=torch.long)[None]
    with torch.no_grad():
        expected, ours = merged.eval()(input_ids=ids).logits, reloaded(input_ids=ids).logits
        untuned = load_model(run, prepared.tokenizer)(input_ids=ids).logits
    # One segment: the borders are those of the row.
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-4)
    assert float((untuned - expected).abs().max()) > 1
    again = evaluate_loss(reloaded, prepared.evaluation, CPU)
    assert folder.read_scores()["loss"]["eval_loss"]["value"] == pytest.approx(again.mean, rel=1e-6)


def test_a_tiny_model_learns_to_classify_news(tmp_path):
    data = tmp_path / "news.jsonl"
    topics = (SHARED_DATA / "ag_news" / "classes.txt").read_text().split("\n")
    with gzip.open(SHARED_DATA / "ag_news" / "test.csv.gz", "rt") as lines, data.open("w") as written:
        for number, title, _ in islice(csv.reader(lines), 500):
            messages = [
                {"role": "system", "content": "Which topic is this headline of?"},
                {"role": "user", "content": html.unescape(title)},
                {"role": "assistant", "content": json.dumps({"topic": topics[int(number) - 1]})},
            ]
            written.write(json.dumps({"messages": messages}) + "\n")
    run = compose(
        *("model=tiny", "data=jsonl", f"data.path={data}", f"run_root={tmp_path}", "evaluation.tasks=[classification]"),
        *("tracking.offline=true", "model.architecture.vocabulary_size=1000", "model.architecture.hidden_size=64"),
        *("schedule.epochs=3", "schedule.learning_rate=4e-3", "data.holdout=0.2", "hardware.threads=1"),
    )
    folder = finished(run)
    train_loss = losses(folder, "train_loss")
    assert train_loss[-1] < train_loss[0] / 3
    scores = folder.read_scores()["classification"]
    predictions = [json.loads(line) for line in folder.predictions("classification").read_text().splitlines()]
    gold = {f"news.jsonl:{at}": json.loads(line)["messages"][2]["content"] for at, line in enumerate(data.open(), 1)}
    assert len(predictions) == scores["accuracy"]["n"] == 100
    right = [one["text"] == gold[one["id"]] for one in predictions]
    assert [one["gold"] == one["predicted"] for one in predictions] == right
    assert scores["accuracy"]["value"] == pytest.approx(sum(right) / 100)
    assert sum(one["predicted"] is not None for one in predictions) > 80
