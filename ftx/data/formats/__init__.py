"""From rows to conversations: one pure function per format, in one small file per family of formats.

The functions per format take a row without its null keys and give messages and tools. They raise ``ValueError`` with
the reason alone; ``to_conversation`` adds the file and the line.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftx.data.conversation import Conversation
from ftx.data.formats.alpaca import read_alpaca
from ftx.data.formats.chat import read_messages, read_prompt_completion
from ftx.data.formats.checks import Parts, check_has_answer, keys_of, required
from ftx.data.formats.glaive import read_glaive_v2
from ftx.data.formats.jupyter import read_jupyter_agent
from ftx.data.formats.news import read_ag_news
from ftx.data.formats.problems import read_gsm8k, read_mathcodeinstruct, read_scibench
from ftx.data.formats.sharegpt import read_sharegpt
from ftx.data.rows import BadRow, Row
from ftx.errors import UserError

FORMATS: dict[str, Callable[[dict[str, Any]], Parts]] = {
    "messages": read_messages,
    "prompt_completion": read_prompt_completion,
    "sharegpt": read_sharegpt,
    "alpaca": read_alpaca,
    "glaive_v2": read_glaive_v2,
    "jupyter_agent": read_jupyter_agent,
    "mathcodeinstruct": read_mathcodeinstruct,
    "scibench": read_scibench,
    "ag_news": read_ag_news,
    "gsm8k": read_gsm8k,
}

_RECOGNISED = (
    "recognised without data.format: messages, prompt + completion, conversations of from + value, "
    "instruction + output, question + answer with ####"
)


# The columns of a data set that a format reads, those that it cannot do without first.
FORMAT_COLUMNS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "tools"),
    "prompt_completion": ("prompt", "completion", "tools"),
    "sharegpt": ("conversations", "system", "tools"),
    "alpaca": ("instruction", "output", "input", "system", "history", "tools"),
    "glaive_v2": ("text", "system", "chat"),
    "jupyter_agent": ("messages", "tools"),
    "mathcodeinstruct": ("messages",),
    "scibench": ("problem_text", "answer_number", "unit", "solution"),
    "ag_news": ("text", "label", "class", "title", "description"),
    "gsm8k": ("question", "answer"),
}


def to_conversation(row: Row, where: Path | str, format: str = "auto", group_by: str | None = None) -> Conversation:
    """The conversation that a row holds; ``BadRow`` where it holds none that can be learned from.

    ``where`` the row was found: a file, or the split of a data set.

    A key whose value is null counts as absent, as parquet writes absent keys: in the row, and in each message.
    ``group_by`` names the column whose value keeps rows on one side of the held-out split.
    """
    if format != "auto" and format not in FORMATS:
        raise UserError(f"data.format={format}: must be one of auto, {', '.join(FORMATS)}")
    present = {key: value for key, value in row.value.items() if value is not None}
    try:
        messages, tools = FORMATS[detect(present) if format == "auto" else format](present)
        check_has_answer(messages)
        group = _group(present, group_by) if group_by else ""
    except ValueError as error:
        raise BadRow(where, row.number, str(error)) from None
    return Conversation(
        id=f"{where.name if isinstance(where, Path) else where}:{row.number}",
        messages=messages,
        tools=tools,
        group=group,
    )


def detect(row: dict[str, Any]) -> str:
    """The format of a row without null keys, where its shape leaves no doubt. ``messages`` goes before all others."""
    if "messages" in row:
        return "messages"
    fitting = {
        "prompt_completion": "prompt" in row and "completion" in row,
        "sharegpt": _has_sharegpt_turns(row.get("conversations")),
        "alpaca": "instruction" in row and "output" in row,
        "gsm8k": "question" in row and isinstance(row.get("answer"), str) and "####" in row["answer"],
    }
    found = [name for name, fits in fitting.items() if fits]
    if len(found) > 1:
        raise ValueError(f"fits more than one format; say data.format={' or data.format='.join(found)}")
    if not found:
        raise ValueError(f"unknown shape of row: it has {keys_of(row)}; {_RECOGNISED}; with it: {', '.join(FORMATS)}")
    return found[0]


def _has_sharegpt_turns(turns: Any) -> bool:
    if isinstance(turns, str):
        return turns.lstrip().startswith("[") and '"from"' in turns
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and {"from", "value"} <= set(turns[0])


def _group(row: dict[str, Any], column: str) -> str:
    group = str(required(row, column)).strip()
    if not group:
        raise ValueError(f"{column}, the column to group by, is empty")
    return group
