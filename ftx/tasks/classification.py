"""One label of a few, answered as JSON with one key (``{"area":"network"}``); an answer of another form is wrong."""

import json
from collections.abc import Collection

from ftx.data.conversation import Conversation
from ftx.data.prepare import Prepared
from ftx.data.tokenize import stop_ids, tokenize_prompts
from ftx.errors import UserError
from ftx.figures import confusion_matrix
from ftx.generation import generate
from ftx.progress import Progress
from ftx.tasks.classification_scores import score_classification
from ftx.tasks.task import TaskInput, TaskResult

# Room for an answer that is wrong at length before it is cut off.
SPARE_TOKENS = 8


def check(prepared: Prepared) -> None:
    """Raise UserError, before anything is trained, for held-out data or a template that cannot be scored so."""
    for conversation in prepared.held_out:
        gold_label(conversation)
    stop_ids(prepared.tokenizer, prepared.template)


def score(given: TaskInput) -> TaskResult:
    """Generate an answer to every held-out question and compare; every label that was held out is a valid answer."""
    tokenizer, template = given.prepared.tokenizer, given.prepared.template
    gold = [gold_label(conversation) for conversation in given.conversations]
    key = next(iter(json.loads(gold_text(given.conversations[0]))))
    valid = {gold_label(conversation) for conversation in given.prepared.held_out}
    encoded = tokenize_prompts(given.conversations, tokenizer, template)
    answers = tokenizer([gold_text(one) for one in given.conversations], add_special_tokens=False)["input_ids"]
    with Progress("score classification", len(encoded), unit="item") as progress:
        generated = generate(
            given.model,
            encoded,
            max_new_tokens=max(map(len, answers)) + SPARE_TOKENS,
            batch_size=given.batch_size,
            stop_ids=stop_ids(tokenizer, template),
            pad_id=tokenizer.pad_token_id or 0,
            on_done=progress.show,
        )
    texts = tokenizer.batch_decode(generated, skip_special_tokens=False)
    predicted = [read_label(text, key, valid) for text in texts]
    labels = sorted({*gold, *(answer for answer in predicted if answer is not None)})
    result = score_classification(gold, predicted, labels)
    predictions = [
        {"id": one.id, "gold": right, "predicted": answer, "text": text}
        for one, right, answer, text in zip(given.conversations, gold, predicted, texts, strict=True)
    ]
    figure = confusion_matrix(result.confusion, result.labels, result.columns, "Held-out answers")
    return TaskResult(result.as_scores(), predictions, {"classification.confusion": figure})


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
