"""A run from its words to its folder: what is written, what is said, what the same command does the next time."""

import json
import os
import pty
import re
import runpy
import select
import signal
import subprocess
import sys
import termios

import pytest
import torch
from run_records import checkpoints_of, rows_of
from verb_process import SERVER, until

from ftx.data.order import order_of
from ftx.data.prepare import prepare
from launchers.cost import pace_of

WORDS = ("schedule.epochs=1", "schedule.log_every=3", "schedule.keep_checkpoints=1")
TRAINING_KEYS = ["step", "epoch", "learning_rate", "train_loss", "grad_norm", "total_tokens", "supervised_tokens"]
TRAINING_KEYS += ["total_tokens_including_padding", "per_device_tps", "per_device_tps_including_padding"]
TRAINING_KEYS += ["mfu", "step_seconds", "memory_gib"]


@pytest.fixture(scope="module")
def first(new_place):
    """(place, the process) of ``python -m ftx.train`` as a user types it, in a folder that is not the checkout."""
    place = new_place()
    (place.path / "mlflow.db").unlink()
    elsewhere = place.path / "elsewhere"
    elsewhere.mkdir()
    words = [str(word) for word in place.words(*WORDS)]
    command = [sys.executable, "-m", "ftx.train", *words]
    return place, subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_what_is_said(first):
    place, ended = first
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert lines[0] == f"run: {place.folder().path}"
    at = lines.index("classification (n = 20)")
    assert re.fullmatch(r"  accuracy +\d+\.\d % \[\d+\.\d, \d+\.\d\]", lines[at + 1])
    assert "\r" not in ended.stdout
    assert "\x1b" not in ended.stdout


def test_the_folder(first):
    place, _ = first
    folder = place.folder()
    assert re.fullmatch(r"tiny-full-stdlib_docs-[0-9a-f]{8}", folder.name)
    contract = {"run.yaml", "overrides.txt", "provenance.json", "metrics.jsonl", "log.txt", "checkpoints", "model"}
    contract |= {"scores.json", "predictions", "status.json"}
    assert names_in(folder.path) == contract | {"figures", "scored_with.json", "system.jsonl"}
    assert checkpoints_of(folder) == {"step-9"}
    assert names_in(folder.path / "predictions") == {"classification.jsonl", "classification"}
    status = json.loads((folder.path / "status.json").read_text())
    assert (status["state"], status["reason"], status["job_id"]) == ("finished", "", None)
    assert status["mlflow_run_id"]
    assert (folder.path / "overrides.txt").read_text().splitlines() == [str(word) for word in place.words(*WORDS)]
    assert {"commit", "dirty_diff", "packages", "data_fingerprint", "host"} <= folder.read_provenance().keys()
    assert folder.read_run().schedule.epochs == 1
    assert folder.log.read_text().count("classification (n = 20)") == 1
    accuracy = folder.read_scores()["classification"]["accuracy"]
    assert accuracy.keys() == {"value", "n", "ci95"}
    assert accuracy["n"] == 20
    assert len(folder.predictions("classification").read_text().splitlines()) == 20


def test_nothing_lies_about_elsewhere(first):
    """No outputs/, multirun/, .hydra/ of Hydra's and no mlruns/ where the user happens to be."""
    place, _ = first
    assert names_in(place.path / "elsewhere") == set()
    assert not list(place.path.rglob(".hydra"))
    assert names_in(place.path) == {"elsewhere", "runs", "mlflow.db", "mlruns"}
    assert names_in(place.runs) == {place.folder().name}


