"""Scoring a classifier: ftx by generation and by likelihood, beside a plain loop of ``generate`` over the articles.

A small model learns AG News for a while, then the same test articles are answered three ways, in 32-bit floats, in one
process and by as many threads: one article at a time with transformers' ``generate`` and chat template; ftx's batches;
ftx's likelihoods, one pass for each article. The texts of the first two have to be equal, and all three labels are
compared.

    python -m benchmarks.evaluation_speed TRAIN.csv.gz TEST.csv.gz [--articles 512] [--rounds 3]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import GenerationConfig

from ftx import compose, train
from ftx.attention import unpacked_attention
from ftx.config.evaluation_schema import EvaluationConfig
from ftx.data.prepare import Prepared, prepare
from ftx.data.tokenize import stop_ids
from ftx.engines.local import LocalEngine
from ftx.job import keep_freed_memory
from ftx.models import load_trained
from ftx.tasks import classification
from ftx.tasks.task import Item, Record, TaskInput, TaskResult

Way = Callable[[], TaskResult]


def main() -> int:
    given = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        model, prepared = _trained(given, Path(folder))
        torch.set_num_threads(given.threads)
        keep_freed_memory()
        evaluation = EvaluationConfig(tasks=["classification"], limit=given.articles, batch_size=given.batch_size)
        by_likelihood = replace(evaluation, classification=replace(evaluation.classification, by="likelihood"))
        ways: dict[str, Way] = {
            "one by one": lambda: one_by_one(model, prepared, evaluation),
            "ftx, generation": lambda: by_ftx(model, prepared, evaluation),
            "ftx, likelihood": lambda: by_ftx(model, prepared, by_likelihood),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        results: dict[str, TaskResult] = {}
        for _ in range(given.rounds):
            for name, way in ways.items():
                began = time.perf_counter()
                results[name] = way()
                seconds[name].append(time.perf_counter() - began)
    _print(given.articles, seconds, results)
    texts = [[one["text"] for one in results[name].predictions] for name in list(ways)[:2]]
    if texts[0] != texts[1]:
        differ = sum(one != other for one, other in zip(*texts, strict=True))
        sys.stdout.write(f"not the same result: {differ} texts differ\n")
        return 1
    return 0


def by_ftx(model: torch.nn.Module, prepared: Prepared, evaluation: EvaluationConfig) -> TaskResult:
    """As ``ftx.evaluate`` does."""
    items, records = classification.items(prepared, evaluation), list[Record]()
    engine = LocalEngine(model, prepared.tokenizer, prepared.template, evaluation.batch_size)  # type: ignore[arg-type]
    given = TaskInput(engine, model, prepared, evaluation, 0, prepared.folder)  # type: ignore[arg-type]
    classification.answer(given, items, records.append)
    return _scored(items, records, evaluation)


@torch.no_grad()
def one_by_one(model: torch.nn.Module, prepared: Prepared, evaluation: EvaluationConfig) -> TaskResult:
    """What a script does: the chat template, ``generate``, ``decode``, the next article."""
    tokenizer, items = prepared.tokenizer, classification.items(prepared, evaluation)
    ends = stop_ids(tokenizer, prepared.template)
    answers = tokenizer(list(items[0].gold["answers"].values()), add_special_tokens=False)["input_ids"]
    settings = GenerationConfig(
        max_new_tokens=max(map(len, answers)) + classification.SPARE_TOKENS,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=0,
    )
    records: list[Record] = []
    with unpacked_attention(model):  # type: ignore[arg-type]
        for item in items:
            prompt = tokenizer.apply_chat_template(
                list(item.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            generated = model.generate(**prompt, generation_config=settings)  # type: ignore[operator]
            said = generated[0, prompt["input_ids"].shape[1] :].tolist()
            end = next((at for at, token in enumerate(said) if token in ends), len(said))
            records.append({"id": item.id, "text": tokenizer.decode(said[:end])})
    return _scored(items, records, evaluation)


def _scored(items: Sequence[Item], records: Sequence[Record], evaluation: EvaluationConfig) -> TaskResult:
    by_id = {record["id"]: record for record in records}
    return classification.score(items, [by_id[item.id] for item in items], evaluation)


def _trained(given: argparse.Namespace, folder: Path) -> tuple[torch.nn.Module, Prepared]:
    run = compose(
        *("model=small", "data=jsonl", f"data.path={given.train}", f"data.holdout_path={given.test}"),
        *("data.format=ag_news", "data.columns=[class,title,description]", "hardware.micro_batch=32"),
        *(f"data.limit={given.learned}", "schedule.epochs=1", "schedule.eval_every=never", "hardware.precision=bf16"),
        *(f"run_root={folder}", f"tracking.uri=sqlite:///{folder}/mlflow.db", "evaluation.tasks=[]"),
    )
    trained = train(run)
    exact = replace(run, hardware=replace(run.hardware, precision="fp32"))
    prepared = prepare(run)
    return load_trained(trained.model, exact, prepared.tokenizer).eval(), prepared


def _print(articles: int, seconds: dict[str, list[float]], results: dict[str, TaskResult]) -> None:
    plain = statistics.median(seconds["one by one"])
    reference = [one["predicted"] for one in results["one by one"].predictions]
    sys.stdout.write("| | articles/s | faster by | accuracy | same label |\n|---|---|---|---|---|\n")
    for name, measured in seconds.items():
        middle = statistics.median(measured)
        same = sum(one["predicted"] == other for one, other in zip(results[name].predictions, reference, strict=True))
        accuracy = results[name].scores["accuracy"]["value"]
        speed = f"{articles / middle:.1f} | {plain / middle:.2f}"
        sys.stdout.write(f"| {name} | {speed} | {100 * accuracy:.1f} % | {same}/{articles} |\n")
    rounds = {name: [round(one, 3) for one in measured] for name, measured in seconds.items()}
    sys.stdout.write(f"seconds: {json.dumps(rounds)}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--articles", type=int, default=512, help="how many of the test set are answered")
    parser.add_argument("--learned", type=int, default=6000, help="how many articles the model learns from first")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
