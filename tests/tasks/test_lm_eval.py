"""The harness on our model, with tasks defined here: what it scores is what plain forward passes give."""

import json

import pytest
import torch
import yaml
from scored_alone import scored_alone

from ftx.config.compose import compose
from ftx.data.conversation import Conversation
from ftx.data.prepare import prepare
from ftx.data.tokenize import stop_ids, tokenize_questions
from ftx.errors import UserError
from ftx.generation import generate
from ftx.models import load_model
from ftx.statistics import wilson
from ftx.tasks import lm_eval

pytestmark = pytest.mark.usefixtures("one_thread")

QUESTIONS = [f"count to {number}" for number in range(12)]
CHOICES = ["one", "two words", "3"]


def write_task(folder, name: str, **settings) -> None:
    rows = [{"q": question, "gold": at % 3, "text": CHOICES[at % 3]} for at, question in enumerate(QUESTIONS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{q}}",
        **settings,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A random model, what was prepared for it, and two tasks of the harness: one that chooses, one that writes."""
    folder = tmp_path_factory.mktemp("harness")
    rows = [{"prompt": question, "completion": "1 2 3"} for question in QUESTIONS]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_task(
        folder,
        "chooses",
        output_type="multiple_choice",
        doc_to_choice=CHOICES,
        doc_to_target="gold",
        metric_list=[{"metric": "acc"}],
    )
    write_task(
        folder,
        "writes",
        output_type="generate_until",
        doc_to_target="{{text}}",
        generation_kwargs={"until": ["<never>"], "max_gen_toks": 6, "do_sample": False},
        metric_list=[{"metric": "exact_match"}],
    )
    again = yaml.safe_load((folder / "chooses.yaml").read_text())
    (folder / "again.yaml").write_text(yaml.safe_dump({**again, "task": "again", "doc_to_target": "{{2 - gold}}"}))
    group = {"group": "both", "task": ["chooses", "again"], "aggregate_metric_list": [{"metric": "acc"}]}
    (folder / "both.yaml").write_text(yaml.safe_dump(group))
    run = composed(folder)
    prepared = prepare(run)
    return folder, load_model(run, prepared.tokenizer), prepared


def composed(folder, *words: str):
    return compose(
        *("data=jsonl", f"data.path={folder}/chats.jsonl", f"run_root={folder}", "evaluation.tasks=[lm_eval]"),
        *("model.architecture.vocabulary_size=320", "model.architecture.hidden_size=32"),
        *(f"evaluation.lm_eval.include_path={folder}", "evaluation.lm_eval.tasks=[chooses,writes]"),
        *words,
    )


def prompts(prepared, chat: bool) -> list[list[int]]:
    if not chat:
        return prepared.tokenizer(QUESTIONS, add_special_tokens=False)["input_ids"]
    asked = [Conversation(question, ({"role": "user", "content": question},)) for question in QUESTIONS]
    return tokenize_questions(asked, prepared.tokenizer, prepared.template)


@torch.no_grad()
def likeliest(model, tokenizer, prompt: list[int], between: str) -> int:
    """Of the choices, by the summed log-probability of its tokens."""
    sums = []
    for choice in CHOICES:
        tokens = tokenizer(between + choice, add_special_tokens=False)["input_ids"]
        logits = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
        sums.append(sum(float(logits[len(prompt) + at - 1, token]) for at, token in enumerate(tokens)))
    return max(range(len(CHOICES)), key=sums.__getitem__)


@pytest.mark.parametrize("chat", [True, False])
def test_choices_and_answers_are_those_of_the_model(place, chat):
    folder, model, prepared = place
    evaluation = composed(folder, f"evaluation.lm_eval.chat={chat}").evaluation
    result = scored_alone(lm_eval, model, prepared, evaluation)
    chosen = [likeliest(model, prepared.tokenizer, p, "" if chat else " ") for p in prompts(prepared, chat)]
    right = [choice == at % 3 for at, choice in enumerate(chosen)]
    expected = {"value": pytest.approx(sum(right) / 12), "n": 12, "ci95": pytest.approx(list(wilson(sum(right), 12)))}
    assert result.scores["chooses.acc"] == expected
    by_id = {one["id"]: one for one in result.predictions}
    assert [by_id[f"chooses/{at}"]["correct"] for at in range(12)] == right
    generated = generate(
        model,
        prompts(prepared, chat),
        max_new_tokens=6,
        batch_size=4,
        stop_ids=stop_ids(prepared.tokenizer, prepared.template) if chat else [prepared.tokenizer.eos_token_id],
        pad_id=prepared.tokenizer.pad_token_id or 0,
    )
    texts = prepared.tokenizer.batch_decode(generated, skip_special_tokens=True)
    assert [by_id[f"writes/{at}"]["predicted"] for at in range(12)] == [[text] for text in texts]
    assert result.scores["writes.exact_match"]["value"] == 0
    assert result.scores["writes.exact_match"]["ci95"] == pytest.approx(list(wilson(0, 12)))
    assert len(by_id) == 24


def test_a_group_has_the_scores_of_its_tasks_and_their_mean(place):
    folder, model, prepared = place
    evaluation = composed(folder, "evaluation.lm_eval.tasks=[both]").evaluation
    lm_eval.check(prepared, evaluation)
    result = scored_alone(lm_eval, model, prepared, evaluation)
    assert set(result.scores) == {"chooses.acc", "again.acc", "both.acc"}
    each = [result.scores[f"{name}.acc"]["value"] for name in ("chooses", "again")]
    both = result.scores["both.acc"]
    assert (both["value"], both["n"]) == (pytest.approx(sum(each) / 2), 24)
    low, high = both["ci95"]
    assert low < both["value"] < high
    assert len(result.predictions) == len({one["id"] for one in result.predictions}) == 24


def test_a_limit_is_one_on_the_questions_of_each_task(place):
    folder, model, prepared = place
    evaluation = composed(folder, "evaluation.limit=5").evaluation
    assert [item.id for item in lm_eval.items(prepared, evaluation)] == ["chooses[:5]", "writes[:5]"]
    result = scored_alone(lm_eval, model, prepared, evaluation)
    assert {score["n"] for score in result.scores.values()} == {5}


def test_the_model_is_left_as_it_was(place):
    folder, model, prepared = place
    model.train()
    before = model.generation_config, model.config._attn_implementation
    scored_alone(lm_eval, model, prepared, composed(folder, "evaluation.limit=1").evaluation)
    assert (model.generation_config, model.config._attn_implementation) == before
    assert model.training
    model.eval()


def test_a_task_that_cannot_be_loaded_is_told_before_training(place, tmp_path):
    folder, _, prepared = place
    write_task(tmp_path, "broken", output_type="multiple_choice", dataset_kwargs={"data_files": {"test": "no.jsonl"}})
    words = f"evaluation.lm_eval.include_path={tmp_path}", "evaluation.lm_eval.tasks=[broken]"
    with pytest.raises(UserError, match=r"evaluation\.lm_eval\.tasks=\[broken\]: cannot be loaded"):
        lm_eval.check(prepared, composed(folder, *words).evaluation)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation.lm_eval.tasks=[]"], "evaluation.lm_eval.tasks is empty"),
        (["evaluation.engine=openai", "evaluation.url=http://x/v1", "schedule.epochs=0"], "needs the model itself"),
        (["evaluation.tasks=[loss]"], "nothing in this run reads it, evaluation.tasks has no lm_eval"),
    ],
)
def test_words_that_do_not_fit(place, words, message):
    with pytest.raises(UserError, match=message):
        composed(place[0], *words)
