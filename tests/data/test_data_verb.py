"""``python -m ftx.data``: prepare ahead of a job, inspect, prune."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from verb_process import Ended, start

from ftx.run_folder import RunFolder

ARTICLES = 60


@pytest.fixture
def chats(tmp_path) -> Path:
    """Classified texts; two of them twice, one of them in other words with the same answer."""
    rows = [
        {
            "prompt": f"Which one? {' '.join(f'w{(n * 7 + k) % 97}x{n}' for k in range(20))}",
            "completion": json.dumps({"area": ("up", "down")[n % 2]}),
        }
        for n in range(ARTICLES)
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:2]]))
    return path


def data(chats: Path, action: str, *words: str) -> Ended:
    here = (f"run_root={chats.parent}/runs", "model.architecture.vocabulary_size=512", "data=jsonl")
    return start("data", action, *here, f"data.path={chats}", *words, into=chats.parent / "said").ended()


def number(text: str, row: str) -> list[int]:
    """The numbers in a row of a Markdown table."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [int(cell.replace(",", "")) for cell in line.strip("| ").split("|")[1:] if re.fullmatch(r" *[\d,]+ *", cell)]


def test_prepare_is_what_a_job_would_do_first_whatever_hardware_it_asks_for(chats):
    words = ("hardware=8xH100", "schedule.global_batch_size=8", "-m", "schedule.epochs=1,2", "data.max_length=256,512")
    ended = data(chats, "prepare", *words)
    assert (ended.code, ended.err) == (0, "")
    folders = re.findall(r"^prepared: (.+)$", ended.out, re.MULTILINE)
    assert len(set(folders)) == len(folders) == 2, "epochs do not change the data"
    before = {folder: (Path(folder) / "tokens.arrow").stat().st_mtime_ns for folder in folders}
    again = data(chats, "prepare", *words)
    assert again.out == ended.out
    assert {folder: (Path(folder) / "tokens.arrow").stat().st_mtime_ns for folder in folders} == before


def test_a_job_finds_what_was_prepared(chats):
    words = ("data.max_length=256", "model.architecture.hidden_size=32", "schedule.max_steps=1")
    prepared = Path(re.findall(r"^prepared: (.+)$", data(chats, "prepare", *words).out, re.MULTILINE)[0])
    inode = (prepared / "tokens.arrow").stat().st_ino
    tracking = f"tracking.uri=sqlite:///{chats.parent}/mlflow.db"
    where = (f"run_root={chats.parent}/runs", "model.architecture.vocabulary_size=512", "data=jsonl")
    trained = start("train", *where, f"data.path={chats}", *words, tracking, into=chats.parent / "said").ended()
    assert trained.code == 0, trained.err
    (folder,) = [file.parent for file in (chats.parent / "runs").glob("*/run.yaml")]
    assert RunFolder(folder).read_status().state == "finished"
    assert (prepared / "tokens.arrow").stat().st_ino == inode
    assert len(list((chats.parent / "runs" / ".cache" / "prepared").glob("*/"))) == 1


def test_what_is_prepared_is_found_without_torch_or_transformers(chats):
    words = [f"run_root={chats.parent}/runs", "model.architecture.vocabulary_size=512", "data=jsonl"]
    words += [f"data.path={chats}"]
    assert data(chats, "prepare").code == 0
    probe = (
        "import sys; from ftx.data.__main__ import main; code = main(sys.argv[1:]); "
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules]); sys.exit(code)"
    )
    said = subprocess.run([sys.executable, "-c", probe, "prepare", *words], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


def test_inspect_shows_counts_classes_duplicates_and_a_sample(chats):
    words = ("data.max_length=512", "data.holdout=10", "hardware=8xH100", "schedule.global_batch_size=8")
    ended = data(chats, "inspect", *words)
    assert (ended.code, ended.err) == (0, "")
    assert number(ended.out, "conversations") == [ARTICLES + 2 - 10, 10]
    assert sum(number(ended.out, "up")) + sum(number(ended.out, "down")) == ARTICLES + 2
    twins = sum(number(ended.out, "training: repeats an earlier one")[:1])
    leaked = sum(number(ended.out, "evaluation: equals a training conversation")[:1])
    assert twins + leaked == 2
    assert "mean / most work of 8 ranks in a step" in ended.out
    assert re.search(r"⟦\{\"area\": \"(up|down)\"\}<\|im_end\|>⟧", ended.out)
    folder = Path(re.search(r"^inspection: (.+)$", ended.out, re.MULTILINE)[1])
    assert sorted(file.name for file in folder.iterdir()) == [
        *("classes.png", "classes.svg", "lengths.png", "lengths.svg", "report.md"),
    ]
    report = (folder / "report.md").read_text()
    assert number(report, "tokens") == number(ended.out, "tokens")


def test_inspect_shows_the_rows_that_the_steps_pack(chats):
    words = (
        "data.max_length=512",
        "data.holdout=10",
        "schedule.global_batch_size=26",
        "data.packing_scope=global_batch",
    )
    shown = data(chats, "inspect", *words).out
    tokens, rows = number(shown, "tokens")[0], number(shown, "rows of up to 512")[0]
    assert -(-tokens // 512) <= rows < 52
    assert f"{100 * tokens / (rows * 512):.1f} %" in shown


def test_prune_says_what_it_removes(chats):
    data(chats, "prepare")
    cache = chats.parent / "runs" / ".cache"
    into = chats.parent / "said"
    said = start("data", "prune", "--cache", cache, into=into).ended()
    assert (said.code, said.out) == (0, "0 sets, 0.0 MiB removed\n")
    said = start("data", "prune", "--cache", cache, "--unused-for", "0", "--dry-run", into=into).ended()
    assert said.out.splitlines()[-1].startswith("2 sets, ") and said.out.endswith(" MiB would be removed\n")
    said = start("data", "prune", "--cache", cache, "--unused-for", "0", into=into).ended()
    assert said.out.splitlines()[-1].startswith("2 sets, ") and said.out.endswith(" MiB removed\n")
    assert list((cache / "prepared").glob("*/")) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspekt"], "error: inspekt: no such action (did you mean inspect?); there are inspect, prepare, prune"),
        (["prune", "--cache", "/no/where"], "error: --cache=/no/where: no such folder"),
        (["prepare", "data.max_lenght=3"], "error: data.max_lenght: no such key (did you mean data.max_length?)"),
        (["prepare", "--cfg", "job"], "error: --cfg=job: python -m ftx.train with the same words shows"),
        (["prepare", "run_root=/proc/x"], "error: run_root=/proc/x: cannot write there"),
        (["inspect", "-m", "data.max_length=64,128"], "error: these words describe 2 runs with data of their own"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, words, message):
    ended = start("data", *words, into=tmp_path).ended()
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert ended.err.startswith(message)


def test_help_says_what_there_is(tmp_path):
    ended = start("data", "--help", into=tmp_path).ended()
    assert ended.code == 0
    assert all(f"python -m ftx.data {action}" in ended.out for action in ("inspect", "prepare", "prune"))
