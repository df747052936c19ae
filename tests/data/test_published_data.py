"""Every data choice that names a published set, from a hub on loopback that serves such rows under its name.

What should come of the rows is written down beside them as they are made. The verb prepares all sets for the tiny
model; when the hub is gone they are opened offline, and only then looked at. Another process prepares each for a model
of the family that its recipe trains.
"""

import csv
import gzip
import io
import json
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import Hub, Repository
from row_files import as_jsonl
from tokenizers import AddedToken

from ftx.data.tiny_tokenizer import train_tokenizer

pytestmark = pytest.mark.long

SHARED = Path(os.environ.get("FTX_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))
CHOICES = (
    "ag_news",
    "glaive_function_calling",
    "jupyter_agent",
    "math_science",
    "tulu3_sft_mixture",
    "tulu3_sft_olmo2_mixture",
)
NEWS, GLAIVE, JUPYTER = "fancyzhx/ag_news", "glaiveai/glaive-function-calling-v2", "jupyter-agent/jupyter-agent-dataset"
MATH, SCIENCE = "MathLLMs/MathCodeInstruct", "xw27/scibench"
TULU, TULU_OLMO = "allenai/tulu-3-sft-mixture", "allenai/tulu-3-sft-olmo-2-mixture-0225"

# One process for many runs: named lists of words come in, what was prepared for each goes out.
PROBE = """
import json, logging, sys
from dataclasses import asdict
from itertools import groupby
from ftx import compose
from ftx.data.prepare import prepare

class Said(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

def learned(store, tokenizer):
    names, runs = [], []
    for row in store:
        end = 0
        for name, length in zip(row.ids, row.lengths, strict=True):
            begin, end = end, end + int(length)
            marked = zip(row.input_ids[begin:end].tolist(), row.supervised[begin:end].tolist(), strict=True)
            for supervised, run in groupby(marked, key=lambda one: one[1]):
                if supervised:
                    names.append(name)
                    runs.append([token for token, _ in run])
    texts = tokenizer.backend_tokenizer.decode_batch(runs, skip_special_tokens=False)
    by_name = {}
    for name, text, run in zip(names, texts, runs, strict=True):
        by_name.setdefault(name, []).append([text, run.count(tokenizer.eos_token_id)])
    return by_name

logging.getLogger("ftx").addHandler(Said())
answers = {}
for name, words in json.loads(sys.argv[1]).items():
    said = []
    prepared = prepare(compose(*words))
    rows = {"train": prepared.train, "held_out": prepared.evaluation}
    stores = {"train": prepared.train_conversations, "held_out": prepared.held_out}
    answers[name] = {
        "folder": str(prepared.folder),
        "counts": asdict(prepared.counts),
        "said": said,
        "conversations": {side: {one.id: [one.messages, one.tools] for one in stores[side]} for side in stores},
        "learned": {side: learned(rows[side], prepared.tokenizer) for side in rows},
    }
json.dump(answers, sys.stdout)
"""


@dataclass(frozen=True)
class Talk:
    """What a published row should become."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]


@dataclass(frozen=True)
class Prepared:
    """What the probe saw of one prepared set, by the ids of conversations."""

    folder: str
    counts: dict[str, int]
    said: list[str]
    conversations: dict[str, dict[str, Any]]
    learned: dict[str, dict[str, list[tuple[str, int]]]]

    @cached_property
    def talks(self) -> dict[str, Talk]:
        """Of both sides."""
        both = {**self.conversations["train"], **self.conversations["held_out"]}
        return {name: Talk(messages, tools) for name, (messages, tools) in both.items()}

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """What is learned of each conversation, one text for each stretch of it."""
        return {name: [text for text, _ in runs] for side in self.learned.values() for name, runs in side.items()}

    def sizes(self) -> tuple[int, int]:
        return len(self.conversations["train"]), len(self.conversations["held_out"])


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def as_call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def thought(reasoning: str, answer: str) -> dict[str, Any]:
    return said("assistant", f"<think>\n{reasoning}\n</think>\n\n{answer}")


def as_parquet(rows: list[dict[str, Any]], group: int = 1000, features: dict[str, Any] | None = None) -> bytes:
    """With ``features`` as the ``datasets`` library leaves them in a file that it wrote."""
    table, sink = pyarrow.Table.from_pylist(rows), io.BytesIO()
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, sink, row_group_size=group)
    return sink.getvalue()


def card(*splits: str) -> bytes:
    """The head of a README that says which files a split has."""
    files = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in splits)
    return f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n# A data set\n".encode()


# AG News: parquet of text and label, a class label of four names.
LABELS = ("World", "Sports", "Business", "Sci/Tech")
TEXT = {"dtype": "string", "_type": "Value"}
NEWS_FEATURES = {"text": TEXT, "label": {"names": list(LABELS), "_type": "ClassLabel"}}


def news_rows(split: str, count: int) -> list[dict[str, Any]]:
    return [
        {"text": f"{split} №{n}: café prices (AP) AP - Story {n * n}.", "label": n % 4} for n in range(1, count + 1)
    ]


def news_talk(row: dict[str, Any]) -> Talk:
    system = "You are a news article classifier. Answer with one of World, Sports, Business and Sci/Tech, as "
    question = f"Classify the following news article: {row['text']}"
    answer = f'{{"category":"{LABELS[row["label"]]}"}}'
    return Talk(
        [said("system", f'{system}{{"category":"..."}}.'), said("user", question), said("assistant", answer)], []
    )


def news_files(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> dict[str, bytes]:
    return {
        "README.md": card("train", "test"),
        "data/train-00000-of-00001.parquet": as_parquet(train, features=NEWS_FEATURES),
        "data/test-00000-of-00001.parquet": as_parquet(test, features=NEWS_FEATURES),
    }


# Glaive: one JSON list of system and chat, calls with their arguments in single quotes.
RATE = {"name": "rate", "description": "A rate, e.g. “€”.", "parameters": {"type": "object", "properties": {}}}
GLAIVE_BAD = 7


def glaive_row(n: int) -> tuple[dict[str, str], Talk]:
    """Every third one calls nothing, and row 7 makes a call that nobody could read."""
    if n % 3 == 0:
        system = "SYSTEM: You are a helpful assistant, with no access to external functions.\n"
        chat = f"USER: Why {n}?\n\n\nASSISTANT: Because:\n\n1. é\n2. {n} <|endoftext|>\n\n\n"
        preamble = "You are a helpful assistant, with no access to external functions."
        messages = [said("user", f"Why {n}?"), said("assistant", f"Because:\n\n1. é\n2. {n}")]
        return {"system": system, "chat": chat}, Talk([said("system", preamble), *messages], [])
    preamble = "You are a helpful assistant with access to the following functions. Use them if required"
    arguments = f'{{"from": "USD", "n": {n}}}' if n != GLAIVE_BAD else '{"from": '
    chat = (
        f"USER: Rate {n}?\n\n\n"
        f"""ASSISTANT: <functioncall> {{"name": "rate", "arguments": '{arguments}'}} <|endoftext|>\n\n\n"""
        f'FUNCTION RESPONSE: {{"rate": {n}.5}}\n\n\n'
        f"ASSISTANT: It is {n}.5. <|endoftext|>\n\n\nUSER: Thanks!\n\n\nASSISTANT: You're welcome! <|endoftext|>\n\n\n"
    )
    calling = {"role": "assistant", "content": None, "tool_calls": [as_call("rate", {"from": "USD", "n": n})]}
    messages = [
        *(said("system", preamble), said("user", f"Rate {n}?"), calling, said("tool", f'{{"rate": {n}.5}}')),
        *(said("assistant", f"It is {n}.5."), said("user", "Thanks!"), said("assistant", "You're welcome!")),
    ]
    system = f"SYSTEM: {preamble} -\n{json.dumps(RATE, indent=4, ensure_ascii=False)}\n"
    return {"system": system, "chat": chat}, Talk(messages, [{"type": "function", "function": RATE}])


# Jupyter Agent: parquet that gives every call the arguments of both tools, and a long notebook beside each trace.
CELL, FINAL = "add_and_execute_jupyter_code_cell", "final_answer"
NOTEBOOK = 2**18


def notebook_tool(name: str, argument: str) -> dict[str, Any]:
    properties = {argument: {"type": "string", "description": f"The {argument}."}}
    parameters = {"type": "object", "properties": properties, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": f"Calls {name}.", "parameters": parameters}}


TOOLS = [notebook_tool(CELL, "code"), notebook_tool(FINAL, "answer")]


def jupyter_row(n: int) -> tuple[dict[str, Any], Talk]:
    asked = said("user", f"You have access to data_{n}.csv.\n\nWhat is the mean?")
    ran = [
        {**said("assistant", f"Cell {at}.\n"), "tool_calls": [as_call(CELL, {"code": f"x = {at}\nx"})]}
        for at in range(n % 3)
    ]
    told = [said("tool", f"Out: {at}\n[Output is truncated as it is more than 10 lines]") for at in range(n % 3)]
    done = {**said("assistant", "Done — it is known.\n"), "tool_calls": [as_call(FINAL, {"answer": f"{n}"})]}
    messages = [asked, *(one for turn in zip(ran, told, strict=True) for one in turn), done]
    row = {
        "messages": [published_message(message) for message in messages],
        "id": f"0045/672/{n}.ipynb_qa_1",
        "edu_score": 4,
        "files_used": [f"/kaggle/input/data_{n}.csv"],
        "packages_used": ["pandas", "numpy"],
        "question": "What is the mean?",
        "answer": f"{n}",
        "kaggle_dataset_name": "owner/data",
        "executor_type": "e2b" if n % 2 else "llm",
        "original_notebook": random.Random(n).randbytes(NOTEBOOK).hex(),
        "tools": TOOLS,
    }
    return row, Talk(messages, TOOLS)


def published_message(message: dict[str, Any]) -> dict[str, Any]:
    calls = [{"function": call["function"]} for call in message.get("tool_calls", [])]
    return {"content": message["content"], "role": message["role"], "tool_calls": calls or None}


# MathCodeInstruct: lines of messages that are lists of blocks. More than the recipe draws, and one without an answer.
MATH_ROWS, MATH_BAD = 15_012, 5


def math_row(n: int) -> tuple[dict[str, Any], Talk]:
    blocks = [
        ("text", f"Add {n}."),
        ("code", f"{n} + 1"),
        ("execution", f"{n + 1}"),
        ("text", f"So $\\boxed{{{n + 1}}}$."),
    ]
    written = [{"type": kind, "content": text} for kind, text in blocks[: 3 if n == MATH_BAD else 4]]
    problem = f"What is {n} + 1?"
    asked = [
        {"role": role, "content": [{"type": "text", "content": text}]}
        for role, text in (("system", ""), ("user", problem))
    ]
    reasoning = f"Add {n}.\n\n```python\n{n} + 1\n```\n\n```output\n{n + 1}\n```"
    row = {"messages": [*asked, {"role": "assistant", "content": written}]}
    return row, Talk([said("user", problem), thought(reasoning, f"So $\\boxed{{{n + 1}}}$.")], [])


# SciBench: a JSON list, fewer rows than the recipe asks for; a quarter has a solution, some have no unit.
SCIENCE_ROWS = 28


def science_row(n: int) -> tuple[dict[str, Any], Talk]:
    unit, solution = ("$\\mathrm{atm}$ ", " ")[n % 3 == 0], (f"\r\nFirst\r\n{n}.", "")[n % 4 != 0]
    row = {
        "problem_text": f"Predict pressure {n}. ",
        "answer_latex": f" +{n}.50",
        "answer_number": f"+{n}.50",
        "unit": unit,
        "source": "atkins",
        "problemid": f" e1.17({n})",
        "comment": " ",
        "solution": solution,
    }
    question = f"Predict pressure {n}." + ("\n\nGive the answer in $\\mathrm{atm}$." if unit.strip() else "")
    answer = f"+{n}.50 $\\mathrm{{atm}}$" if unit.strip() else f"+{n}.50"
    return row, Talk([said("user", question), thought(f"First\n{n}." if solution else "", answer)], [])


# The Tulu mixtures: parquet of id, messages and source, of one question or several; one text spells a control token.
def tulu_row(n: int) -> tuple[dict[str, Any], Talk]:
    turns = [
        (said("user", f"Question {n}.{at}?"), said("assistant", f" Answer {n}.{at} 🐈\n")) for at in range(1 + n % 3)
    ]
    system = [said("system", f"Persona {n}")] if n % 5 == 0 else []
    messages = [*system, *(message for turn in turns for message in turn)]
    if n == 4:
        messages[-1] = said("assistant", "ChatML ends with <|im_end|>, others with <|endoftext|>.")
    return {"id": f"ai2-adapt-dev/flan_{n}", "messages": messages, "source": "ai2-adapt-dev/flan"}, Talk(messages, [])


def rows_and_talks(
    make: Callable[[int], tuple[dict[str, Any], Talk]], name: str, count: int, split: str = "train", bad: int = 0
) -> tuple[list[dict[str, Any]], dict[str, Talk]]:
    """Rows 1 to ``count``, and by id what each becomes, but for the bad one."""
    rows, talks = zip(*map(make, range(1, count + 1)), strict=True)
    return list(rows), {f"{name}/{split}:{n}": talk for n, talk in enumerate(talks, 1) if n != bad}


NEWS_TRAIN, NEWS_TEST = news_rows("train", 60), news_rows("test", 24)
GLAIVE_ROWS, GLAIVE_TALKS = rows_and_talks(glaive_row, GLAIVE, 61, bad=GLAIVE_BAD)
JUPYTER_ROWS, JUPYTER_TALKS = rows_and_talks(jupyter_row, JUPYTER, 40, "non_thinking")
MATH_LINES, MATH_TALKS = rows_and_talks(math_row, MATH, MATH_ROWS, bad=MATH_BAD)
SCIENCE_LIST, SCIENCE_TALKS = rows_and_talks(science_row, SCIENCE, SCIENCE_ROWS)
TULU_ROWS, TULU_TALKS = rows_and_talks(tulu_row, TULU, 40)
_, OLMO_TALKS = rows_and_talks(tulu_row, TULU_OLMO, 40)
TULU_FILES = {
    "README.md": card("train"),
    "data/train-00000-of-00002.parquet": as_parquet(TULU_ROWS[:25], group=10),
    "data/train-00001-of-00002.parquet": as_parquet(TULU_ROWS[25:]),
}
DATA_SETS = {
    NEWS: news_files(NEWS_TRAIN, NEWS_TEST),
    GLAIVE: {
        "README.md": b"---\nlicense: apache-2.0\n---\n",
        "glaive-function-calling-v2.json": json.dumps(GLAIVE_ROWS, indent=2).encode(),
    },
    JUPYTER: {
        "README.md": card("non_thinking", "thinking"),
        "data/non_thinking-00000-of-00002.parquet": as_parquet(JUPYTER_ROWS[:24], group=8),
        "data/non_thinking-00001-of-00002.parquet": as_parquet(JUPYTER_ROWS[24:], group=8),
        "data/thinking-00000-of-00001.parquet": as_parquet(JUPYTER_ROWS[:4]),
    },
    MATH: {"README.md": b"---\nlicense: apache-2.0\n---\n", "train_80k.jsonl": as_jsonl(MATH_LINES)},
    SCIENCE: {"README.md": b"---\nlicense: mit\n---\n", "dataset.json": json.dumps(SCIENCE_LIST).encode()},
    TULU: TULU_FILES,
    TULU_OLMO: TULU_FILES,
}
NEWS_TALKS = {
    f"{NEWS}/{side}:{n}": news_talk(row)
    for side, rows in (("train", NEWS_TRAIN), ("test", NEWS_TEST))
    for n, row in enumerate(rows, 1)
}
# What may come of each choice, and how many conversations there are to train on and to evaluate on. Only the tiny
# model gets all 15,000 problems of mathematics, the other 500.
EXPECTED: dict[str, tuple[dict[str, Talk], tuple[int, int]]] = {
    "ag_news": (NEWS_TALKS, (60, 24)),
    "glaive_function_calling": (GLAIVE_TALKS, (58, 2)),
    "jupyter_agent": (JUPYTER_TALKS, (39, 1)),
    "math_science": ({**MATH_TALKS, **SCIENCE_TALKS}, (13_525, 1_503)),
    "tulu3_sft_mixture": (TULU_TALKS, (40, 0)),
    "tulu3_sft_olmo2_mixture": (OLMO_TALKS, (40, 0)),
}


@dataclass(frozen=True)
class Family:
    """How a family's template writes calls, and what it puts around an assistant's turn and calls its own."""

    template: str
    eos: str
    bos: str | None = None
    controls: tuple[str, ...] = ()
    opening: str = ""
    closing: str = ""
    call: str = ""
    strips: bool = False
    key: str = "arguments"

    def learned(self, message: dict[str, Any]) -> str:
        calls = [call["function"] for call in message.get("tool_calls", [])]
        content = "" if self.key == "parameters" and calls else message["content"] or ""
        texts = [
            f'{{"name": "{one["name"]}", "{self.key}": {json.dumps(one["arguments"], ensure_ascii=False)}}}'
            for one in calls
        ]
        written = [self.call.format(text) for text in texts]
        if not content and written:
            written[0] = written[0].removeprefix("\n")
        return (
            self.opening + (content.strip() if self.strips else content) + "".join(written) + (self.closing or self.eos)
        )


TINY = Family("chatml", "<|im_end|>", call="<tool_call>{}</tool_call>")
FAMILIES = {
    "ag_news": Family("qwen2_5", "<|im_end|>", opening="\n", closing="<|im_end|>\n"),
    "glaive_function_calling": Family(
        "llama3_1",
        "<|eot_id|>",
        "<|begin_of_text|>",
        ("<|start_header_id|>", "<|end_header_id|>"),
        call="{}",
        strips=True,
        key="parameters",
    ),
    "jupyter_agent": Family(
        "qwen3_instruct_2507", "<|im_end|>", closing="<|im_end|>\n", call="\n<tool_call>\n{}\n</tool_call>"
    ),
    "math_science": Family(
        "deepseek_r1_distill_qwen",
        "<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>",
        ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
    ),
    "tulu3_sft_mixture": Family("tulu", "<|end_of_text|>", "<|begin_of_text|>"),
    "tulu3_sft_olmo2_mixture": Family("olmo2", "<|endoftext|>", "<|endoftext|>"),
}
CONFIG = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 512,
}


def as_model(folder: Path, tokenizer: Any, family: Family) -> Path:
    """A model's folder without weights, the tokenizer with the control tokens of the family."""
    tokens = {"eos_token": family.eos, **({"bos_token": family.bos} if family.bos else {})}
    tokenizer.add_special_tokens(tokens)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in family.controls])
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def family_words(choice: str, model: Path) -> list[str]:
    template = FAMILIES[choice].template
    return [f"data={choice}", "model=hub", f"model.name={model}", f"model.template={template}"]


