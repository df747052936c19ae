"""Rows of a data set on the Hugging Face hub as they arrive, and the commit that a hub revision stands for.

``datasets`` finds out which files make up a split, and reads them but for two kinds. JSON is read as it stands, where
``datasets`` would turn texts that look like dates into dates and give up at a key that only later rows have; parquet
is read without fetching more than is asked for.
"""

import gzip
import io
import mmap
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from ftx.config.keys import did_you_mean
from ftx.data.hub_names import cache_of, check_hub_name, is_of_network, reading_errors, refusal
from ftx.data.json_list import read_json
from ftx.data.rows import BadRow, Row, not_utf8, parse_json, plain, row_or_bad
from ftx.environment import hub_is_offline
from ftx.errors import UserError

_PART = re.compile(r"(.*-)\d{5}-of-(\d{5})(.*)")  # data/train-00000-of-00002.parquet
_JSON = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
_AHEAD = 2**16  # bytes fetched behind every piece of parquet; the library's own 5 MiB can be most of a file
_REQUEST = 2**25  # bytes of parquet fetched at once
_JSON_BLOCK = 2**20


@dataclass(frozen=True)
class HubSplit:
    """A split of a data set at a commit, 40 hex digits; ``subset`` is its configuration, None the default one."""

    name: str
    subset: str | None
    split: str
    commit: str


@dataclass(frozen=True)
class Columns:
    """Which columns are fetched (parquet) or kept (other formats): those that must be there, and some that may be."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def among(self, data: HubSplit, there: Sequence[str]) -> list[str]:
        """Those of the columns that are there; ``UserError`` for a needed one that is not, or where none is."""
        for name in self.needed:
            if name not in there:
                raise _unknown("data.columns", name, f"{data.name} has no such column", there)
        found = [name for name in dict.fromkeys((*self.needed, *self.optional)) if name in there]
        if not found:
            raise UserError(
                f"data.format: {data.name} has none of the columns that it reads ({', '.join(self.optional)}); there "
                f"are {', '.join(there)}"
            )
        return found


def read_hub_rows(data: HubSplit, columns: Columns | None) -> Iterator[Row | BadRow]:
    """All rows of the split in its order; with ``columns`` no others.

    What the local hub cache has is not fetched again, and offline nothing is asked for. Mistakes are a ``UserError``
    when the first row is asked for, those that only show on the way (a column that no row of JSON has) where they do.
    """
    check_hub_name("data.path", data.name)
    _silence()
    row = None
    try:
        builder, files = _find_files(data)
        if all(file.endswith(".parquet") for file in files):
            read = _parquet_rows
        elif all(file.endswith(_JSON) for file in files) and getattr(builder.config, "field", None) is None:
            read = _json_rows
        else:
            read = partial(_table_rows, builder)
        for row in read(data, files, columns):
            yield row
    except reading_errors() as error:
        raise refusal("data.path", data.name, data.commit, error) from error
    if row is None:
        raise UserError(f"data.split={data.split}: {data.name} has no rows there; choose another split")


def _silence() -> None:
    """How far it is and what went wrong, ftx says itself."""
    import datasets
    from huggingface_hub.utils import disable_progress_bars, logging

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    disable_progress_bars()
    logging.set_verbosity_error()


def _find_files(data: HubSplit) -> tuple[Any, list[str]]:
    """What reads the data set, and the split's files in order: paths of those that are cached, addresses of others."""
    from huggingface_hub import HfApi

    snapshot = cache_of(data.name, "dataset") / "snapshots" / data.commit
    if hub_is_offline():
        return _find_cached_files(data, snapshot)
    try:
        # It fails at once and says exactly why, where load_dataset_builder tries for half a minute.
        HfApi().dataset_info(data.name, revision=data.commit, expand=["sha"])
        builder = _load_builder(data, f"hf://datasets/{data.name}")
    except reading_errors() as error:
        if not is_of_network(error) or not snapshot.exists():
            raise
        return _find_cached_files(data, snapshot)
    root = f"hf://datasets/{data.name}@{data.commit}/"
    cached = {file: snapshot / file.removeprefix(root) for file in _files_of_split(data, builder)}
    return builder, [str(local) if local.is_file() else file for file, local in cached.items()]


