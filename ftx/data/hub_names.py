"""Names and revisions on the Hugging Face hub: what commit they stand for, and what a refusal means."""

import logging
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Literal

from ftx.environment import hub_is_offline
from ftx.errors import UserError
from ftx.writing import write_text

log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ADDRESS = re.compile(r"(?:huggingface\.co/|hf://)(?:datasets/)?([^/]+/[^/@?#]+)")
_may_ask: ContextVar[bool] = ContextVar("_may_ask", default=True)


class UnknownCommit(UserError):
    """Nobody here knows what a revision stands for."""


@contextmanager
def asking_nobody() -> Iterator[None]:
    """Within it a revision is the commit that is known here, at once and without a network; else ``UnknownCommit``."""
    token = _may_ask.set(False)
    try:
        yield
    finally:
        _may_ask.reset(token)


def check_hub_name(word: str, name: str) -> None:
    """``UserError`` unless ``name`` may be one on the hub; ``word`` is the user's key."""
    if _NAME.fullmatch(name) and "--" not in name and ".." not in name:
        return
    address = _ADDRESS.search(name)
    way = f"write {address[1]}" if address else "write OWNER/NAME, as at the top of its page on https://huggingface.co"
    raise UserError(f"{word}={name}: not a name on the hub; {way}")


def hub_commit(name: str, revision: str, *, kind: Literal["model", "dataset"], word: str, cache: Path) -> str:
    """The commit that a revision stands for; where the hub is out of reach, the one that is known of before.

    ``word`` is the user's key for ``name`` (``data.path``); in ``cache`` answers are remembered.
    """
    if _COMMIT.fullmatch(revision):
        return revision
    if kind == "dataset":
        check_hub_name(word, name)
    # A file for each question: several processes may write at once.
    remembered = cache / "hub_commits" / f"{kind} {name}@{revision}".replace("/", "--")
    reason = "HF_HUB_OFFLINE forbids asking the hub; unset it"
    out_of_reach = False
    if _may_ask.get() and not hub_is_offline():
        from huggingface_hub.errors import HFValidationError, HTTPError

        try:
            commit = _ask_hub(name, revision, kind)
        except (HTTPError, OSError, HFValidationError) as error:
            if not is_of_network(error):
                raise refusal(word, name, revision, error) from error
            reason = f"the hub cannot be reached ({line(error)}); mend the network"
            out_of_reach = True
        else:
            remembered.parent.mkdir(parents=True, exist_ok=True)
            write_text(remembered, commit)
            return commit
    for known in (remembered, cache_of(name, kind) / "refs" / revision):
        if known.is_file():
            commit = known.read_text(encoding="utf-8").strip()
            if out_of_reach:
                log.warning("%s=%s: the hub cannot be reached; %s is the last commit known", word, name, commit)
            return commit
    instead = "a folder" if kind == "model" else "a file with data=jsonl"
    raise UnknownCommit(
        f"{word}={name}: revision {revision} is not in the local hub cache, and {reason} or give {instead}"
    )


@cache
def _ask_hub(name: str, revision: str, kind: str) -> str:
    """Once in a process, so that all of a run is of one commit."""
    from huggingface_hub import HfApi

    asked = HfApi().model_info if kind == "model" else HfApi().dataset_info
    return str(asked(name, revision=revision, expand=["sha"]).sha)


def cache_of(name: str, kind: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"


def keep_card(name: str, revision: str) -> None:
    """Where the hub may be asked, its cache gets a model's card: transformers fetches all files but this one, which
    says the licence. A model without one, or a hub out of reach, stops nothing."""
    if hub_is_offline() or Path(name).is_dir():
        return
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError

    try:
        hf_hub_download(name, "README.md", revision=revision)
    except RemoteEntryNotFoundError:
        return
    except (HTTPError, OSError, LocalEntryNotFoundError) as error:
        log.warning("%s: its card could not be fetched (%s), so its licence is not known here", name, line(error))


def reading_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HTTPError
    from pyarrow import ArrowException

    return (HTTPError, OSError, EOFError, ValueError, zlib.error, ArrowException)


def is_of_network(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, HTTPError | ConnectionError | TimeoutError)


def refusal(word: str, name: str, revision: str, error: Exception) -> UserError:
    """What the hub, or a file from it, was refused for, and the way out."""
    from huggingface_hub import errors

    code = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    reason, where = line(error), f"{word}={name}"
    if isinstance(error, errors.RevisionNotFoundError):
        where = f"{word.rpartition('.')[0]}.revision={revision}"
        says = f"{name} has no such revision on the hub; write main, or a tag or commit of it"
    # By its name, as importing datasets for a model's commit takes a second; it comes only where the name was found.
    elif isinstance(error, errors.GatedRepoError) or type(error).__name__ == "DatasetNotFoundError":
        says = "gated; log in with hf auth login, and accept the terms on its page on the hub"
    elif isinstance(error, errors.RepositoryNotFoundError) or code in (401, 403):
        says = "not on the hub, or private; mend the name, or log in with hf auth login"
    elif isinstance(error, errors.HFValidationError):
        says = "neither a folder nor a name on the hub; write OWNER/NAME"
    elif is_of_network(error):
        says = f"the hub cannot be reached ({reason}); mend the network, and the same command starts this part again"
    else:
        way = "a folder" if word == "model.name" else "a file of it that you mended with data=jsonl"
        says = f"cannot be read at revision {revision} ({reason}); give {way}"
    return UserError(f"{where}: {says}")


def line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
