"""What a run's data and starting weights are, by content, remembered by size and time: it costs nothing twice."""

import hashlib
import json
import re
from pathlib import Path

from ftx.config.schema import RunConfig
from ftx.data import files, stdlib_docs
from ftx.environment import hub_is_offline
from ftx.errors import UserError
from ftx.run_folder import write_json

MODEL_FILES = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja"}


def cache_folder(run: RunConfig) -> Path:
    """Where prepared data and remembered hashes are kept."""
    return Path(run.data.cache).expanduser().absolute() if run.data.cache else Path(run.run_root) / ".cache"


def data_fingerprint(run: RunConfig) -> str:
    """A hash of the source's content."""
    if run.data.source == "stdlib_docs":
        return stdlib_docs.fingerprint()
    return _file_hash(Path(str(run.data.path)), cache_folder(run))


def model_fingerprint(run: RunConfig) -> str:
    """A hash of a folder's content, or the hub name with its commit; empty for random weights."""
    if run.model.weights == "random":
        return ""
    name = str(run.model.name)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return f"{name}@{hub_commit(name, run.model.revision)}"
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix in MODEL_FILES)
    hashes = [f"{file.name}:{_file_hash(file, cache_folder(run))}" for file in files]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def hub_commit(name: str, revision: str) -> str:
    """The commit that a hub revision stands for, from the local cache when the hub is off limits."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, HTTPError

    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    reference = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs" / revision
    if not hub_is_offline():
        try:
            return str(HfApi().model_info(name, revision=revision).sha)
        except HFValidationError as error:
            raise UserError(f"model.name={name}: neither a folder nor a hub name (OWNER/MODEL)") from error
        except (HTTPError, OSError) as error:
            if not reference.exists():
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise UserError(
                    f"model.name={name}: the hub does not give revision {revision} ({reason}); "
                    "mend the name or the network, or give a folder"
                ) from error
    if reference.exists():
        return reference.read_text(encoding="utf-8").strip()
    raise UserError(
        f"model.name={name}: not a folder, not in the local hub cache, and HF_HUB_OFFLINE forbids asking the hub; "
        "unset it or give a folder"
    )


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
