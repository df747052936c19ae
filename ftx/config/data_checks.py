"""What the words say of data, checked across its keys."""

import re
from importlib.metadata import entry_points
from pathlib import Path

from ftx.config.keys import did_you_mean
from ftx.config.schema import RunConfig, SourceConfig
from ftx.config.schema_keys import FORMATS
from ftx.errors import UserError

# What data.order says without looking at a column or a function.
SHUFFLED = ("balanced", "random")
PLAIN_ORDERS = (*SHUFFLED, "source", "shortest_first", "longest_first")
COLUMN_ORDER = "column:"
FILE_NAME = re.compile(r"\.(jsonl?|ndjson|csv|tsv|parquet)(\.gz)?$", re.IGNORECASE)
# The group of entry points that a user's own orders come in by.
ORDERS = "ftx.orders"


def looks_like_a_file(path: str) -> bool:
    """Whether a source's path means a file here; else it names a data set on the hub."""
    if path.startswith(("/", ".", "~")) or path.count("/") > 1 or FILE_NAME.search(path):
        return True
    return Path(path).exists()


def has_held_out_source(run: RunConfig) -> bool:
    """Whether the conversations for evaluation come from a source of their own."""
    return run.data.holdout_path is not None or run.data.holdout_split is not None


def check_data(run: RunConfig) -> None:
    """Raise UserError for keys of ``data`` that do not fit together."""
    data = run.data
    if 0.9 < data.holdout < 1 or (data.holdout >= 1 and data.holdout != int(data.holdout)):
        raise UserError(
            f"data.holdout={data.holdout}: a share of at most 0.9, or from 1 on a whole number of conversations"
        )
    if data.source == "stdlib_docs" and data.holdout >= 1:
        raise UserError(f"data.holdout={data.holdout:g}: data=stdlib_docs keeps a share aside; write one below 1")
    if data.order == COLUMN_ORDER or data.order.removeprefix(COLUMN_ORDER) in ("", "-"):
        raise UserError(f"data.order={data.order}: write column:NAME, or column:-NAME for the highest first")
    if data.source == "hub" and data.path and looks_like_a_file(data.path):
        raise UserError(f"data.path={data.path}: is a file, and data=hub reads data sets on the hub; say data=jsonl")
    known = [*PLAIN_ORDERS, *(point.name for point in entry_points(group=ORDERS))]
    before_colon = data.order.partition(":")[0] + ":"
    misspelt_column = before_colon != COLUMN_ORDER and bool(did_you_mean(before_colon, [COLUMN_ORDER]))
    if misspelt_column or (":" not in data.order and data.order not in known):
        guess = did_you_mean(data.order.replace("-", "_"), known)
        raise UserError(
            f"data.order={data.order}: no such order{guess}; there are {', '.join(known)}, column:NAME, MODULE:FUNCTION"
        )
    if data.source == "stdlib_docs" and data.order not in PLAIN_ORDERS:
        raise UserError(f"data.order={data.order}: data=stdlib_docs has no columns; choose {', '.join(PLAIN_ORDERS)}")
    if data.packing and data.packing_scope == "global_batch" and data.order not in SHUFFLED:
        raise UserError(
            f"data.packing_scope=global_batch: not with data.order={data.order}, which packs what comes next; leave "
            "one of them out"
        )
    if data.holdout_path is not None and data.holdout_path == data.path and not data.holdout_split:
        raise UserError(
            f"data.holdout_path={data.holdout_path}: is what is learned from; leave it out, or give another"
        )
    if data.source == "mixture":
        _check_mixture(data.sources)


def _check_mixture(sources: dict[str, SourceConfig]) -> None:
    if not sources:
        raise UserError(
            "data.sources is empty: data=mixture needs data.sources.NAME.path=FILE or OWNER/NAME, one or more"
        )
    weighted = [name for name, source in sources.items() if source.weight is not None]
    for name, source in sources.items():
        word = f"data.sources.{name}"
        if not source.path:
            raise UserError(f"{word}.path is not set: a source needs a file, or OWNER/NAME of a data set on the hub")
        if source.format not in ("auto", *FORMATS):
            raise UserError(
                f"{word}.format={source.format}: no such format{did_you_mean(source.format, FORMATS)}; there are auto, "
                f"{', '.join(FORMATS)}"
            )
        if source.weight is not None and source.rows is not None:
            raise UserError(f"{word}: has both weight={source.weight:g} and rows={source.rows}; leave one of them out")
        if source.weight is not None and not source.weight > 0:
            raise UserError(f"{word}.weight={source.weight:g}: must be above 0")
        if source.rows is not None and source.rows < 1:
            raise UserError(f"{word}.rows={source.rows}: must be at least 1")
        unread = {"split": source.split != "train", "subset": source.subset, "revision": source.revision != "main"}
        if looks_like_a_file(source.path) and any(unread.values()):
            name_of_key = next(key for key, is_set in unread.items() if is_set)
            raise UserError(f"{word}.{name_of_key}: nothing in this run reads it, only data sets on the hub have such")
        if weighted and source.weight is None:
            raise UserError(
                f"{word}: has no weight, but data.sources.{weighted[0]} has; give all of them weights, or none"
            )