def _find_cached_files(data: HubSplit, snapshot: Path) -> tuple[Any, list[str]]:
    """The same without a look-up; ``UserError`` unless all of the split is there.

    Which files a split has depends on all files there are, so ``datasets`` is shown a folder with the name of each.
    """
    here = {file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file()}
    away = _known_files(data, here) - here
    missing = "the data set" if not here else "README.md" if "README.md" in away else None
    if not missing:
        with tempfile.TemporaryDirectory() as folder:
            names = Path(folder).resolve()
            for file in here | away:
                (names / file).parent.mkdir(parents=True, exist_ok=True)
                (names / file).touch() if file in away else (names / file).symlink_to((snapshot / file).resolve())
            builder = _load_builder(data, str(names))
            files = [Path(file).relative_to(names).as_posix() for file in _files_of_split(data, builder)]
        missing = next((file for file in files if file in away), None)
    if missing:
        raise UserError(
            f"data.path={data.name}: {missing} is not in the local hub cache, and the hub is out of reach; online, "
            f"run: hf download --repo-type dataset --revision {data.commit} {data.name}"
        )
    return builder, [str(snapshot / file) for file in files]


def _known_files(data: HubSplit, here: set[str]) -> set[str]:
    """All files of the data set, from the listing that a download leaves, else those of ``…-00000-of-00002``."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        listing = get_cached_repo_tree(data.name, repo_type="dataset", revision=data.commit)
        return {file.path for file in listing}
    except CachedRepoTreeNotFoundError:
        parts = {part.groups() for file in here if (part := _PART.fullmatch(file))}
        return {f"{start}{n:05d}-of-{total}{end}" for start, total, end in parts for n in range(int(total))}


def _load_builder(data: HubSplit, path: str) -> Any:
    from datasets import get_dataset_config_names, load_dataset_builder

    revision = data.commit if path.startswith("hf://") else None
    # Where the hub fails, datasets takes what its own cache has of the data set at any commit; so it gets an empty one.
    with tempfile.TemporaryDirectory() as empty:
        try:
            return load_dataset_builder(path, data.subset, revision=revision, cache_dir=empty)
        except ValueError:
            names = get_dataset_config_names(path, revision=revision)
            if data.subset in names or (data.subset is None and len(names) == 1):
                raise
    if data.subset is None:
        raise UserError(f"data.subset is not set: {data.name} has several and no default; there are {', '.join(names)}")
    raise _unknown("data.subset", data.subset, f"{data.name} has no such subset", names)


def _files_of_split(data: HubSplit, builder: Any) -> list[str]:
    splits = {str(name): list(files) for name, files in (builder.config.data_files or {}).items()}
    if data.split not in splits:
        raise _unknown("data.split", data.split, f"{data.name} has no such split", list(splits))
    return splits[data.split]


def _table_rows(builder: Any, data: HubSplit, files: list[str], columns: Columns | None) -> Iterator[Row | BadRow]:
    builder.config.data_files = {data.split: files}
    dataset = builder.as_streaming_dataset(data.split)
    wanted = columns.among(data, dataset.column_names) if columns and dataset.column_names else None
    for number, row in enumerate(dataset, 1):
        yield Row(number, plain(_only(wanted or _names(columns), row)))


def _parquet_rows(data: HubSplit, files: list[str], columns: Columns | None) -> Iterator[Row | BadRow]:
    rows = (row for file in files for row in _rows_of_parquet(data, file, columns))
    return (Row(number, plain(row)) for number, row in enumerate(rows, 1))


def _rows_of_parquet(data: HubSplit, file: str, columns: Columns | None) -> Iterator[dict[str, Any]]:
    """The bytes of a row group are fetched here, into a map of the file that is empty elsewhere, and decoded from it.

    Left to read the file, Arrow does so in a thread of its own, which aborts a process that ends at the wrong moment.
    """
    from datasets import DownloadConfig, Features
    from datasets.utils.file_utils import xopen
    from pyarrow import BufferReader, py_buffer
    from pyarrow.parquet import ParquetFile, read_metadata

    with xopen(file, "rb", download_config=DownloadConfig(storage_options={"hf": {"block_size": _AHEAD}})) as stream:
        metadata, length = read_metadata(stream), stream.seek(0, io.SEEK_END)
        schema = metadata.schema.to_arrow_schema()
        wanted = columns.among(data, schema.names) if columns else None
        features = Features.from_arrow_schema(schema)
        for group in range(metadata.num_row_groups):
            sparse = mmap.mmap(-1, length)
            for start, end in _pieces(metadata.row_group(group), wanted):
                stream.seek(start)
                sparse[start:end] = stream.read(end - start)
            table = ParquetFile(BufferReader(py_buffer(sparse)), metadata=metadata).read_row_group(group, wanted)
            for batch in table.to_batches(max_chunksize=256):
                yield from map(features.decode_example, batch.to_pylist())


def _pieces(group: Any, columns: Sequence[str] | None) -> Iterator[tuple[int, int]]:
    """Where in the file the columns of a row group are: neighbours in one piece, and none too long for one request."""
    ends: dict[int, int] = {}
    for chunk in map(group.column, range(group.num_columns)):
        if columns is None or any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            ends[start] = start + chunk.total_compressed_size
    for start in sorted(ends, reverse=True):
        ends[start] = ends.pop(ends[start], ends[start])
    for start, end in sorted(ends.items()):
        yield from ((at, min(at + _REQUEST, end)) for at in range(start, end, _REQUEST))


def _json_rows(data: HubSplit, files: list[str], columns: Columns | None) -> Iterator[Row | BadRow]:
    seen: set[str] = set()
    rows = (row for file in files for row in _rows_of_json(file, Path(data.name, Path(file).name)))
    for number, row in enumerate(rows, 1):
        if isinstance(row, BadRow):
            yield BadRow(f"{data.name}/{data.split}", number, f"{row.reason} ({row.where}:{row.number})")
        else:
            seen |= row.value.keys()
            yield Row(number, _only(_names(columns), row.value))
    if seen and columns:
        columns.among(data, sorted(seen))


def _rows_of_json(file: str, name: Path) -> Iterator[Row | BadRow]:
    """One file, be it a list or a row a line: on the hub both come with each suffix."""
    from datasets.utils.file_utils import xopen

    with io.BufferedReader(cast(io.RawIOBase, xopen(file, "rb")), _JSON_BLOCK) as raw:
        stream = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if file.endswith(".gz") else raw
        if stream.peek(1).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            yield from read_json(name, stream)
            return
        for number, line in enumerate(stream, 1):
            try:
                if line.strip():
                    yield row_or_bad(name, number, parse_json(line.decode("utf-8-sig").strip()))
            except UnicodeDecodeError as error:
                yield BadRow(name, number, not_utf8(line[error.start]))
            except ValueError as error:
                yield BadRow(name, number, str(error))


def _names(columns: Columns | None) -> Sequence[str] | None:
    return (*columns.needed, *columns.optional) if columns else None


def _only(columns: Sequence[str] | None, row: dict[str, Any]) -> dict[str, Any]:
    return row if columns is None else {name: row[name] for name in columns if name in row}


def _unknown(key: str, value: str, reason: str, known: Sequence[str]) -> UserError:
    return UserError(f"{key}={value}: {reason}{did_you_mean(value, known)}; there are {', '.join(known)}")