def test_metrics(first):
    rows = rows_of(first[0].folder())
    training = [row for row in rows if "train_loss" in row]
    assert [list(row) for row in training] == [TRAINING_KEYS] * 3
    assert [row["step"] for row in training] == [3, 6, 9]
    assert [list(row) for row in rows if "eval_loss" in row] == [["step", "epoch", "eval_loss"]] * 2
    assert [row["step"] for row in rows if "eval_loss" in row] == [0, 9]
    said = re.search(r"\(([\d,]+) tokens, ([\d,]+) supervised, 17 rows\)", first[1].stdout)
    assert (training[-1]["total_tokens"], training[-1]["supervised_tokens"]) == tuple(
        int(number.replace(",", "")) for number in said.groups()
    )
    assert training[-1]["mfu"] is None
    pace = pace_of(first[0].folder().metrics, 2)
    assert (pace.tokens_an_epoch, pace.tokens_a_row) == (
        training[-1]["total_tokens"],
        training[-1]["total_tokens"] / 18,
    )


def test_the_model_is_one_that_plain_transformers_loads(first):
    """Its logits are those of the weights that training ended with, and of a prompt in its own chat template."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = first[0].folder()
    model = AutoModelForCausalLM.from_pretrained(folder.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder.model)
    saved = load_file(folder.checkpoints / "step-9" / "model.safetensors")
    assert all(model.state_dict()[name].equal(weights) for name, weights in saved.items())
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    tokens = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=tokens).logits
    assert logits.shape == (1, tokens.shape[1], 1024)
    assert torch.isfinite(logits).all()


def test_the_same_command_again(first):
    """It trains nothing; a task that has no score yet is scored, and nothing else."""
    place, _ = first
    folder = place.folder()
    written = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}

    again = place.train(*WORDS)
    assert again.code == 0
    assert again.out.splitlines()[:2] == [
        f"run: {folder.path}",
        "finished already, nothing to do; fresh=true starts over",
    ]
    assert "accuracy" in again.out
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()} == written

    more = place.train(*WORDS, "evaluation.tasks=[classification,loss]")
    assert more.code == 0
    assert folder.read_scores().keys() == {"classification", "loss"}
    assert names_in(folder.path / "predictions") == {"classification.jsonl", "classification", "loss.jsonl", "loss"}
    untouched = [folder.model / "model.safetensors", folder.metrics, folder.predictions("classification")]
    assert all(path.stat().st_mtime_ns == written[path] for path in untouched)


def test_no_epochs(place):
    """The base model is scored and there is nothing to save; fresh=true starts over beside what is there."""
    assert place.train("schedule.epochs=0").code == 0
    folder = place.folder()
    assert not folder.model.exists()
    assert not folder.checkpoints.exists()
    assert folder.read_scores()["classification"]["accuracy"]["n"] == 20
    again = place.train("schedule.epochs=0")
    assert again.code == 0
    assert "finished already" in again.out

    scored = (folder.path / "scores.json").stat().st_mtime_ns
    for number in (1, 2):
        fresh = place.train("schedule.epochs=0", "fresh=true")
        assert fresh.code == 0
        assert f"fresh: moved {folder.name} to {folder.path}.old-{number}" in fresh.out
    assert names_in(place.runs) == {folder.name, f"{folder.name}.old-1", f"{folder.name}.old-2"}
    assert (place.runs / f"{folder.name}.old-1" / "scores.json").stat().st_mtime_ns == scored


def test_a_second_process_is_refused_while_the_first_lives(place):
    run = place.start("schedule.epochs=9")
    until(lambda: any(place.runs.glob("*/metrics.jsonl")), run, "a training row")
    run.send(signal.SIGSTOP)
    before = (place.folder().path / "run.yaml").read_text()
    second = place.train("schedule.epochs=9", "schedule.log_every=5", "fresh=true")
    run.killed()
    assert second.code == 1
    assert re.search(rf"process {run.process.pid} on \S+ is at it; left alone\n\Z", second.out)
    assert (place.folder().path / "run.yaml").read_text() == before


def test_a_crash(place):
    """Exit code 1, and the reason for whoever looks at the folder; mended, the same command finishes."""
    words = ("schedule.epochs=1",)
    run = place.start(*words)
    until(lambda: any(place.runs.glob("*/run.yaml")), run, "the run's folder")
    run.send(signal.SIGSTOP)
    in_the_way = place.folder().path / "predictions"
    in_the_way.write_text("")
    run.send(signal.SIGCONT)
    ended = run.ended()
    assert ended.code == 1
    assert "Traceback" in ended.err
    status = place.folder().read_status()
    assert status.state == "failed"
    assert "predictions" in status.reason
    assert place.mlflow().get_run(status.mlflow_run_id).info.status == "FAILED"
    in_the_way.unlink()
    written = (place.folder().model / "model.safetensors").stat().st_mtime_ns
    assert place.train(*words).code == 0
    assert (place.folder().read_status().state, place.folder().read_status().reason) == ("finished", "")
    assert (place.folder().model / "model.safetensors").stat().st_mtime_ns == written


def test_a_loss_that_is_not_finite(place):
    words = ("schedule.epochs=1", "schedule.learning_rate=1e30", "schedule.log_every=1", "method.max_grad_norm=0")
    ended = place.train(*words, "schedule.warmup=0")
    assert ended.code == 1
    status = place.folder().read_status()
    assert status.state == "failed"
    said = re.search(r"loss of step (\d+) is not finite, in (.+): look .+ schedule.learning_rate=1e\+30", status.reason)
    assert said, status.reason
    run = place.folder().read_run()
    order = order_of(run, prepare(run))
    in_step = {name for items in order.rows(0, int(said[1]) - 1) for name in order.ids(items)}
    assert set(said[2].partition(" and ")[0].split(", ")) <= in_step


def test_a_mistake_that_shows_late(place):
    """One clear message on stderr, code 2, no traceback."""
    lora = place.train("schedule.epochs=1", "method=lora", "method.lora.targets=[no_such]")
    assert lora.code == 2
    assert lora.err.startswith("error: method.lora.targets=['no_such']: the model has no such modules")
    assert len(lora.err.splitlines()) == 1
    assert place.folder().read_status().state == "failed"


def test_a_bad_row_in_the_middle(place):
    chat = {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "four"}]}
    rows = [json.dumps(chat)] * 5 + ['{"messages": 7}'] + [json.dumps(chat)] * 5
    (place.path / "chats.jsonl").write_text("".join(f"{row}\n" for row in rows))
    # A relative path is the user's, not the checkout's.
    ended = place.train("data=jsonl", "data.path=../chats.jsonl", "data.limit=null", "schedule.epochs=1")
    assert ended.code == 2, ended
    assert len(ended.err.splitlines()) == 1
    assert "chats.jsonl" in ended.err
    assert "6" in ended.err
    assert "data.on_bad_row=skip" in ended.err


def test_on_a_terminal_one_line_lives(place):
    """It is written over while the run trains and gone at the end; the lines that stay are the same as elsewhere."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    run = SERVER.Process(target=on_terminal, args=(os.ttyname(theirs), place.words("schedule.epochs=4")))
    run.start()
    shown = read_all(ours, run)
    os.close(theirs)
    assert run.exitcode == 0, shown
    live = re.findall(r"\rtrain tiny-full-stdlib_docs (\d+)/36 [^\r\n]* left", shown)
    assert len(live) > 1
    stays = [line.rpartition("\r")[2] for line in shown.replace("\r\n", "\n").split("\n")]
    assert stays[0] == f"run: {place.folder().path}"
    assert stays[1].startswith("data: 200 conversations")
    assert "tokens that all conversations begin with" in stays[2]
    assert stays[3].strip() == "classification (n = 20)"


def on_terminal(terminal, words):
    opened = os.open(terminal, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(opened, stream)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in (1, 2))
    sys.argv = ["ftx.train", *map(str, words)]
    runpy.run_module("ftx.train", run_name="__main__", alter_sys=True)


def read_all(terminal, run):
    """What is shown until the process has ended and nothing is left to read."""
    shown = b""
    while run.exitcode is None or select.select([terminal], [], [], 0)[0]:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536)
    os.close(terminal)
    return shown.decode()
