"""What a real model goes on to write, for any batch size, on one rank and two, and after a kill in the middle."""

import json
import os
from pathlib import Path

import pytest
from run_records import scored
from transformers import AutoTokenizer
from verb_process import Verb, start, until

from ftx.environment import CHECKOUT
from ftx.run_folder import RunFolder

SHARED_DATA = Path(os.environ.get("FTX_SHARED_DATA", CHECKOUT.parent / "shared" / "data"))
STORIES = SHARED_DATA / "stories260k"
MOST = 60

pytestmark = pytest.mark.skipif(not STORIES.is_dir(), reason=f"needs {STORIES}: set FTX_SHARED_DATA")


@pytest.fixture(scope="module")
def story() -> str:
    return (STORIES / "greedy_reference.txt").read_text()


@pytest.fixture(scope="module")
def beginnings(tmp_path_factory, story) -> Path:
    """Questions that are the reference story's first words, ever more of them; answers for the scorer to compare."""
    path = tmp_path_factory.mktemp("stories") / "beginnings.jsonl"
    words = story.split(" ")
    rows = [{"prompt": " ".join(words[:count]), "completion": '{"story":"one"}'} for count in range(3, 27, 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scoring(place, beginnings: Path, *words: object) -> Verb:
    """The base model is scored, by a process of its own."""
    model = (
        "model=hub",
        f"model.name={STORIES / 'hf'}",
        "model.template=plain",
        "schedule.epochs=0",
        "schedule.global_batch_size=2",
    )
    data = ("data=jsonl", f"data.path={beginnings}", "data.holdout=11", "data.packing=false")
    asked = ("evaluation.tasks=[classification,loss]", f"evaluation.max_new_tokens={MOST}", "hardware.threads=1")
    here = (f"run_root={place.runs}", f"tracking.uri={place.uri}")
    return start("train", *model, *data, *asked, *here, *words, into=place.path / "said")


def written(folder: RunFolder) -> dict[str, str]:
    """Each question's id and what the model wrote."""
    lines = folder.predictions("classification").read_text().splitlines()
    return {record["id"]: record["text"] for record in map(json.loads, lines)}


def as_the_reference(folder: RunFolder, beginnings: Path, story: str) -> bool:
    """The tokens of question and answer are the story's; every question was answered once."""
    tokenizer = AutoTokenizer.from_pretrained(STORIES / "hf")
    questions = [json.loads(line)["prompt"] for line in beginnings.read_text().splitlines()]
    texts = written(folder)
    assert len(texts) == 11
    for name, text in texts.items():
        question = questions[int(name.rpartition(":")[2]) - 1]
        # Its tokenizer drops the space that an answer begins with.
        whole, reference = ("".join(one.split()) for one in (question + text, story))
        assert reference.startswith(whole[: len(reference)])
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) >= MOST - 2
    return True


@pytest.fixture(scope="module")
def alone(new_place, beginnings) -> RunFolder:
    """Scored by one process, eight questions at a time."""
    place = new_place()
    ended = scoring(place, beginnings, "evaluation.batch_size=8").ended()
    assert ended.code == 0, ended
    return place.folder()


def test_in_one_process(alone, beginnings, story):
    assert as_the_reference(alone, beginnings, story)


@pytest.mark.parametrize("batch_size", [1, pytest.param(3, marks=pytest.mark.long)])
def test_two_ranks_share_the_questions(place, beginnings, alone, story, batch_size):
    ended = scoring(place, beginnings, "hardware.processes_per_node=2", f"evaluation.batch_size={batch_size}").ended()
    assert ended.code == 0, ended
    folder = place.folder()
    assert as_the_reference(folder, beginnings, story)
    assert written(folder) == written(alone)
    assert about_the_same(folder, alone)
    for task in ("classification", "loss"):
        shares = [
            sum(map(bool, file.read_text().splitlines())) for file in folder.predictions_folder(task).glob("records-*")
        ]
        assert len(shares) == 2
        assert max(shares) - min(shares) <= 1


def about_the_same(one: RunFolder, other: RunFolder) -> bool:
    """The loss is summed in other batches: up to rounding."""
    first, second = scored(one), scored(other)
    assert first["classification"] == second["classification"]
    for name, entry in first["loss"].items():
        assert entry["value"] == pytest.approx(second["loss"][name]["value"], rel=1e-5)
        assert entry["n"] == second["loss"][name]["n"] == 11
    return True


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_killed_in_the_middle_nothing_is_asked_twice(place, beginnings, alone, ranks):
    """Whatever was answered before is kept, to the byte, and the rest is answered: also by another number of ranks."""
    run = scoring(place, beginnings, "evaluation.batch_size=1")
    until(lambda: len(records(place)) >= 3, run, "three answers")
    run.killed()
    before = records(place)
    assert len(before) < 11
    ended = scoring(place, beginnings, f"hardware.processes_per_node={ranks}").ended()
    assert ended.code == 0, ended
    after = records(place)
    assert set(before) <= set(after)
    assert len({json.loads(line)["record"]["id"] for line in after}) == len(after) == 11
    assert written(place.folder()) == written(alone)


def records(place) -> list[str]:
    files = sorted(place.runs.glob("*/predictions/classification/records-*.jsonl"))
    return [line for file in files for line in file.read_text().splitlines() if line]
