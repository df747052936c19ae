"""Rows that a task asks about instead of what the run held out: of a file here, or of a data set on the hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path

from ftx.config.made_up import is_made_up
from ftx.config.schema import SourceConfig
from ftx.data.files import read_rows
from ftx.data.hub import read_hub_rows
from ftx.data.made_up import made_up_rows
from ftx.data.rows import BadRow, Row
from ftx.data.sources import hub_split, is_file
from ftx.errors import UserError


def read_questions(section: str, source: SourceConfig, cache: Path) -> Iterator[tuple[Path | str, Row]]:
    """Every row and where it is from; raises UserError for a bad one.

    ``section`` has the user's keys for the source (``evaluation.math``); in ``cache`` the hub's answers are remembered.
    """
    with told_of(section):
        where: Path | str
        if is_file(source):
            where = Path(source.path)
            rows = read_rows(where, columns=source.columns or None)
        elif is_made_up(source.path):
            where, rows = f"{source.path}/{source.split}", starmap(Row, enumerate(made_up_rows(source), 1))
        else:
            split = hub_split(source, f"{section}.path", cache)
            where, rows = f"{split.name}/{split.split}", read_hub_rows(split, None)
        for row in rows:
            if isinstance(row, BadRow):
                raise row
            yield where, row


@contextmanager
def told_of(section: str) -> Iterator[None]:
    """Within it a mistake in what would be a key of ``data`` is told of the same key of ``section``."""
    try:
        yield
    except BadRow as bad:
        raise UserError(f"{section}.path: {bad}; mend it") from bad
    except UserError as error:
        if not str(error).startswith("data."):
            raise
        raise UserError(f"{section}.{str(error).removeprefix('data.')}") from error
