"""The model in this process: what it draws, what it cannot be asked, and that nobody else's question matters."""

from dataclasses import replace

import pytest
import small_model
import torch
from scipy.stats import chisquare
from small_model import QUESTIONS, TEMPLATE, asked

from ftx.data.conversation import Conversation
from ftx.data.tokenize import tokenize_questions
from ftx.engines import local
from ftx.engines.continuous import ContinuousEngine
from ftx.engines.local import LocalEngine
from ftx.generation import Draw, generate

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENIZER = small_model.tokenizer()


@pytest.fixture(scope="module")
def model():
    return small_model.model(len(TOKENIZER))


def engine(model, batch_size: int = 4) -> LocalEngine:
    return LocalEngine(model, TOKENIZER, TEMPLATE, batch_size)


def texts(answers) -> list[str]:
    return [answer.text for answer in answers]


def test_each_answer_is_heard_once_as_it_comes(model):
    heard = {}
    requests = [asked(question, question) for question in QUESTIONS]
    answers = engine(model, 2).answer(requests, heard.__setitem__)
    assert [heard[place] for place in range(len(QUESTIONS))] == answers
    assert all(answer.began <= answer.ended for answer in answers)
    prompts = [len(one) for one in tokenize_questions([of(request) for request in requests], TOKENIZER, TEMPLATE)]
    assert [answer.prompt_tokens for answer in answers] == prompts


def of(request) -> Conversation:
    return Conversation(request.id, request.messages, request.tools)


def test_limits_of_each_question_are_kept(model):
    answers = engine(model).answer([asked(question, max_new_tokens=at + 1) for at, question in enumerate(QUESTIONS)])
    whole = engine(model).answer([asked(question) for question in QUESTIONS])
    for limit, (answer, long) in enumerate(zip(answers, whole, strict=True), 1):
        assert answer.tokens == min(limit, long.tokens)
        assert answer.finish == ("length" if limit <= long.tokens else "stop")


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_what_is_drawn_depends_on_seed_and_id_alone(model, top_p):
    def drawn(seed: int, order: int, batch_size: int) -> dict[str, str]:
        requests = [asked(text, text, temperature=1.3, top_p=top_p, seed=seed) for text in QUESTIONS][::order]
        answers = engine(model, batch_size).answer(requests)
        return {request.id: answer.text for request, answer in zip(requests, answers, strict=True)}

    first = drawn(7, 1, 1)
    assert drawn(7, 1, 5) == drawn(7, -1, 2) == first
    assert drawn(8, 1, 5) != first
    twins = engine(model).answer([asked("legs?", name, temperature=1.3, seed=7) for name in ("a", "b")])
    assert twins[0].text != twins[1].text


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.0, 1.0), (1.0, 0.6)])
def test_tokens_come_as_often_as_the_softmax_says(model, temperature, top_p):
    """The first token, drawn 2,000 times, against its probabilities from a plain forward pass."""
    prompt, n = [5, 6, 7, 8], 2000
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    expected = (logits / temperature).softmax(-1)
    ordered, order = expected.sort(descending=True)
    dropped = order[(ordered.cumsum(0) - ordered) >= top_p]
    expected[dropped] = 0
    expected /= expected.sum()
    draws = [Draw(asked("", str(number)).drawn_by, temperature, top_p) for number in range(n)]
    drawn = generate(model, [prompt] * n, max_new_tokens=1, batch_size=n, stop_ids=[], pad_id=0, draws=draws)
    counts = torch.bincount(torch.tensor(drawn)[:, 0], minlength=len(expected)).double()
    assert counts[dropped].sum() == 0
    often = expected * n >= 8
    seen = torch.cat([counts[often], counts[~often].sum()[None]])
    wanted = torch.cat([expected[often], expected[~often].sum()[None]]) * n
    kept = wanted > 0
    assert chisquare(seen[kept], wanted[kept]).pvalue > 1e-4


def test_what_cannot_be_asked_is_counted_and_holds_nobody_up(model):
    too_long = asked("how many legs? " * 200, "long")
    fine = asked("legs?", "fine")
    plain = LocalEngine(model, TOKENIZER, TEMPLATE, 4)
    answers = plain.answer([too_long, fine, replace(fine, messages=({"content": "no role"},))])
    assert [answer.finish == "failed" for answer in answers] == [True, False, True]
    assert answers[0].error.startswith("too long: ")
    assert answers[0].error.endswith("the model takes 256")
    assert answers[2].error
    assert answers[1].text == plain.answer([fine])[0].text


def test_an_answer_ends_with_the_models_last_position(model):
    questions = [asked(f"how many legs? {'eight ' * times}", str(times), max_new_tokens=200) for times in (1, 40)]
    for answer in engine(model).answer(questions):
        assert answer.tokens == min(200, 256 - answer.prompt_tokens) or answer.finish == "stop"
        assert answer.prompt_tokens + answer.tokens <= 256


def test_where_a_batch_does_not_fit_smaller_ones_are_tried(model, monkeypatch, caplog):
    """A device that has room for two prompts at a time, and not for the longest one at all."""
    whole = engine(model).answer([asked(question) for question in QUESTIONS])
    longest = max(range(len(QUESTIONS)), key=lambda at: len(QUESTIONS[at]))
    real = local.generate

    def with_little_room(model, prompts, **settings):
        if settings["batch_size"] > 2 or max(map(len, prompts)) >= whole[longest].prompt_tokens:
            raise torch.cuda.OutOfMemoryError
        return real(model, prompts, **settings)

    monkeypatch.setattr(local, "generate", with_little_room)
    answers = engine(model).answer([asked(question) for question in QUESTIONS])
    assert answers[longest].error == f"out of memory with {whole[longest].prompt_tokens} tokens alone"
    assert [text for at, text in enumerate(texts(answers)) if at != longest] == [
        text for at, text in enumerate(texts(whole)) if at != longest
    ]
    assert "4 prompts at once do not fit into memory; going on with 2" in caplog.text


@pytest.mark.parametrize("batch_size", [1, 3])
def test_continuous_batching_gives_the_same_answers(model, batch_size):
    requests = [asked(question, question) for question in QUESTIONS]
    heard = {}
    answers = ContinuousEngine(model, TOKENIZER, TEMPLATE, batch_size).answer(requests, heard.__setitem__)
    alone = engine(model, 1).answer(requests)
    assert texts(answers) == texts(alone)
    assert [(one.tokens, one.finish) for one in answers] == [(one.tokens, one.finish) for one in alone]
    assert heard == dict(enumerate(answers))