def as_hub(data_sets: dict[str, dict[str, bytes]]) -> Hub:
    return Hub({name: Repository(files) for name, files in data_sets.items()})


def start(arguments: Sequence[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=folder,
        text=True,
    )


def start_probe(runs: dict[str, list[str]], environment: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    return start(["-c", PROBE, json.dumps(runs)], environment, folder)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), err + out
    return out


def as_prepared(out: str) -> dict[str, Prepared]:
    return {name: Prepared(**answer) for name, answer in json.loads(out).items()}


def tiny_words(folder: Path) -> list[str]:
    return ["model=tiny", "model.architecture.vocabulary_size=600", f"run_root={folder}/runs"]


def snapshot(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Every file but the ones that say when a set was used, and by whom."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "used" and file.suffix != ".lock"]
    return {file: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for file in files for stat in [file.stat()]}


@dataclass(frozen=True)
class Outcome:
    """The verb's words, the hub that it asked, what was opened afterwards, and the requests that were made for that."""

    said: str
    hub: Hub
    tiny: dict[str, Prepared]
    families: dict[str, Prepared]
    late_requests: int
    changed: set[Path]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, real_at_work) -> Outcome:
    folder = tmp_path_factory.mktemp("published")
    runs = {}
    for choice, family in FAMILIES.items():
        tokenizer = train_tokenizer([json.dumps([TULU_ROWS, GLAIVE_ROWS])], 400)
        runs[choice] = family_words(choice, as_model(folder / family.template, tokenizer, family))
    runs["math_science"].append("data.sources.math.rows=500")
    runs["thoughts by the template"] = [*runs["math_science"], "data.thinking=template"]
    with as_hub(DATA_SETS) as hub, as_hub(DATA_SETS) as other:
        words = ["-m", f"data={','.join(CHOICES)}", *tiny_words(folder)]
        verb = start(["-m", "ftx.data", "prepare", *words], hub.environment(folder / "home"), folder)
        elsewhere = {name: [*one, f"run_root={folder}/families"] for name, one in runs.items()}
        families = ended(start_probe(elsewhere, other.environment(folder / "other home"), folder))
        words_of_verb = ended(verb)
    before = snapshot(folder / "runs")
    with Hub() as empty:
        offline = empty.environment(folder / "home", offline=True)
        again = {choice: [f"data={choice}", *tiny_words(folder)] for choice in CHOICES}
        tiny = ended(start_probe(again, offline, folder))
    after = snapshot(folder / "runs")
    changed = {file for file in {*before, *after} if before.get(file) != after.get(file)}
    return Outcome(words_of_verb, hub, as_prepared(tiny), as_prepared(families), len(empty.requests), changed)


@pytest.mark.parametrize("model", ["tiny", "family"])
@pytest.mark.parametrize("choice", CHOICES)
def test_every_row_is_the_conversation_that_it_holds_and_on_one_side(choice, model, outcome):
    prepared = (outcome.tiny if model == "tiny" else outcome.families)[choice]
    talks, sizes = EXPECTED[choice]
    if (choice, model) == ("math_science", "family"):
        sizes = (475, 53)
    assert prepared.sizes() == sizes
    assert (prepared.counts["train_conversations"], prepared.counts["evaluation_conversations"]) == sizes
    assert len(prepared.talks) == sum(sizes)
    assert [(name, talk, talks.get(name)) for name, talk in prepared.talks.items() if talk != talks.get(name)][:2] == []
    for side in ("train", "held_out"):
        assert not prepared.learned[side].keys() ^ prepared.conversations[side].keys()
    left_out = {"skipped_rows": int(choice in ("glaive_function_calling", "math_science"))}
    left_out["not_drawn"] = len(talks) - sum(sizes)
    assert {name: prepared.counts[name] for name in prepared.counts if not name.startswith(("train", "eval"))} == {
        **dict.fromkeys(("dropped_too_long", "truncated", "filtered_out", "dropped_unsupervised"), 0),
        **dict.fromkeys(("split", "cut_tokens", "lost_reasoning", "refused"), 0),
        **left_out,
    }


@pytest.mark.parametrize("model", ["tiny", "family"])
@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_learned_is_each_answer_and_its_end_of_turn(choice, model, outcome):
    prepared, family = (outcome.tiny[choice], TINY) if model == "tiny" else (outcome.families[choice], FAMILIES[choice])
    for name, talk in prepared.talks.items():
        answers = [message for message in talk.messages if message["role"] == "assistant"]
        assert prepared.texts[name] == [family.learned(message) for message in answers], name
    ends = [end for side in prepared.learned.values() for runs in side.values() for _, end in runs]
    assert set(ends) == {1}


def test_the_test_split_of_the_news_is_what_is_held_out(outcome):
    prepared = outcome.tiny["ag_news"]
    held_out = [messages[1]["content"] for messages, _ in prepared.conversations["held_out"].values()]
    trained = [messages[1]["content"] for messages, _ in prepared.conversations["train"].values()]
    assert Counter(held_out) == Counter(f"Classify the following news article: {row['text']}" for row in NEWS_TEST)
    assert Counter(trained) == Counter(f"Classify the following news article: {row['text']}" for row in NEWS_TRAIN)


def test_of_the_notebooks_only_messages_and_tools_are_sent(outcome):
    files = {path: data for path, data in DATA_SETS[JUPYTER].items() if path.startswith("data/non")}
    for path, data in files.items():
        metadata = pyarrow.parquet.read_metadata(io.BytesIO(data))
        chunks = [
            metadata.row_group(g).column(c) for g in range(metadata.num_row_groups) for c in range(metadata.num_columns)
        ]
        needed = sum(
            one.total_compressed_size for one in chunks if one.path_in_schema.startswith(("messages.", "tools."))
        )
        assert len(data) > len(JUPYTER_ROWS) // 2 * NOTEBOOK
        assert needed < outcome.hub.sent(path) < 0.05 * len(data)
    assert outcome.hub.sent("data/thinking-00000-of-00001.parquet") == 0


def test_calls_of_notebooks_have_no_nulls_of_other_tools(outcome):
    talks = outcome.tiny["jupyter_agent"].talks.values()
    functions = [
        call["function"] for talk in talks for message in talk.messages for call in message.get("tool_calls", [])
    ]
    assert Counter((one["name"], *one["arguments"]) for one in functions) == {(CELL, "code"): 40, (FINAL, "answer"): 40}
    assert "null" not in json.dumps([talk.tools for talk in talks])


def test_calls_of_glaive_are_calls_and_their_answers_results(outcome):
    talks = outcome.tiny["glaive_function_calling"].talks.values()
    roles = Counter(message["role"] for talk in talks for message in talk.messages)
    calling = sum("functioncall" in row["chat"] for row in GLAIVE_ROWS) - 1
    assert calling == 40
    assert roles == {"system": 60, "user": 20 + 2 * calling, "assistant": 20 + 3 * calling, "tool": calling}
    assert "functioncall" not in json.dumps([talk.messages for talk in talks])
    name = f"{GLAIVE}/train:{GLAIVE_BAD}"
    assert f"warning: skipped: {name}: turn 2 (ASSISTANT): cannot read <functioncall>" in outcome.said


def test_thoughts_are_learned_as_the_choice_says_and_not_as_the_template_would(outcome):
    kept, stripped = outcome.families["math_science"], outcome.families["thoughts by the template"]
    assert all(re.match(r"<think>\n.*\n</think>\n\n.", text, re.DOTALL) for (text,) in kept.texts.values())
    assert not [text for (text,) in stripped.texts.values() if "think>" in text]
    assert len(stripped.texts) == 500 + SCIENCE_ROWS
    assert stripped.counts["lost_reasoning"] == 500 + SCIENCE_ROWS // 4
    assert [line for line in stripped.said if "lose reasoning in <think>" in line and "data.thinking=keep" in line]


def test_a_mixture_draws_as_many_as_asked_for_and_says_where_there_are_fewer(outcome):
    prepared = outcome.tiny["math_science"]
    drawn = Counter(name.partition("/train:")[0] for name in prepared.talks)
    assert drawn == {MATH: 15_000, SCIENCE: SCIENCE_ROWS}
    assert prepared.sizes()[1] == math.ceil((15_000 + SCIENCE_ROWS) * 0.1)
    held_out = Counter(name.partition("/train:")[0] for name in prepared.conversations["held_out"])
    assert held_out.keys() <= drawn.keys()
    few = "warning: data.sources.science.rows=10000: it has 28, all of which are taken"
    assert few in outcome.said.splitlines()
    assert "data.sources.math.rows" not in outcome.said
    assert f"skipped: {MATH}/train:{MATH_BAD}: messages must end with a text, the final answer" in outcome.said


def test_the_verb_says_what_it_prepared(outcome):
    folders = [
        Path(line.removeprefix("prepared: ")) for line in outcome.said.splitlines() if line.startswith("prepared: ")
    ]
    assert folders == [Path(outcome.tiny[choice].folder) for choice in CHOICES]
    sizes = re.findall(r"data: ([\d,]+) conversations to train on .* rows\), ([\d,]+) held out", outcome.said)
    assert [tuple(int(one.replace(",", "")) for one in pair) for pair in sizes] == [EXPECTED[one][1] for one in CHOICES]


def test_offline_all_of_it_is_there_and_nothing_is_asked_or_done_again(outcome):
    assert list(outcome.tiny) == list(CHOICES)
    assert outcome.late_requests == 0
    assert outcome.changed == set()
    assert [line for prepared in outcome.tiny.values() for line in prepared.said] == []


# Real rows in the published shapes.


def real_lines(name: str) -> list[dict[str, Any]]:
    content = (SHARED / name).read_bytes()
    content = gzip.decompress(content) if name.endswith(".gz") else content
    return [json.loads(line) for line in content.decode().splitlines()]


def real_news(name: str, count: int) -> list[dict[str, Any]]:
    with gzip.open(SHARED / "ag_news" / name, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [{"text": f"{title} {text}", "label": int(number) - 1} for number, title, text in rows[:count]]


def raw_glaive(row: dict[str, Any]) -> dict[str, str]:
    """The text that a parsed conversation was parsed from, by the README of the shared data."""
    chat = ""
    for turn in row["conversations"]:
        text = turn["value"]
        if turn["from"] == "function_call":
            call = json.loads(text)
            text = f"""<functioncall> {{"name": "{call["name"]}", "arguments": '{json.dumps(call["arguments"])}'}}"""
        speaker = {"human": "USER", "observation": "FUNCTION RESPONSE"}.get(turn["from"], "ASSISTANT")
        chat += f"{speaker}: {text}{' <|endoftext|>' if speaker == 'ASSISTANT' else ''}\n\n\n"
    tools = json.loads(row["tools"] or "[]")
    system = "You are a helpful assistant with access to the following functions. Use them if required -\n"
    functions = "\n".join(json.dumps(tool, indent=4) for tool in tools)
    return {
        "system": f"SYSTEM: {system}{functions}\n" if tools else "SYSTEM: You are a helpful assistant.\n",
        "chat": chat,
    }


def raw_math(row: dict[str, Any]) -> dict[str, Any]:
    asked = [one for one in row["messages"] if one["role"] in ("system", "user")]
    blocks = [{"type": one["role"], "content": one["content"]} for one in row["messages"][len(asked) :]]
    messages = [{"role": one["role"], "content": [{"type": "text", "content": one["content"]}]} for one in asked]
    return {"messages": [*messages, {"role": "assistant", "content": blocks}]}


@dataclass(frozen=True)
class Real:
    """The rows as they are kept, and what prepares them."""

    news: dict[str, list[dict[str, Any]]]
    glaive: list[dict[str, Any]]
    math: list[dict[str, Any]]
    science: list[dict[str, Any]]
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def real_at_work(tmp_path_factory) -> Iterator[Real | None]:
    """Started before all else, so that it works beside the others."""
    if not (SHARED / "README.md").exists():
        yield None
        return
    folder = tmp_path_factory.mktemp("real")
    news = {"train": real_news("train_part.csv.gz", 2000), "test": real_news("test.csv.gz", 2000)}
    glaive = json.loads((SHARED / "glaive/glaive_toolcall_en_demo.json").read_text(encoding="utf-8"))
    problems, science = real_lines("mathcoder/lce_solutions.jsonl.gz"), real_lines("scibench/scibench.jsonl")
    data_sets = {
        NEWS: news_files(news["train"], news["test"]),
        GLAIVE: {"glaive-function-calling-v2.json": json.dumps([raw_glaive(row) for row in glaive]).encode()},
        MATH: {"train_80k.jsonl": as_jsonl([raw_math(row) for row in problems])},
        SCIENCE: {"dataset.json": json.dumps(science).encode()},
    }
    # With Qwen's own tokenizer lengths are real. It takes seconds to load, so calls, which are few, do without.
    runs = {choice: family_words(choice, SHARED / "tokenizers/qwen3") for choice in ("ag_news", "math_science")}
    small = train_tokenizer([json.dumps(glaive[:50])], 1000)
    llama = as_model(folder / "llama", small, FAMILIES["glaive_function_calling"])
    runs["glaive_function_calling"] = [*family_words("glaive_function_calling", llama), "data.max_length=65536"]
    here = {choice: [*one, f"run_root={folder}/runs"] for choice, one in runs.items()}
    with as_hub(data_sets) as hub, start_probe(here, hub.environment(folder / "home"), folder) as process:
        yield Real(news, glaive, problems, science, process)
        process.kill()


@pytest.fixture(scope="module")
def real(real_at_work) -> Real:
    if real_at_work is None:
        pytest.skip(f"needs the real data in FTX_SHARED_DATA (looked in {SHARED})")
    return real_at_work


@pytest.fixture(scope="module")
def prepared_real(real) -> dict[str, Prepared]:
    return as_prepared(ended(real.process))


def test_real_news_are_all_there_with_their_classes(real, prepared_real):
    prepared = prepared_real["ag_news"]
    assert prepared.sizes() == (2000, 2000)
    assert (prepared.counts["truncated"], prepared.counts["dropped_unsupervised"]) == (0, 0)
    for side, split in (("train", "train"), ("held_out", "test")):
        learned = {name: text for name, ((text, _),) in prepared.learned[side].items()}
        for n, row in enumerate(real.news[split], 1):
            assert learned[f"{NEWS}/{split}:{n}"] == f'\n{{"category":"{LABELS[row["label"]]}"}}<|im_end|>\n'


def test_real_calls_of_glaive_arrive_with_their_arguments(real, prepared_real):
    prepared = prepared_real["glaive_function_calling"]
    assert len(real.glaive) == 300
    assert prepared.sizes() == (294, 6)
    assert prepared.counts["skipped_rows"] == prepared.counts["truncated"] == 0
    for name, talk in prepared.talks.items():
        turns = real.glaive[int(name.rpartition(":")[2]) - 1]["conversations"]
        expected = [one for turn in turns if turn["from"] == "function_call" for one in [json.loads(turn["value"])]]
        calls = [call["function"] for message in talk.messages for call in message.get("tool_calls", [])]
        assert calls == expected
        results = [message["content"] for message in talk.messages if message["role"] == "tool"]
        assert results == [turn["value"].strip() for turn in turns if turn["from"] == "observation"]
        answers = [message for message in talk.messages if message["role"] == "assistant"]
        assert prepared.texts[name] == [FAMILIES["glaive_function_calling"].learned(one) for one in answers]


def test_real_problems_are_thought_about_before_they_are_answered(real, prepared_real):
    prepared = prepared_real["math_science"]
    usable = [row for row in real.math if row["messages"][-1]["role"] == "text"]
    assert (len(usable), len(real.science)) == (2808, 692)
    assert prepared.sizes() == (3150, 350)
    assert prepared.counts["skipped_rows"] == 1
    few = "data.sources.science.rows=10000: it has 692, all of which are taken"
    assert few in prepared.said
    whole = 0
    for name, (learned,) in prepared.texts.items():
        source, _, number = name.partition("/train:")
        if source == MATH:
            answer = real.math[int(number) - 1]["messages"][-1]["content"].strip()
        else:
            row = real.science[int(number) - 1]
            answer = re.sub(r"\s+", " ", f"{row['answer_number']} {row['unit']}").strip().replace("\N{MINUS SIGN}", "-")
        assert learned.startswith("<think>\n")
        _, end, after = learned.partition("\n</think>\n\n")
        whole += end != ""
        assert (end, after) in (("", ""), ("\n</think>\n\n", f"{answer}{FAMILIES['math_science'].eos}"))
    assert whole == 3500 - prepared.counts["truncated"]
    assert prepared.counts["truncated"] < 5
