"""One label of a few, answered as JSON with one key (``{"area":"network"}``); an answer of another form is wrong."""

import json
from collections.abc import Collection, Sequence

from ftx.config.engine_checks import ELSEWHERE
from ftx.config.evaluation_schema import EvaluationConfig
from ftx.data.conversation import Conversation
from ftx.data.prepare import Prepared
from ftx.errors import UserError
from ftx.tasks.asking import ask
from ftx.tasks.task import Item, Keep, Record, TaskInput, TaskResult

# Room for an answer that is wrong at length before it is cut off.
SPARE_TOKENS = 8


def check(prepared: Prepared, evaluation: EvaluationConfig) -> None:
    """Raise UserError, before anything is trained, for held-out data or a template that cannot be scored so."""
    from ftx.data.tokenize import stop_ids

    for conversation in prepared.held_out:
        gold_label(conversation)
    stop_ids(prepared.tokenizer, prepared.template)
    if evaluation.classification.by == "likelihood" and evaluation.engine in ELSEWHERE:
        raise UserError(
            f"evaluation.engine={evaluation.engine}: evaluation.classification.by=likelihood needs the model's own "
            "probabilities; use by=generation, or evaluation.engine=transformers"
        )


def items(prepared: Prepared, evaluation: EvaluationConfig) -> list[Item]:
    """Every held-out question, with its label and all labels: each that was held out is a valid answer."""
    from ftx.data.render import before_the_answer

    answers = {gold_label(conversation): gold_text(conversation) for conversation in prepared.held_out}
    return [
        Item(
            conversation.id,
            before_the_answer(conversation).messages,
            conversation.tools,
            gold={"label": gold_label(conversation), "answers": answers},
        )
        for conversation in prepared.held_out[: evaluation.limit]
    ]


def answer(given: TaskInput, items: Sequence[Item], keep: Keep) -> None:
    """Records have the ``text`` of an answer, or the log-likelihood of each label's."""
    if given.evaluation.classification.by == "likelihood":
        from ftx.tasks.likelihood import likeliest_answers

        likeliest_answers(given, items, items[0].gold["answers"], keep)
        return
    tokenizer = given.prepared.tokenizer
    texts = tokenizer(list(items[0].gold["answers"].values()), add_special_tokens=False)["input_ids"]
    ask(given, items, keep, task="classification", max_new_tokens=max(map(len, texts)) + SPARE_TOKENS)


def score(items: Sequence[Item], records: Sequence[Record], evaluation: EvaluationConfig) -> TaskResult:
    """Accuracy, F1 and confusions; an answer that names no label is wrong and counted as invalid."""
    from ftx.figures import confusion_matrix
    from ftx.tasks.classification_scores import score_classification

    answers = items[0].gold["answers"]
    key = next(iter(json.loads(next(iter(answers.values())))))
    gold = [item.gold["label"] for item in items]
    predicted = [read_record(record, key, answers) for record in records]
    labels = sorted({*gold, *(label for label in predicted if label is not None)})
    result = score_classification(gold, predicted, labels)
    predictions = [
        {
            "id": item.id,
            "gold": right,
            "predicted": label,
            "correct": label == right,
            **{name: record[name] for name in ("text", "likelihoods") if name in record},
        }
        for item, right, label, record in zip(items, gold, predicted, records, strict=True)
    ]
    figure = confusion_matrix(result.confusion, result.labels, result.columns, "Held-out answers")
    return TaskResult(result.as_scores(), predictions, {"classification.confusion": figure})


def read_record(record: Record, key: str, labels: Collection[str]) -> str | None:
    """The label that a record stands for."""
    if "likelihoods" in record:
        return max(record["likelihoods"], key=record["likelihoods"].__getitem__)
    return read_label(record["text"], key, labels)


def gold_text(conversation: Conversation) -> str:
    """The last thing the assistant says."""
    last = next(message for message in reversed(conversation.messages) if message["role"] == "assistant")
    return str(last["content"])


def gold_label(conversation: Conversation) -> str:
    """The label in the held-out answer; raises UserError for data that is no classification."""
    try:
        (label,) = json.loads(gold_text(conversation)).values()
    except (json.JSONDecodeError, AttributeError, ValueError) as error:
        raise UserError(
            f"evaluation.tasks=[classification]: the answer of {conversation.id} is not a JSON object with one key; "
            "use evaluation.tasks=[loss]"
        ) from error
    return str(label)


def read_label(text: str, key: str, labels: Collection[str]) -> str | None:
    """The label that an answer names, None where it is not exactly the asked-for JSON."""
    try:
        # An object as its pairs: a key given twice is two of them.
        answer = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, tuple) or len(answer) != 1 or answer[0][0] != key or str(answer[0][1]) not in labels:
        return None
    return str(answer[0][1])
