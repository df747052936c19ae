"""Calls of functions: questions of the Berkeley board, or every turn of the held-out conversations that have tools."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.data.conversation import Conversation
from ftx.data.formats.glaive_written import written_as_glaive
from ftx.data.formats.tools import as_call, read_functions
from ftx.data.prepare import Prepared
from ftx.errors import UserError
from ftx.tasks.asking import ask
from ftx.tasks.bfcl import Question, read_board
from ftx.tasks.call_rules import as_accepted, calls_agree, names_agree
from ftx.tasks.rates import rate
from ftx.tasks.task import Item, Keep, Record, TaskInput, TaskResult
from ftx.tool_calls import Call, read_calls

MAX_NEW_TOKENS = 512
# The board's names of types, by which arguments are judged, as JSON Schema has them, by which models are asked.
_JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
_PROBE = {"type": "function", "function": {"name": "probe_of_tools", "parameters": {"type": "object"}}}


def check(prepared: Prepared, evaluation: EvaluationConfig) -> None:
    """Raise UserError where there is nothing to ask, or a template that cannot ask it."""
    from ftx.data.tokenize import stop_ids

    stop_ids(prepared.tokenizer, prepared.template)
    if evaluation.function_calling.form == "native" and not _shows_tools(prepared):
        raise UserError(
            f"evaluation.function_calling.form=native: template '{prepared.template.name}' has no place for tools; use "
            "form=auto or glaive"
        )
    if next(_questions(prepared, evaluation), None) is None:
        raise UserError(
            "evaluation.tasks=[function_calling]: no held-out conversation has tools; give "
            "evaluation.function_calling.path=FOLDER of the Berkeley board, or use another task"
        )


def items(prepared: Prepared, evaluation: EvaluationConfig) -> list[Item]:
    form = _form(prepared, evaluation)
    return [_item(question, form) for question in _questions(prepared, evaluation)][: evaluation.limit]


def answer(given: TaskInput, items: Sequence[Item], keep: Keep) -> None:
    ask(given, items, keep, task="function_calling", max_new_tokens=MAX_NEW_TOKENS)


def score(items: Sequence[Item], records: Sequence[Record], evaluation: EvaluationConfig) -> TaskResult:
    """Accuracy, over all and by category, and where it is lost: names, then arguments, then calls out of place.

    ``name_accuracy`` is over what needs calls, ``argument_accuracy`` over those of them whose names are right,
    ``false_call_rate`` over what needs none.
    """
    predictions = [_prediction(item, record) for item, record in zip(items, records, strict=True)]
    calling = [one for one in predictions if one["gold"]]
    named = [one for one in calling if one["names_right"]]
    silent = [one for one in predictions if not one["gold"]]
    scores = {
        "accuracy": rate(one["correct"] for one in predictions),
        "unparsable_rate": rate(one["predicted"] is None for one in predictions),
    }
    if calling:
        scores["name_accuracy"] = rate(one["names_right"] for one in calling)
    if named:
        scores["argument_accuracy"] = rate(one["correct"] for one in named)
    if silent:
        scores["false_call_rate"] = rate(bool(one["predicted"]) for one in silent)
    for category in sorted({one["category"] for one in predictions}):
        scores[f"accuracy.{category}"] = rate(one["correct"] for one in predictions if one["category"] == category)
    return TaskResult(scores, predictions)


def _prediction(item: Item, record: Record) -> dict[str, Any]:
    """What cannot be read calls nothing, as on the board; a question that was not answered is wrong in any case."""
    calls = [Call(**call) for call in record["calls"]] if "calls" in record else read_calls(record["text"])
    accepted = item.gold["accepted"]
    is_right = calls_agree(calls or (), accepted, item.gold["declared"])
    return {
        "id": item.id,
        "category": item.gold["category"],
        "gold": accepted,
        "predicted": None if calls is None else [asdict(call) for call in calls],
        "names_right": names_agree(calls or (), accepted),
        "correct": is_right and record["finish"] != "failed",
        "text": record["text"],
    }


def _questions(prepared: Prepared, evaluation: EvaluationConfig) -> Iterator[Question]:
    if evaluation.function_calling.path is not None:
        yield from read_board(Path(evaluation.function_calling.path))
        return
    for conversation in prepared.held_out:
        if conversation.tools:
            yield from turns_of(conversation)


def turns_of(conversation: Conversation) -> Iterator[Question]:
    """Each turn of the assistant, with the true history before it: the calls that it makes, or that it makes none."""
    functions = tuple(tool["function"] for tool in read_functions(list(conversation.tools)))
    for at, message in enumerate(conversation.messages):
        if message["role"] != "assistant" or not any(before["role"] == "user" for before in conversation.messages[:at]):
            continue
        calls = [Call(**as_call("tool_calls", call)["function"]) for call in message.get("tool_calls") or []]
        accepted = tuple(map(as_accepted, calls))
        # Some gold calls break their own declaration; they are right all the same.
        declared = functions if calls_agree(calls, accepted, functions) else ()
        kind = "parallel" if len(calls) > 1 else "multiple" if len(functions) > 1 else "simple"
        yield Question(
            f"{conversation.id}#{at}",
            kind if calls else "no_call",
            conversation.messages[:at],
            functions,
            accepted,
            declared,
        )


def _item(question: Question, form: str) -> Item:
    tools = tuple({"type": "function", "function": _as_json_schema(function)} for function in question.functions)
    gold = {"category": question.category, "accepted": list(question.accepted), "declared": question.declared}
    if form == "glaive":
        return Item(question.id, written_as_glaive(question.messages, tools), gold=gold)
    return Item(question.id, question.messages, tools, gold)


def _as_json_schema(declared: Any) -> Any:
    if isinstance(declared, Mapping):
        return {
            key: _JSON_TYPES.get(value, value) if key == "type" and isinstance(value, str) else _as_json_schema(value)
            for key, value in declared.items()
        }
    return [_as_json_schema(inner) for inner in declared] if isinstance(declared, list) else declared


def _form(prepared: Prepared, evaluation: EvaluationConfig) -> str:
    """A server has a template of its own, which is taken to know tools."""
    if evaluation.function_calling.form != "auto":
        return evaluation.function_calling.form
    return "native" if evaluation.engine == "openai" or _shows_tools(prepared) else "glaive"


def _shows_tools(prepared: Prepared) -> bool:
    """Some templates refuse tools, and some leave them out without a word."""
    from ftx.data.render import render_question

    asked = Conversation("probe", ({"role": "user", "content": "?"},), (_PROBE,))
    try:
        rendered = render_question(asked, prepared.template, prepared.tokenizer.special_tokens_map)
    except UserError:
        return False
    return "probe_of_tools" in rendered.text
