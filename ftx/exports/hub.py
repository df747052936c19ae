"""Upload to the hub: in one commit, of which nothing is sent twice, and without a word that has a token in it.

``huggingface_hub`` sends weights ahead of the commit that makes them visible. What of them arrived before an upload was
broken off is known to the hub by its hash, so the same command goes on there.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ftx import progress
from ftx.config.export_schema import ExportConfig
from ftx.config.schema import RunConfig
from ftx.disk import in_words
from ftx.environment import hub_is_offline
from ftx.errors import ExportFailed, UserError
from ftx.exports.card import by_ftx, write_card, written_by_us
from ftx.exports.parts import CARD, Upload, files_to_upload
from ftx.markdown import Column, to_table
from ftx.redaction import redacted
from ftx.run_folder import RunFolder

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

log = logging.getLogger(__name__)

PATHS_AT_ONCE = 500
# What a library looks for at the root of a repository.
WEIGHTS = re.compile(r"^[^/]*(\.safetensors|\.safetensors\.index\.json|\.bin|adapter_config\.json)$")


@dataclass(frozen=True)
class Pushed:
    """What became of a push. ``commit`` is None where nothing was to be changed, or ``export.push=dry``."""

    repository: str
    files: int
    sent: int
    """Files that were not there with the same content."""
    commit: str | None
    url: str | None


def check_can_push(export: ExportConfig) -> None:
    """Raise UserError for what a push would fail of hours later; touches no network."""
    if export.push == "dry":
        return
    if hub_is_offline():
        raise UserError(
            f"export.repository={export.repository}: HF_HUB_OFFLINE forbids asking the hub; unset it, or look at what "
            "would be sent with export.push=dry"
        )
    from huggingface_hub import get_token

    if not get_token():
        raise UserError(
            f"export.repository={export.repository}: nobody is logged in to the hub; hf auth login does it, or a token "
            "in HF_TOKEN"
        )


def push(folder: RunFolder, run: RunConfig, export: ExportConfig) -> Pushed:
    """Bring the parts of ``export.upload`` to ``export.repository``, with a card.

    Raises UserError for what the hub refuses, and ExportFailed where it fails, in words of ours.
    """
    write_card(folder, run, export)
    uploads = files_to_upload(folder, export.upload)
    if export.push == "dry":
        progress.say(describe_uploads(uploads, export))
        return Pushed(str(export.repository), len(uploads), 0, None, None)
    check_can_push(export)
    try:
        return _push(uploads, export, f"Upload {folder.name}")
    except UserError:
        raise
    except Exception as error:
        failure = _explained(str(export.repository), error)
    # Out here, where no error is being handled, else Python would chain it: the library's own hold the request with its
    # headers, and say what the hub said.
    raise failure


def _push(uploads: Sequence[Upload], export: ExportConfig, message: str) -> Pushed:
    """Raises whatever the library does."""
    repository = str(export.repository)
    api = _client()
    _ensure_repository(api, export)
    seen = api.model_info(repository, expand=["sha"]).sha
    _say_what_else_is_there(api, repository, uploads)
    fresh = _without_words_of_others(api, repository, uploads, message)
    if not fresh:
        progress.say(f"{repository}: all {len(uploads)} files are there already, nothing to do")
        return Pushed(repository, len(uploads), 0, None, None)
    there = len(uploads) - len(fresh)
    progress.say(f"{repository}: {_total(fresh)} to send" + (f", {there} are there already" if there else ""))
    operations = _send_weights(api, repository, fresh)
    # What was looked at above is what is written over: the hub refuses it where somebody else was quicker.
    commit = api.create_commit(repository, operations, commit_message=message, parent_commit=seen)
    progress.say(f"{repository}: {len(fresh)} files in commit {commit.oid[:8]}: {commit.commit_url}")
    return Pushed(repository, len(uploads), len(fresh), commit.oid, commit.commit_url)


def describe_uploads(uploads: Sequence[Upload], export: ExportConfig) -> str:
    """``export.push=dry``: every file and its size, and what would be made on the hub."""
    table = to_table(
        [
            Column("file", [one.path for one in uploads], False),
            Column("size", [in_words(one.size) for one in uploads]),
        ]
    )
    kind = "private" if export.private else "public"
    return (
        f"{table}\n{_total(uploads)} would go to {export.repository}, made as a {kind} repository if it is not there; "
        "export.push=dry sends nothing"
    )


def _total(uploads: Sequence[Upload]) -> str:
    return f"{len(uploads)} files, {in_words(sum(one.size for one in uploads))}"


def _ensure_repository(api: "HfApi", export: ExportConfig) -> None:
    """Made where it is missing; raises UserError for one that everybody may read, where that is not wanted.

    Looked at again once it is made: an organisation may have a rule of its own, or somebody else was quicker.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    name = str(export.repository)
    try:
        is_private = api.model_info(name, expand=["private"]).private
    except RepositoryNotFoundError:
        api.create_repo(name, private=export.private, exist_ok=True)
        progress.say(f"{name}: made, {'private' if export.private else 'public'}")
        is_private = api.model_info(name, expand=["private"]).private
    if export.private and is_private is not True:
        raise UserError(
            f"export.private=true: {name} is public on the hub, so nothing was sent; make it private there, say "
            "export.private=false, or name another export.repository"
        )
    if not export.private and is_private:
        log.warning("export.private=false: %s is private on the hub and stays so; its settings there change that", name)


