"""Rows that are made up where ``debug=tiny`` replaces a data set: in its own raw format, one function for each.

The functions take a source of randomness and give a row as the published files have it. The same split of the same
format is the same rows on every machine.
"""

import hashlib
import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

from ftx.config.keys import did_you_mean
from ftx.config.made_up import MADE_UP, ROWS, kind_of
from ftx.config.schema import SourceConfig
from ftx.data.made_up.chats import make_alpaca, make_messages, make_prompt_completion, make_sharegpt
from ftx.data.made_up.glaive import make_glaive_v2
from ftx.data.made_up.news import make_ag_news
from ftx.data.made_up.notebooks import make_jupyter_agent
from ftx.data.made_up.problems import make_gsm8k, make_mathcodeinstruct, make_scibench
from ftx.errors import UserError

MAKERS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "messages": make_messages,
    "prompt_completion": make_prompt_completion,
    "sharegpt": make_sharegpt,
    "alpaca": make_alpaca,
    "glaive_v2": make_glaive_v2,
    "jupyter_agent": make_jupyter_agent,
    "mathcodeinstruct": make_mathcodeinstruct,
    "scibench": make_scibench,
    "ag_news": make_ag_news,
    "gsm8k": make_gsm8k,
}


def made_up_rows(source: SourceConfig) -> list[dict[str, Any]]:
    """All rows of the source's split; raises UserError for a format that nobody makes up."""
    kind = kind_of(source.path)
    if kind not in MAKERS:
        known = [MADE_UP + name for name in MAKERS]
        raise UserError(
            f"data.path={source.path}: nothing is made up under this name{did_you_mean(source.path, known)}; there are "
            f"{', '.join(known)}"
        )
    rows: list[dict[str, Any]] = json.loads(_text(kind, source.split))
    return rows


def made_up_content(source: SourceConfig) -> str:
    """A hash of the rows."""
    made_up_rows(source)
    return hashlib.sha256(_text(kind_of(source.path), source.split).encode()).hexdigest()


@cache
def _text(kind: str, split: str) -> str:
    """As JSON, which nobody can change by accident."""
    draw = random.Random(f"{kind} {split}")
    return json.dumps([MAKERS[kind](draw) for _ in range(ROWS)], ensure_ascii=False)
