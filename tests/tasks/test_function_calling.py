"""The task function_calling: what is asked in which form, and the scores of answers that are known."""

import json

import pytest
from bfcl_calls import CATEGORIES, function_of, right_call
from known_answer import holding_out, model_that_says, tokens_of
from real_data import real_path, real_rows
from scored_alone import scored_alone

from ftx.config.compose import compose
from ftx.config.evaluation_schema import EvaluationConfig, FunctionCallingConfig
from ftx.data.conversation import Conversation
from ftx.data.formats import to_conversation
from ftx.data.formats.glaive import read_glaive_v2
from ftx.data.formats.glaive_written import written_as_glaive
from ftx.data.rows import Row
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.errors import UserError
from ftx.preflight import check_tasks
from ftx.statistics import wilson
from ftx.tasks import function_calling
from ftx.tool_calls import Call

TOKENIZER = train_tokenizer(["[f(x=1)]", "assistant\n", "What is f of ?"] * 9, 400)
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}},
}
OTHER = {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def calling(*calls: tuple[str, dict]) -> dict:
    made = [{"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    return {"role": "assistant", "content": None, "tool_calls": made}


TALK = Conversation(
    "talks.jsonl:1",
    (
        {"role": "system", "content": "Be brief."},
        user("What is f of 1?"),
        calling(("f", {"x": 1})),
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
        user("And of 2, and g?"),
        calling(("f", {"x": 2}), ("g", {})),
    ),
    (TOOL, OTHER),
)


def test_every_turn_of_the_assistant_is_asked_with_the_true_history(tmp_path):
    silent = Conversation("talks.jsonl:2", (user("Hello"), {"role": "assistant", "content": "Hi"}))
    prepared = holding_out(tmp_path, [TALK, silent], TOKENIZER, "qwen3")
    items = function_calling.items(prepared, EvaluationConfig())
    assert [(item.id, item.gold["category"], item.gold["accepted"]) for item in items] == [
        ("talks.jsonl:1#2", "multiple", [{"f": {"x": [1]}}]),
        ("talks.jsonl:1#4", "no_call", []),
        ("talks.jsonl:1#6", "parallel", [{"f": {"x": [2]}}, {"g": {}}]),
    ]
    assert [item.messages for item in items] == [TALK.messages[:at] for at in (2, 4, 6)]
    assert all(item.tools == (TOOL, OTHER) for item in items)
    assert len(function_calling.items(prepared, EvaluationConfig(limit=2))) == 2


def test_a_model_that_always_calls_f_of_1_is_right_where_that_is_asked_for(tmp_path):
    talks = [
        TALK,
        Conversation("talks.jsonl:2", (user("f of 3?"), calling(("f", {"x": 3}))), (TOOL,)),
        Conversation("talks.jsonl:3", (user("f of 1?"), calling(("f", {"x": 1}))), (TOOL,)),
    ]
    prepared = holding_out(tmp_path, talks, TOKENIZER, "qwen3")
    evaluation = EvaluationConfig(batch_size=2, max_new_tokens=24)
    function_calling.check(prepared, evaluation)
    model = model_that_says(TOKENIZER, tokens_of(TOKENIZER, "[f(x=1)]<|im_end|>"))
    result = scored_alone(function_calling, model, prepared, evaluation)
    counts = {
        "accuracy": (2, 5),
        "unparsable_rate": (0, 5),
        "name_accuracy": (3, 4),
        "argument_accuracy": (2, 3),
        "false_call_rate": (1, 1),
        "accuracy.multiple": (1, 1),
        "accuracy.no_call": (0, 1),
        "accuracy.parallel": (0, 1),
        "accuracy.simple": (1, 2),
    }
    assert result.scores == {
        name: {"value": pytest.approx(right / n), "n": n, "ci95": pytest.approx(list(wilson(right, n)))}
        for name, (right, n) in counts.items()
    }
    assert result.predictions[0] == {
        "id": "talks.jsonl:1#2",
        "category": "multiple",
        "gold": [{"f": {"x": [1]}}],
        "predicted": [{"name": "f", "arguments": {"x": 1}}],
        "names_right": True,
        "correct": True,
        "text": "[f(x=1)]",
    }


def verdict(item, **record) -> tuple[bool, bool, bool]:
    """Whether it is right, its names are, and it can be read."""
    kept = {"id": item.id, "text": "", "finish": "stop", **record}
    (one,) = function_calling.score([item], [kept], EvaluationConfig()).predictions
    return one["correct"], one["names_right"], one["predicted"] is not None


def test_how_one_answer_is_judged(tmp_path):
    prepared = holding_out(tmp_path, [TALK], TOKENIZER, "qwen3")
    first, silent, both = function_calling.items(prepared, EvaluationConfig())
    assert verdict(first, text="[f(x=1)]") == (True, True, True)
    assert verdict(first, text="[f(x=2)]") == (False, True, True)
    assert verdict(first, text="[g()]") == (False, False, True)
    assert verdict(first, text="I would rather not.") == (False, False, True)
    assert verdict(first, text="<tool_call>f") == (False, False, False)
    assert verdict(first, text="It is 3.", calls=[{"name": "f", "arguments": {"x": 1}}]) == (True, True, True)
    assert verdict(first, text="[f(x=1)]", calls=[]) == (False, False, True)
    assert verdict(both, text="[g(), f(x=2)]") == (True, True, True)
    assert verdict(silent, text="It is 3.") == (True, True, True)
    assert verdict(silent, text="[f(x=1)]")[0] is False
    assert verdict(silent, finish="failed")[0] is False


@pytest.mark.parametrize(
    ("template", "form", "is_native"),
    [
        ("qwen3", "auto", True),
        ("llama3_1", "auto", True),
        ("deepseek_r1_distill_qwen", "auto", False),
        ("plain", "auto", False),
        ("qwen3", "glaive", False),
    ],
)
def test_tools_go_where_the_template_has_a_place_for_them(tmp_path, template, form, is_native):
    prepared = holding_out(tmp_path, [TALK], TOKENIZER, template)
    evaluation = EvaluationConfig(function_calling=FunctionCallingConfig(form=form))
    item = function_calling.items(prepared, evaluation)[0]
    assert bool(item.tools) is is_native
    assert ('"name": "f"' in item.messages[0]["content"]) is not is_native


def test_a_form_that_the_template_has_no_place_for_is_refused(tmp_path):
    prepared = holding_out(tmp_path, [TALK], TOKENIZER, "plain")
    with pytest.raises(UserError, match=r"form=native: template 'plain' has no place for tools; use form=auto"):
        function_calling.check(prepared, EvaluationConfig(function_calling=FunctionCallingConfig(form="native")))


def test_held_out_data_without_tools_is_refused(tmp_path):
    prepared = holding_out(tmp_path, [Conversation("a:1", TALK.messages)], TOKENIZER, "qwen3")
    with pytest.raises(UserError, match="no held-out conversation has tools"):
        function_calling.check(prepared, EvaluationConfig())


def test_what_is_written_as_glaive_is_read_back():
    speakers = {"system": "SYSTEM", "user": "USER", "assistant": "ASSISTANT"}
    for number, row in enumerate(real_rows("glaive/glaive_toolcall_en_demo.json"), 1):
        talk = to_conversation(Row(number, row), "demo")
        written = written_as_glaive(talk.messages, talk.tools)
        assert {message["role"] for message in written} <= set(speakers)
        text = "\n\n\n".join(
            said if said.startswith("FUNCTION RESPONSE:") else f"{speakers[message['role']]}: {said}"
            for message in written
            for said in [message["content"]]
        )
        messages, tools = read_glaive_v2({"text": text})
        assert tools == talk.tools
        assert [one.get("tool_calls") for one in messages[1:]] == [one.get("tool_calls") for one in talk.messages]
        assert [(one["content"] or "").strip() for one in messages[1:]] == [
            (one["content"] or "").strip() for one in talk.messages
        ]


def test_gold_turns_of_glaive_score_100_per_cent(tmp_path):
    rows = real_rows("glaive/glaive_toolcall_en_demo.json")
    talks = [to_conversation(Row(number, row), "demo") for number, row in enumerate(rows, 1)]
    prepared = holding_out(tmp_path, talks, TOKENIZER, "qwen3")
    items = function_calling.items(prepared, EvaluationConfig())
    assert sum(item.gold["category"] != "no_call" for item in items) == 211
    turns = {f"{talk.id}#{at}": message for talk in talks for at, message in enumerate(talk.messages)}
    golds = [[Call(**call["function"]) for call in turns[item.id].get("tool_calls", [])] for item in items]
    records = [
        {"id": item.id, "text": as_tool_calls(calls), "finish": "stop"}
        for item, calls in zip(items, golds, strict=True)
    ]
    result = function_calling.score(items, records, EvaluationConfig())
    assert result.scores["accuracy"]["value"] == 1
    assert result.scores["false_call_rate"]["value"] == 0


def as_tool_calls(calls: list[Call]) -> str:
    bodies = [json.dumps({"name": call.name, "arguments": call.arguments}) for call in calls]
    return "\n".join(f"<tool_call>\n{body}\n</tool_call>" for body in bodies) or "No call is needed."


@pytest.fixture
def board(tmp_path):
    """The board's items, and how they are asked."""
    prepared = holding_out(tmp_path, [], TOKENIZER, "qwen3")
    evaluation = EvaluationConfig(function_calling=FunctionCallingConfig(path=str(real_path("bfcl"))))
    function_calling.check(prepared, evaluation)
    return function_calling.items(prepared, evaluation), evaluation


def test_the_boards_possible_answers_score_100_per_cent_through_the_task(board):
    items, evaluation = board
    golds = [
        [right_call(gold, function_of(item.gold["declared"], gold), None) for gold in item.gold["accepted"]]
        for item in items
    ]
    records = [
        {"id": item.id, "text": as_tool_calls(calls), "finish": "stop"}
        for item, calls in zip(items, golds, strict=True)
    ]
    scores = function_calling.score(items, records, evaluation).scores
    assert scores["accuracy"]["n"] == len({item.id for item in items}) == 1040
    assert {f"accuracy.{name}" for name in (*CATEGORIES, "irrelevance")} <= set(scores)
    faults = {"unparsable_rate", "false_call_rate"}
    assert all(score["value"] == (name not in faults) for name, score in scores.items())
    silent = [{**record, "text": "None of them fits."} for record in records]
    assert function_calling.score(items, silent, evaluation).scores["accuracy"]["value"] == 240 / 1040


def test_models_are_asked_in_json_schemas_words(board):
    items, _ = board

    def types_in(value) -> set[str]:
        if isinstance(value, dict):
            own = {value["type"]} if isinstance(value.get("type"), str) else set()
            return own.union(*map(types_in, value.values()))
        return set().union(*map(types_in, value)) if isinstance(value, list) else set()

    schemas = [tool["function"]["parameters"] for item in items for tool in item.tools]
    assert types_in(schemas) == {"object", "array", "string", "number", "integer", "boolean"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no questions of the board in it"),
        ({"irrelevance.jsonl": "{}\n"}, r"irrelevance\.jsonl:1: is no object with id"),
        ({"irrelevance.jsonl": "{\n"}, r"irrelevance\.jsonl:1: not valid JSON"),
        ({"question/simple.jsonl": '{"id": "a"}\n'}, r"simple\.jsonl has no possible answers, .* is missing"),
        (
            {"simple.jsonl": '{"id": "a"}', "possible_answer/simple.jsonl": '{"id": "b", "ground_truth": []}'},
            "has no answer to a",
        ),
        ({"BFCL_v4_irrelevance.json": '{"id": "a"}\n'}, "a is no question of the board"),
    ],
)
def test_a_folder_that_is_not_the_boards_is_told_at_once(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    run = compose("data=tulu3_sft_mixture", "evaluation=bfcl", f"evaluation.function_calling.path={tmp_path}")
    with pytest.raises(UserError, match=message):
        check_tasks(run)


def test_categories_of_another_kind_are_named(tmp_path, ftx_log):
    question = {"id": "irrelevance_1", "question": [[user("?")]], "function": []}
    (tmp_path / "BFCL_v4_irrelevance.json").write_text(json.dumps(question) + "\n")
    (tmp_path / "BFCL_v4_multi_turn_base.json").write_text("{}\n")
    check_tasks(compose("evaluation=bfcl", f"evaluation.function_calling.path={tmp_path}"))
    assert "left out: multi_turn_base" in ftx_log.text
