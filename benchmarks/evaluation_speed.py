"""Scoring a classifier: ftx by generation and by likelihood, beside a plain loop of ``generate`` over the questions.

A model learns for a while, then the same held-out questions are answered three ways (timed without scoring), in 32-bit
floats, in one process and by as many threads: one at a time with transformers' ``generate`` and chat template; ftx's
batches; ftx's likelihoods, one pass for each question. The first two's texts have to be equal, and all three labels are
compared. Without files it is the default model on the default data, with AG News's two a larger model on that.

    python -m benchmarks.evaluation_speed [TRAIN.csv.gz TEST.csv.gz] [--questions 512] [--rounds 3]
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

Way = Callable[[Sequence[Item]], list[Record]]


def main() -> int:
    given = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        model, prepared = _trained(given, Path(folder))
        torch.set_num_threads(given.threads)
        keep_freed_memory()
        evaluation = EvaluationConfig(tasks=["classification"], limit=given.questions, batch_size=given.batch_size)
        by_likelihood = replace(evaluation, classification=replace(evaluation.classification, by="likelihood"))
        ways: dict[str, Way] = {
            "one by one": lambda items: one_by_one(model, prepared, items),
            "ftx, generation": lambda items: by_ftx(model, prepared, items, evaluation),
            "ftx, likelihood": lambda items: by_ftx(model, prepared, items, by_likelihood),
        }
        items = classification.items(prepared, evaluation)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        results: dict[str, TaskResult] = {}
        for _ in range(given.rounds):
            for name, way in ways.items():
                began = time.perf_counter()
                records = {record["id"]: record for record in way(items)}
                seconds[name].append(time.perf_counter() - began)
                results[name] = classification.score(items, [records[item.id] for item in items], evaluation)
    _print(given.questions, seconds, results)
    texts = [[one["text"] for one in results[name].predictions] for name in list(ways)[:2]]
    if texts[0] != texts[1]:
        differ = sum(one != other for one, other in zip(*texts, strict=True))
        sys.stdout.write(f"not the same result: {differ} texts differ\n")
        return 1
    return 0


def by_ftx(
    model: torch.nn.Module, prepared: Prepared, items: Sequence[Item], evaluation: EvaluationConfig
) -> list[Record]:
    """As ``ftx.evaluate`` does."""
    records: list[Record] = []
    engine = LocalEngine(model, prepared.tokenizer, prepared.template, evaluation.batch_size)  # type: ignore[arg-type]
    given = TaskInput(engine, model, prepared, evaluation, 0, prepared.folder)  # type: ignore[arg-type]
    classification.answer(given, items, records.append)
    return records


@torch.no_grad()
def one_by_one(model: torch.nn.Module, prepared: Prepared, items: Sequence[Item]) -> list[Record]:
    """What a script does: the chat template, ``generate``, ``decode``, the next question."""
    tokenizer = prepared.tokenizer
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
    return records


def _trained(given: argparse.Namespace, folder: Path) -> tuple[torch.nn.Module, Prepared]:
    here = (f"run_root={folder}", f"tracking.uri=sqlite:///{folder}/mlflow.db", "evaluation.tasks=[]")
    run = compose(*(_news(given) if given.train else ("schedule.epochs=3",)), "schedule.eval_every=never", *here)
    trained = train(run)
    exact = replace(run, hardware=replace(run.hardware, precision="fp32"))
    prepared = prepare(run)
    return load_trained(trained.model, exact, prepared.tokenizer).eval(), prepared


def _news(given: argparse.Namespace) -> tuple[str, ...]:
    return (
        *("model=small", "data=jsonl", f"data.path={given.train}", f"data.holdout_path={given.test}"),
        *("data.format=ag_news", "data.columns=[class,title,description]", f"data.limit={given.learned}"),
        *("hardware.micro_batch=32", "hardware.precision=bf16", "schedule.epochs=1"),
    )


def _print(questions: int, seconds: dict[str, list[float]], results: dict[str, TaskResult]) -> None:
    plain = statistics.median(seconds["one by one"])
    reference = [one["predicted"] for one in results["one by one"].predictions]
    sys.stdout.write("| | questions/s | faster by | accuracy | same label |\n|---|---|---|---|---|\n")
    for name, measured in seconds.items():
        middle = statistics.median(measured)
        same = sum(one["predicted"] == other for one, other in zip(results[name].predictions, reference, strict=True))
        accuracy = results[name].scores["accuracy"]["value"]
        speed = f"{questions / middle:.1f} | {plain / middle:.2f}"
        sys.stdout.write(f"| {name} | {speed} | {100 * accuracy:.1f} % | {same}/{questions} |\n")
    rounds = {name: [round(one, 3) for one in measured] for name, measured in seconds.items()}
    sys.stdout.write(f"seconds: {json.dumps(rounds)}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, nargs="?")
    parser.add_argument("test", type=Path, nargs="?")
    parser.add_argument("--questions", type=int, default=512, help="how many of the held-out ones are answered")
    parser.add_argument("--learned", type=int, default=12000, help="how many articles the larger model learns from")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