def _say_what_else_is_there(api: "HfApi", repository: str, uploads: Sequence[Upload]) -> None:
    """Weights of an earlier push would be read beside these, and an adapter be put on them; nothing is deleted."""
    ours = {one.path for one in uploads}
    others = [name for name in api.list_repo_files(repository) if WEIGHTS.search(name) and name not in ours]
    if others:
        log.warning(
            "%s also has %s, which this push does not bring; whoever loads it may get that too: delete there what is "
            "old",
            repository,
            ", ".join(others[:5]) + (" …" if len(others) > 5 else ""),
        )


def _without_words_of_others(api: "HfApi", repository: str, uploads: Sequence[Upload], message: str) -> list[Upload]:
    """What is to be sent. As beside the weights here, a card that somebody has changed there stays as it is.

    Raises UserError where files would be written over that no push of ftx brought.
    """
    there = _files_there(api, repository, uploads)
    fresh = [one for one in uploads if one.path not in there or not _is_same(one, there[one.path])]
    replaced = [one.path for one in fresh if one.path in there]
    card = _card_there(api, repository) if replaced else None
    others = [path for path in replaced if path != CARD]
    if others and not (card and by_ftx(card)) and not _has_commit(api, repository, message):
        raise UserError(
            f"export.repository={repository}: has {', '.join(others[:5])}{' …' if len(others) > 5 else ''} that no "
            "push of ftx brought, so nothing was sent; name another repository, or delete there what is to go"
        )
    if CARD in replaced and card is not None and not written_by_us(card):
        log.warning(
            "%s: its %s was changed by hand, so it stays as it is; without the file it is sent", repository, CARD
        )
        fresh = [one for one in fresh if one.path != CARD]
    return fresh


def _card_there(api: "HfApi", repository: str) -> str | None:
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with TemporaryDirectory() as scratch:
        try:
            return Path(api.hf_hub_download(repository, CARD, local_dir=scratch)).read_text(encoding="utf-8")
        except RemoteEntryNotFoundError:
            return None


def _has_commit(api: "HfApi", repository: str, message: str) -> bool:
    """Whether this run was pushed there before, by the title that a push gives its commit."""
    return any(one.title == message for one in api.list_repo_commits(repository))


def _files_there(api: "HfApi", repository: str, uploads: Sequence[Upload]) -> "dict[str, RepoFile]":
    """Those of the same paths."""
    from huggingface_hub.hf_api import RepoFile

    there: dict[str, RepoFile] = {}
    paths = [one.path for one in uploads]
    for begin in range(0, len(paths), PATHS_AT_ONCE):
        found = api.get_paths_info(repository, paths[begin : begin + PATHS_AT_ONCE])
        there |= {one.path: one for one in found if isinstance(one, RepoFile)}
    return there


def _is_same(one: Upload, known: Any) -> bool:
    """By sha256 what is stored apart, by git's own hash what is in the repository itself."""
    if known.lfs is not None:
        return one.hashed(hashlib.sha256()) == str(known.lfs.sha256)
    return one.hashed(hashlib.sha1(f"blob {one.size}\0".encode())) == str(known.blob_id)


def _send_weights(api: "HfApi", repository: str, fresh: Sequence[Upload]) -> "list[CommitOperationAdd]":
    """One file after another, so that each that arrived stays; small texts come with the commit."""
    from huggingface_hub import CommitOperationAdd

    operations = []
    done, total = 0, sum(one.size for one in fresh)
    with progress.Progress(f"upload to {repository}", total, unit="byte") as shown:
        for one in fresh:
            operation = CommitOperationAdd(one.path, one.file if one.instead is None else one.instead)
            api.preupload_lfs_files(repository, [operation], free_memory=False, num_threads=1)
            operations.append(operation)
            done += one.size
            shown.show(done, one.path)
    return operations


def _client() -> "HfApi":
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars, logging

    # How far it is, ftx says itself; the library's warnings have addresses in them that let whoever knows them write.
    disable_progress_bars()
    logging.set_verbosity_error()
    return HfApi()


def _explained(repository: str, error: Exception) -> Exception:
    """A mistake that the user can mend as such, anything else as a failure; without the token, whoever said it."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    causes = _causes(error)
    said = redacted(" · ".join(dict.fromkeys(str(one).strip() for one in causes)), [get_token() or ""])
    reason = " ".join(said.split())[:400]
    answer = next((one for one in causes if isinstance(one, HfHubHTTPError)), None)
    status = answer.response.status_code if answer is not None else None
    word = f"export.repository={repository}"
    if status == 401:
        return UserError(f"{word}: the hub does not accept the token ({reason}); hf auth login takes a new one")
    if status in (403, 404):
        return UserError(
            f"{word}: the token may not write there ({reason}); take one with write access, or another name"
        )
    if status == 412:
        return ExportFailed(f"{word}: somebody else has changed it meanwhile ({reason}); the same command looks again")
    if status is not None and status < 500 and status != 429:
        return UserError(f"{word}: the hub refuses it ({reason})")
    if status is not None or any(isinstance(one, HTTPError | OSError) for one in causes):
        return ExportFailed(f"{word}: the upload broke off ({reason}); what arrived stays, the same command goes on")
    return ExportFailed(f"{word}: {type(error).__name__}: {reason}")


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and what it came from."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes
