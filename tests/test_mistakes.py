"""Every mistake on the command line: at most three clear lines, code 2, nothing on stdout, no torch, nothing left."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
KEYS = "--cfg job shows all keys"

# The words, and what the message has to say: the key, the value, a way out.
ALONE: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "unknown key": (["epochs=3"], ["epochs: no such key", "schedule.epochs?", KEYS]),
    "unknown key added": (["+schedule.epochz=3"], ["schedule.epochz: no such key", "schedule.epochs?"]),
    "wrong choice": (["method=lroa"], ["method=lroa", "lora?", "there are full, full_bf16, lora"]),
    "wrong type": (["schedule.epochs=three"], ["schedule.epochs=three", "whole number"]),
    "negative": (["schedule.learning_rate=-1e-5"], ["schedule.learning_rate=-1e-05", "above 0"]),
    "impossible batch": (["schedule.global_batch_size=3"], ["global_batch_size=3", "micro_batch=2", "_size=4"]),
    "missing file": (["data=jsonl", "data.path=chat.jsonl"], ["no such file", "chat.jsonl", "chats.jsonl?"]),
    "empty file": (["data=jsonl", "data.path=empty.jsonl"], ["data.path", "empty.jsonl is empty", "at least one row"]),
    "other format": (["data=jsonl", "data.path=image.jsonl"], ["data.path", "image.jsonl", "PNG", ".parquet"]),
    "bad first row": (["data=jsonl", "data.path=bad.jsonl"], ["data.path", "bad.jsonl:1", "'text'", "on_bad_row=skip"]),
    "template": (["model.template=chatmll"], ["model.template=chatmll", "chatml?", "plain"]),
    "nothing reads it": (["method.lora.rank=8"], ["method.lora.rank=8", "only method=lora and", "leave it out"]),
    "not writable": (["run_root=/proc/x"], ["run_root=/proc/x: cannot write there", "choose another folder"]),
    "model folder": (["model=hub", "model.name=weights"], ["model.name=", "weights", "config.json", "Hugging Face"]),
    "sweep": (["schedule.epochs=1,2"], ["schedule.epochs=1,2", "add -m"]),
    "one wrong arm": (["-m", "method=full,lroa"], ["method=lroa", "lora?"]),
    "flag": (["--epochs", "3"], ["no such flag: --epochs 3", "schedule.epochs=3", "--help"]),
    "unknown model on the hub": (
        ["model=hub", "model.name=no/such"],
        ["model.name=no/such", "HF_HUB_OFFLINE", "folder"],
    ),
}
TOGETHER: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "unknown section": (["foo.bar=1"], ["foo: no such key", KEYS]),
    "misspelt key": (["method=lora", "method.lora.rnk=8"], ["method.lora.rnk", "method.lora.rank?"]),
    "added key": (["+schedule.epochs=3"], ["+schedule.epochs=3", "write schedule.epochs=3"]),
    "forced key": (["++schedule.epochs=3"], ["++schedule.epochs=3", "write schedule.epochs=3"]),
    "forced unknown key": (["++foo=1"], ["foo: no such key"]),
    "added group": (["+model=tiny"], ["+model=tiny", "write model=tiny"]),
    "deleted key": (["~schedule.epochs"], ["~schedule.epochs", "schedule.epochs=VALUE"]),
    "deleted group": (["~model"], ["~model", "model=VALUE"]),
    "package": (["model@other=tiny"], ["model@other=tiny", "write model=tiny"]),
    "Hydra's setting": (["hydra.run.dir=x"], ["hydra.run.dir=x", "run_root"]),
    "Hydra's group": (["hydra/launcher=joblib"], ["hydra/launcher=joblib", "nothing reads"]),
    "number for a group": (["schedule=5"], ["schedule=5: no such choice", "cosine"]),
    "null for a group": (["model=null"], ["model=null: no such choice", "tiny"]),
    "list for a group": (["model=[tiny,hub]"], ["model=[tiny,hub]: no such choice"]),
    "nothing for a group": (["model="], ["model=: no such choice", "tiny"]),
    "number for a group in a sweep": (["-m", "schedule=cosine,5"], ["schedule=5: no such choice"]),
    "hub model as choice": (["model=Qwen/Qwen3-4B"], ["model=Qwen/Qwen3-4B", "model=hub model.name=Qwen/Qwen3-4B"]),
    "file as choice": (["data=chats.jsonl"], ["data=chats.jsonl", "data=jsonl data.path=chats.jsonl"]),
    "absolute file as choice": (["data=/a/b.csv"], ["data=/a/b.csv", "data=jsonl data.path=/a/b.csv"]),
    "launcher": (["launcher=slrum"], ["launcher=slrum", "local"]),
    "experiment": (["experiment=stdlib_docs_epoch"], ["experiment=stdlib_docs_epoch", "stdlib_docs_epochs?"]),
    "fraction": (["schedule.epochs=1.5"], ["schedule.epochs=1.5", "whole number"]),
    "half a number": (["schedule.learning_rate=1e-5x"], ["schedule.learning_rate=1e-5x", "must be a number"]),
    "not a boolean": (["data.packing=maybe"], ["data.packing=maybe", "true or false"]),
    "boolean for a number": (["schedule.epochs=true"], ["schedule.epochs=true", "whole number"]),
    "null": (["seed=null"], ["seed=null", "must have a value", "leave the word out"]),
    "list for a number": (["schedule.epochs=[1,2]"], ["schedule.epochs=[1, 2]", "whole number"]),
    "not a list": (["evaluation.tasks=loss"], ["evaluation.tasks=loss", "evaluation.tasks=[loss]"]),
    "mapping for a list": (["evaluation.tasks={a:1}"], ["evaluation.tasks={a:1}", "must be a list"]),
    "list for a text": (["data=jsonl", "data.path=[a,b]"], ["data.path=[a,b]", "one text"]),
    "value for a section": (["method.lora=8"], ["method.lora=8", "method.lora.KEY=VALUE"]),
    "interpolation": (["schedule.epochs=${foo}"], ["schedule.epochs=${foo}", "'foo' not found", "the value itself"]),
    "nan": (["schedule.learning_rate=nan"], ["schedule.learning_rate=nan", "finite"]),
    "inf": (["schedule.learning_rate=inf"], ["schedule.learning_rate=inf", "finite"]),
    "best without checkpoints": (
        ["schedule.best_metric=eval_loss", "schedule.save_every=never"],
        ["schedule.best_metric=eval_loss", "schedule.save_every=never", "epoch or a number"],
    ),
    "best of what is not evaluated": (
        ["schedule.best_metric=eval_loss", "schedule.save_every=50", "schedule.eval_every=20"],
        ["schedule.eval_every=20", "schedule.save_every=50", "say schedule.eval_every=50"],
    ),
    "best without data for it": (
        ["schedule.best_metric=eval_loss", "data.holdout=0", "evaluation.tasks=[]"],
        ["schedule.best_metric=eval_loss", "data.holdout=0", "above 0"],
    ),
    "best by another metric": (["schedule.best_metric=accuracy"], ["schedule.best_metric=accuracy", "eval_loss"]),
    "a window of one step": (["schedule.profile_steps=[4]"], ["schedule.profile_steps=[4]", "[4,6]"]),
    "a window behind the end": (
        ["schedule.profile_steps=[4,6]", "schedule.max_steps=5"],
        ["schedule.profile_steps=[4,6]", "schedule.max_steps=5", "earlier"],
    ),
    "zero": (["data.limit=0"], ["data.limit=0", "at least 1"]),
    "negative seed": (["seed=-1"], ["seed=-1", "at least 0"]),
    "huge seed": (["seed=99999999999999"], ["seed=99999999999999", "at most 4294967295"]),
    "share": (["data.holdout=0.95"], ["data.holdout=0.95", "at most 0.9", "whole number"]),
    "steps or word": (["schedule.save_every=often"], ["schedule.save_every=often", "epoch, never", "number of steps"]),
    "warm-up": (["schedule.warmup=1.5"], ["schedule.warmup=1.5", "0.1, or 2"]),
    "warm-up too long": (
        ["schedule.warmup=20", "schedule.max_steps=5"],
        ["schedule.warmup=20", "schedule.max_steps=5", "shorten"],
    ),
    "steps of no epoch": (
        ["schedule.max_steps=5", "schedule.epochs=0"],
        ["schedule.max_steps=5", "schedule.epochs=0", "drop one"],
    ),
    "nothing held out": (["data.holdout=0"], ["data.holdout=0", "evaluation.tasks=[]"]),
    "unknown task": (["evaluation.tasks=[los]"], ["evaluation.tasks=[los]", "loss?", "classification"]),
    "task twice": (["evaluation.tasks=[loss,loss]"], ["evaluation.tasks=[loss,loss]", "name it once"]),
    "heads": (["model.architecture.heads=5"], ["heads=5", "key_value_heads=2", "multiple"]),
    "head_dim": (["model.architecture.head_dim=7"], ["head_dim=7", "even", "8"]),
    "no name": (["model=hub"], ["model.name", "model.name=OWNER/MODEL", "model.name=FOLDER"]),
    "name that is not read": (["model.name=Qwen/Qwen3-4B"], ["model.name=Qwen/Qwen3-4B", "only model=hub"]),
    "no such folder": (["model=hub", "model.name=./gone"], ["model.name=", "/gone: no such folder", "OWNER/MODEL"]),
    "file for a model": (["model=hub", "model.name=notes.txt"], ["model.name=notes.txt", "is a file", "folder"]),
    "revision of a folder": (
        ["model=hub", "model.name=model", "model.revision=v2"],
        ["model.revision=v2", "only models from the hub", "leave it out"],
    ),
    "no path": (["data=jsonl"], ["data.path", "data.path=FILE"]),
    "path that is not read": (["data.path=chats.jsonl"], ["data.path=chats.jsonl", "only data=jsonl"]),
    "path of an experiment's data": (
        ["experiment=stdlib_docs_epochs", "data.path=chats.jsonl"],
        ["data.path=chats.jsonl", "only data=jsonl"],
    ),
    "folder for a file": (["data=jsonl", "data.path=weights"], ["data.path", "weights is a folder", ".jsonl"]),
    "columns": (
        ["data=jsonl", "data.path=columns.csv"],
        ["columns.csv:2", "'question', 'answer'", "prompt", "messages"],
    ),
    "suffix": (["data=jsonl", "data.path=notes.txt"], ["data.path", "notes.txt", ".txt", ".jsonl"]),
    "tilde": (["data=jsonl", "data.path=~/a.jsonl"], ["data.path=~/a.jsonl", "'data.path=\"~/a.jsonl\"'"]),
    "no GPU": (["hardware=8xH100", "schedule.global_batch_size=8"], ["8 NVIDIA H100", "no GPU", "hardware=cpu"]),
    "batch of eight GPUs": (["hardware=8xH100"], ["global_batch_size=2", "8", "schedule.global_batch_size=8"]),
    "several machines": (
        ["hardware.nodes=2", "schedule.global_batch_size=4"],
        ["hardware.nodes=2", "launcher=local", "this machine only", "set 1"],
    ),
    "strategy of one process": (["hardware.strategy=zero3"], ["hardware.strategy=zero3", "nothing to share"]),
    "GPUs of a CPU": (["hardware.gpus_per_node=1"], ["hardware.gpus_per_node=1", "hardware with GPUs"]),
    "fp16 on a CPU": (["hardware.precision=fp16"], ["hardware.precision=fp16", "fp32 or bf16"]),
    "tracking": (["tracking.uri=mlruns"], ["tracking.uri=mlruns", "sqlite:///FILE", "http://HOST:PORT"]),
    "tracking without a host": (["tracking.uri=http://"], ["tracking.uri=http://", "HOST:PORT"]),
    "tracking in a folder": (["tracking.uri=sqlite:///weights"], ["tracking.uri=", "weights", "mlflow.db"]),
    "tracking not writable": (["tracking.uri=sqlite:////proc/x/a.db"], ["tracking.uri=", "/proc/x", "another folder"]),
    "tracker": (["tracking.also=[tensorbord]"], ["tracking.also=[tensorbord]", "tensorboard?", "wandb"]),
    "MLflow as another tracker": (["tracking.also=[mlflow]"], ["tracking.also=[mlflow]", "always"]),
    "tracker twice": (["tracking.also=[wandb,wandb]"], ["tracking.also=[wandb,wandb]", "once"]),
    "mode of W&B without it": (
        ["tracking.wandb_mode=offline"],
        ["tracking.wandb_mode=offline", "tracking.also=[wandb]"],
    ),
    "mode of W&B that is none": (
        ["tracking.also=[wandb]", "tracking.wandb_mode=disabled"],
        ["tracking.wandb_mode=disabled", "offline, online"],
    ),
    "W&B online and offline": (
        ["tracking.also=[wandb]", "tracking.wandb_mode=online", "tracking.offline=true"],
        ["tracking.wandb_mode=online", "tracking.offline=true", "drop one"],
    ),
    "interval without a sweep": (
        ["schedule.learning_rate=interval(1e-5,1e-3)"],
        ["schedule.learning_rate=interval(1e-5,1e-3)", "add -m"],
    ),
    "interval of whole numbers": (
        ["-m", "schedule.epochs=interval(1,5)"],
        ["schedule.epochs=interval(1,5)", "int(interval(1,5))"],
    ),
    "interval downwards": (["-m", "seed=int(interval(5,1))"], ["seed=int(interval(5,1))", "interval(1,5)"]),
    "logarithm of zero": (
        ["-m", "schedule.learning_rate=tag(log,interval(0,1))"],
        ["schedule.learning_rate=tag(log,interval(0,1))", "above 0"],
    ),
    "tag of an interval": (["-m", "seed=tag(exp,int(interval(1,5)))"], ["no such tag as exp", "log"]),
    "more runs than there are": (
        ["-m", "schedule.epochs=int(interval(1,3))"],
        ["search.runs=8", "3 different", "schedule.epochs", "fewer"],
    ),
    "search without an interval": (["search.runs=4"], ["search.runs=4", "interval(1e-5,1e-3)"]),
    "search twice": (["-m", "seed=int(interval(1,9))", "search.runs=2,3"], ["search.runs=2,3", "one value"]),
    "launcher key of SLURM": (["launcher.partition=gpu"], ["launcher.partition=gpu", "only launcher=slurm does"]),
    "watchdog of one process": (["launcher.watchdog_min=5"], ["launcher.watchdog_min=5.0", "several processes"]),
    "hardware to score on": (["evaluation.hardware=8xH10"], ["evaluation.hardware=8xH10", "8xH100?", "cpu"]),
    "hardware to score on that is no name": (["evaluation.hardware=[a,b]"], ["evaluation.hardware", "one text"]),
    "hardware to score nothing on": (
        ["evaluation.hardware=cpu", "evaluation.tasks=[]"],
        ["evaluation.hardware=cpu", "evaluation.tasks=[] scores nothing"],
    ),
    "no GPU to score on": (
        ["evaluation.hardware=1xH100"],
        ["evaluation.hardware asks for 1", "evaluation.hardware=cpu"],
    ),
    "below a file": (["run_root=notes.txt/runs"], ["run_root=", "notes.txt/runs", "choose another folder"]),
    "no run_root": (["run_root="], ["run_root=:", "leave the word out"]),
    "cache not writable": (["data.cache=/proc/x"], ["data.cache=/proc/x", "choose another folder"]),
    "name of a folder": (["name=a/b"], ["name=a/b", "letters, digits"]),
    "name upwards": (["name=.."], ["name=..", "letter or digit"]),
    "value out of range in a sweep": (["-m", "schedule.epochs=0,-1"], ["schedule.epochs=-1", "at least 0"]),
    "arm twice": (["-m", "schedule.epochs=1,1"], ["schedule.epochs=1 and schedule.epochs=1", "drop one"]),
    "arms alike": (["-m", "hardware.micro_batch=1,2"], ["micro_batch=1 and hardware.micro_batch=2", "drop one"]),
    "word": (["foo"], ["'foo'", "key=value", "model=tiny"]),
    "choice alone": (["lora"], ["'lora'", "method=lora?"]),
    "key alone": (["schedule.epochs"], ["'schedule.epochs'", "schedule.epochs=VALUE"]),
    "no key": (["=3"], ["'=3'", "key=value"]),
    "bracket": (["schedule.epochs=[1"], ["'schedule.epochs=[1'", "key=value"]),
    "line breaks": (["name='a\nb\nc\nd\ne'"], ["name=a"]),
    "config folder": (["--config-dir", "gone"], ["--config-dir=gone", "GROUP/CHOICE.yaml"]),
    "no config folder": (["--config-dir"], ["--config-dir", "--help"]),
    "what to show": (["--cfg", "hydra"], ["'hydra'", "'job'"]),
    "own yaml, unknown key": (
        ["--config-dir", "mine", "model=typo"],
        ["model.layerz", "no such key", "model/typo.yaml"],
    ),
    "own yaml, wrong type": (["--config-dir", "mine", "model=fast"], ["=fast: must be a number", "model/fast.yaml"]),
    "own yaml, broken": (["--config-dir", "mine", "model=broken"], ["broken.yaml, line", "not valid yaml", "mend"]),
    "own experiment, no header": (["--config-dir", "mine", "experiment=bare"], ["bare.yaml", "# @package _global_"]),
    "own choice, misspelt": (["--config-dir", "mine", "model=typpo"], ["model=typpo", "typo?"]),
}

# Runs the story on each list of words in one interpreter, and says how each ended.
PROBE = """
import contextlib, io, json, os, sys
from pathlib import Path
from ftx.train import main
for words in json.loads(sys.stdin.read()):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    left = sorted(map(str, Path().rglob("*")))
    json.dump([int(code), out.getvalue(), err.getvalue(), "torch" in sys.modules, left], sys.stdout)
    print()
"""


@dataclass(frozen=True)
class Ended:
    """How a mistake ended; ``left`` are the files in the folder it was made in."""

    code: int
    out: str
    err: str
    torch: bool
    left: list[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    for name in ("weights", "model", "mine/model", "mine/experiment"):
        (folder / name).mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "chats.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (folder / "bad.jsonl").write_text('{"text": "a"}\n')
    (folder / "empty.jsonl").touch()
    (folder / "image.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "columns.csv").write_text("question,answer\na,b\n")
    (folder / "notes.txt").write_text("a")
    (folder / "mine" / "model" / "typo.yaml").write_text("# A typo.\nweights: random\nlayerz: 3\n")
    (folder / "mine" / "model" / "fast.yaml").write_text("# A type.\nsuggested_learning_rate: fast\n")
    (folder / "mine" / "model" / "broken.yaml").write_text("# Broken.\nweights: [random\n")
    (folder / "mine" / "experiment" / "bare.yaml").write_text("# No header.\nschedule:\n  epochs: 1\n")
    return folder


def python(
    arguments: Sequence[str], folder: Path, environment: dict[str, str] = ENVIRONMENT, said: str = ""
) -> "subprocess.CompletedProcess[str]":
    """A Python of its own in the folder, where the hub is off limits and no GPU is seen."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=said,
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def where(folder: Path) -> list[str]:
    """Words that keep what a run would write inside the folder."""
    return [f"run_root={folder}/runs", f"tracking.uri=sqlite:///{folder}/mlflow.db"]


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def ended(folder) -> dict[str, Ended]:
    given = json.dumps([[*where(folder), *words] for words, _ in TOGETHER.values()])
    probe = python(["-c", PROBE], folder, said=given)
    lines = probe.stdout.splitlines()
    assert len(lines) == len(TOGETHER), probe.stderr
    return {mistake: Ended(*json.loads(line)) for mistake, line in zip(TOGETHER, lines, strict=True)}


def check(code: int, out: str, err: str, says: Sequence[str]) -> None:
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ") and "Traceback" not in err
    assert 1 <= len([line for line in err.splitlines() if line.strip()]) <= 3
    assert [text for text in says if text not in err] == [], err


@pytest.mark.parametrize("mistake", ALONE)
def test_a_mistake_on_the_command_line(mistake, folder):
    words, says = ALONE[mistake]
    before = contents(folder)
    process = python(["-X", "importtime", "-m", "ftx.train", *where(folder), *words], folder)
    imports = [line for line in process.stderr.splitlines() if line.startswith("import time:")]
    said = [line for line in process.stderr.splitlines() if not line.startswith("import time:")]
    check(process.returncode, process.stdout, "\n".join(said), says)
    assert imports and not any(line.split("|")[-1].strip() == "torch" for line in imports)
    assert contents(folder) == before


@pytest.mark.parametrize("mistake", TOGETHER)
def test_a_mistake(mistake, ended, folder):
    one = ended[mistake]
    check(one.code, one.out, one.err, TOGETHER[mistake][1])
    assert not one.torch
    assert one.left == contents(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing stops root from writing")
def test_a_folder_without_permission_to_write(tmp_path, folder):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    process = python(["-m", "ftx.train", *where(folder), f"run_root={closed}/runs"], tmp_path)
    check(process.returncode, process.stdout, process.stderr, ["run_root=", "closed", "choose another folder"])


def test_a_hub_out_of_reach(folder):
    process = python(
        ["-m", "ftx.train", *where(folder), "model=hub", "model.name=no/such"],
        folder,
        {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"},
    )
    says = ["model.name=no/such", "revision main", "or give a folder"]
    check(process.returncode, process.stdout, process.stderr, says)
