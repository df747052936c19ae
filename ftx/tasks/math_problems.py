"""The problems that the task math asks: of a file or a data set on the hub, or what the run held out."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ftx.config.evaluation_schema import MathConfig
from ftx.config.schema import SourceConfig
from ftx.data.cache import root_of
from ftx.data.conversation import Conversation
from ftx.data.formats import to_conversation
from ftx.tasks.question_rows import read_questions, told_of

if TYPE_CHECKING:
    from ftx.data.prepare import Prepared

SECTION = "evaluation.math"
# The column that says what a problem is about, in the order of preference.
KINDS = ("subject", "source", "benchmark", "type", "level")
# What the name of a metric cannot have, which the kind becomes a part of.
_NOT_IN_NAMES = re.compile(r"[^\w./ -]")


def problems(prepared: "Prepared", config: MathConfig) -> Iterator[tuple[Conversation, str]]:
    """Problems, and of what kind each is: by its row, or by where it was held out from."""
    if config.path is not None:
        yield from read_problems(config, root_of(prepared.folder))
        return
    for conversation in prepared.held_out:
        yield conversation, _NOT_IN_NAMES.sub("_", conversation.id.rpartition(":")[0])


def read_problems(config: MathConfig, cache: Path) -> Iterator[tuple[Conversation, str]]:
    """Those of ``evaluation.math.path``; raises UserError for a row that is none."""
    source = SourceConfig(
        path=str(config.path), subset=config.subset, split=config.split, revision=config.revision, format=config.format
    )
    with told_of(SECTION):
        for where, row in read_questions(SECTION, source, cache):
            kind = next((str(row.value[name]) for name in KINDS if row.value.get(name)), "")
            yield to_conversation(row, where, config.format), _NOT_IN_NAMES.sub("_", kind)


def check_first_problem(config: MathConfig, cache: Path) -> None:
    """Raise UserError for a file that cannot be read, or whose first row is no problem."""
    next(read_problems(config, cache))
