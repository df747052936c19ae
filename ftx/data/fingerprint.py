"""What a run's data and starting weights are, by content, remembered by size and time: it costs nothing twice."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from ftx.config.data_checks import COLUMN_ORDER, ORDERS, PLAIN_ORDERS
from ftx.config.made_up import is_made_up
from ftx.config.schema import RunConfig, SourceConfig
from ftx.data import files, stdlib_docs
from ftx.data.hooks import TRANSFORMS, hook_fingerprint
from ftx.data.hub_names import hub_commit
from ftx.data.made_up import made_up_content
from ftx.data.sources import held_out_source, hub_split, is_file, sources_of, word_of
from ftx.writing import write_json

MODEL_FILES = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja"}


def cache_folder(run: RunConfig) -> Path:
    """Where prepared data and remembered hashes are kept."""
    return Path(run.data.cache).expanduser().absolute() if run.data.cache else Path(run.run_root) / ".cache"


def data_fingerprint(run: RunConfig) -> str:
    """A hash of the content of all sources, and of the user's own functions over them."""
    data, cache = run.data, cache_folder(run)
    if data.source == "stdlib_docs":
        return stdlib_docs.fingerprint()
    parts = {name: _content(source, word_of(name), cache) for name, source in sources_of(data).items()}
    if held_out := held_out_source(data):
        word = "data.holdout_path" if data.holdout_path else "data.path"
        parts["held out"] = f"{_content(held_out, word, cache)} {held_out.split if data.holdout_split else ''}"
    for name in data.transforms:
        parts[f"transform {name}"] = hook_fingerprint(TRANSFORMS, "data.transforms", name)
    if data.order not in PLAIN_ORDERS and not data.order.startswith(COLUMN_ORDER):
        parts["order"] = hook_fingerprint(ORDERS, "data.order", data.order)
    if list(parts) == [""]:
        return parts[""]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _content(source: SourceConfig, word: str, cache: Path) -> str:
    if is_file(source):
        return _file_hash(Path(source.path), cache)
    if is_made_up(source.path):
        return made_up_content(source)
    split = hub_split(source, word, cache)
    return f"{split.name}@{split.commit}"


def model_fingerprint(run: RunConfig) -> str:
    """A hash of a folder's content, or the hub name with its commit; empty for random weights."""
    if run.model.weights == "random":
        return ""
    name, cache = str(run.model.name), cache_folder(run)
    if Path(name).expanduser().is_dir():
        weights = _folder_hash(Path(name).expanduser(), cache)
    else:
        commit = hub_commit(name, run.model.revision, kind="model", word="model.name", cache=cache)
        weights = f"{name}@{commit}"
    return f"{weights} with {_folder_hash(Path(run.model.adapter), cache)}" if run.model.adapter else weights


def _folder_hash(folder: Path, cache: Path) -> str:
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix in MODEL_FILES)
    hashes = [f"{file.name}:{_file_hash(file, cache)}" for file in files]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def pinned(run: RunConfig) -> RunConfig:
    """The same run with each revision on the hub as the commit that it stands for now: queued, it may wait for days."""
    model, data, cache = run.model, run.data, cache_folder(run)
    if model.weights == "pretrained" and not Path(str(model.name)).expanduser().is_dir():
        commit = hub_commit(str(model.name), model.revision, kind="model", word="model.name", cache=cache)
        model = replace(model, revision=commit)
    commits = {
        name: hub_split(source, word_of(name), cache).commit
        for name, source in sources_of(data).items()
        if data.source in ("hub", "mixture") and not is_file(source) and not is_made_up(source.path)
    }
    if data.source == "hub" and commits:
        data = replace(data, revision=commits[""])
    elif data.source == "mixture":
        sources = {
            name: replace(source, revision=commits.get(name, source.revision)) for name, source in data.sources.items()
        }
        data = replace(data, sources=sources)
    return replace(run, model=model, data=data)


def _file_hash(path: Path, cache: Path) -> str:
    """sha256 of a file, recomputed only when its size or time of change differs from what is remembered."""
    known_file = cache / "fingerprints.json"
    try:
        known = json.loads(known_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        known = {}
    stat = path.stat()
    seen = [stat.st_size, stat.st_mtime_ns]
    remembered = known.get(str(path.absolute()))
    if remembered and remembered[:2] == seen:
        return str(remembered[2])
    digest = files.fingerprint(path)
    cache.mkdir(parents=True, exist_ok=True)
    write_json(known_file, {**known, str(path.absolute()): [*seen, digest]})
    return digest
