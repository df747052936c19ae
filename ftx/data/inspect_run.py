"""``python -m ftx.data inspect``: a run's prepared data as a report with tables and figures."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ftx.config.data_checks import SHUFFLED
from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.data.conversation import Conversation
from ftx.data.conversation_store import ConversationStore
from ftx.data.inspection import (
    Side,
    class_balance,
    class_figure,
    class_table,
    coloured,
    length_figure,
    length_table,
    markdown,
    overlap_table,
    printable,
)
from ftx.data.order import order_of
from ftx.data.overlap import overlap
from ftx.data.prepare import Counts, Prepared, prepare
from ftx.data.render import render
from ftx.data.store import RowStore
from ftx.figures import save
from ftx.progress import Progress, say
from ftx.writing import write_text

LEFT_OUT = {
    "skipped_rows": "bad rows skipped",
    "filtered_out": "rows left out by data.filter or a transform",
    "refused": "conversations skipped that the template cannot render",
    "dropped_too_long": "conversations dropped, longer than data.max_length",
    "dropped_unsupervised": "… dropped, as cutting left nothing supervised",
    "truncated": "… truncated",
    "split": "… split",
    "cut_tokens": "tokens cut away by that",
    "not_drawn": "conversations beyond data.limit, rows or weight",
    "lost_reasoning": "conversations whose reasoning the template leaves out",
}


def inspect_run(run: RunConfig, *, colour: bool) -> str:
    """Prepare the data where it is not yet, write report.md and figures beside it, and return what to print."""
    prepared = prepare(run)
    folder = Path(run.run_root) / "data" / f"{run.name}-{prepared.folder.name[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    train = _side(prepared.train, _tokens_of_rows(prepared, run))
    evaluation = _side(prepared.evaluation, prepared.evaluation.token_counts()[:, 0])
    save(length_figure(train, evaluation, run.data.max_length), folder / "lengths")
    parts = [
        f"# {run.name}\n\nPrepared: {prepared.folder}\n",
        length_table(train, evaluation, run.data.max_length),
        _left_out_table(prepared.counts),
    ]
    classes = class_balance(_answers(prepared.train_conversations))
    if classes is not None:
        held_out_classes = class_balance(_answers(prepared.held_out)) or {}
        save(class_figure(classes, held_out_classes), folder / "classes")
        parts.append(class_table(classes, held_out_classes))
    if ranks(run) > 1:
        parts.append(_balance_table(prepared, run))
    with Progress("compare", len(prepared.train_conversations), unit="conversation", delay=1) as progress:
        found = overlap(prepared.train_conversations.in_file_order(), prepared.held_out, on_done=progress.show)
    parts.append(overlap_table(found))
    sample = _sample(prepared, colour=False)
    write_text(folder / "report.md", "\n".join([*parts, sample]) + "\n")
    say(f"inspection: {folder}")
    return "\n".join([*parts[1:], _sample(prepared, colour=colour)]) + "\n"


def _side(rows: RowStore, row_tokens: np.ndarray) -> Side:
    tokens = rows.tokens
    return Side(tokens.lengths[rows.members], tokens.supervised[rows.members], row_tokens)


def _tokens_of_rows(prepared: Prepared, run: RunConfig) -> np.ndarray:
    """Of the rows that enter the model; where each step packs its own, of those of the first epoch."""
    tokens = prepared.train.token_counts()[:, 0]
    order = order_of(run, prepared)
    steps = range(order.steps_per_epoch)
    return np.array([tokens[row].sum() for step in steps for row in order.rows(0, step)])


def _left_out_table(counts: Counts) -> str:
    values = asdict(counts)
    return markdown(("left out or cut", "count"), [(text, f"{values[name]:,}") for name, text in LEFT_OUT.items()])


def _balance_table(prepared: Prepared, run: RunConfig) -> str:
    """How evenly the ranks of this hardware share the work of a step: 100 % is no waiting."""
    rows = []
    for order in SHUFFLED:
        plan = order_of(replace(run, data=replace(run.data, order=order)), prepared)
        shares = [balance(plan.loads(0, step)) for step in range(plan.steps_per_epoch)]
        rows.append((f"data.order={order}", f"{100 * np.mean(shares):.1f} %", f"{100 * np.min(shares):.1f} %"))
    return markdown((f"mean / most work of {ranks(run)} ranks in a step", "mean", "worst step"), rows)


def balance(loads: np.ndarray) -> float:
    """Mean over largest of what the ranks that share a step have to compute."""
    return float(np.mean(loads) / np.max(loads))


def _answers(conversations: ConversationStore) -> Iterator[str]:
    return (_last_answer(conversation) for conversation in conversations.in_file_order())


def _last_answer(conversation: Conversation) -> str:
    last = next(message for message in reversed(conversation.messages) if message["role"] == "assistant")
    return str(last.get("content") or json.dumps(last.get("tool_calls")))


def _sample(prepared: Prepared, *, colour: bool) -> str:
    """The first training conversation as the model sees it."""
    conversation = prepared.train_conversations[0]
    rendered = render(conversation, prepared.template, prepared.tokenizer.special_tokens_map)
    how = "green" if colour else "between ⟦ and ⟧"
    title = f"{printable(conversation.id)}, by template {prepared.template.name}; learned is what is {how}:"
    return f"{title}\n\n{coloured(rendered.pieces, colour)}"
