"""A stand-in for the Hugging Face hub on loopback, over HTTP as the real one, and it remembers what it was asked.

``huggingface_hub`` reads HF_ENDPOINT when it is imported, so whoever is to ask this hub is a process of its own that
gets ``environment(...)``.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from loopback_hub import LoopbackHub

API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)(?:/(?P<verb>[a-z-]+)/(?P<rest>.+))?")
FILE = re.compile(r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Request:
    """One request as it was answered; ``sent`` counts the bytes of the body."""

    method: str
    path: str
    status: int
    sent: int


@dataclass(frozen=True)
class Repository:
    """Files at one commit, which ``main`` points to."""

    files: Files
    gated: bool = False

    @property
    def commit(self) -> str:
        """Changes with the content."""
        content = hashlib.sha1()
        for path, data in sorted(self.files.items()):
            content.update(f"{path}:{hashlib.sha1(data).hexdigest()}\n".encode())
        return content.hexdigest()

    def info(self, name: str) -> dict[str, Any]:
        siblings = [{"rfilename": path} for path in sorted(self.files)]
        return {"id": name, "sha": self.commit, "private": False, "gated": self.gated, "siblings": siblings}

    def entries(self, folder: str, recursive: bool) -> list[dict[str, Any]] | None:
        """Files and folders in ``folder`` ("" is the root); None where there is no such folder."""
        inside = {path for path in self.files if path.startswith(f"{folder}/" if folder else "")}
        depth = folder.count("/") + 1 if folder else 0
        folders = {"/".join(path.split("/")[:end]) for path in inside for end in range(depth + 1, path.count("/") + 1)}
        if not inside and folder:
            return None
        found = sorted(folders | inside)
        return [self.entry(path) for path in found if recursive or path.count("/") == depth]

    def entry(self, path: str) -> dict[str, Any]:
        """What the hub says of one file or folder."""
        if path not in self.files:
            return {"type": "directory", "oid": _digest(path.encode()), "size": 0, "path": path}
        data = self.files[path]
        return {"type": "file", "oid": _digest(data), "size": len(data), "path": path}


@dataclass
class Hub(LoopbackHub):
    """Serves while the ``with`` block lasts.

    ``drop`` names paths of files; the next GET of each loses its connection after half of the answer.
    """

    datasets: Mapping[str, Repository] = field(default_factory=dict)
    models: Mapping[str, Repository] = field(default_factory=dict)
    drop: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return type("Handler", (_Handler,), {"hub": self})

    def sent(self, path: str = "") -> int:
        """Bytes that went out for addresses that end like this, all of them together."""
        return sum(request.sent for request in self.requests if request.path.endswith(path))


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer_path()

    def do_HEAD(self) -> None:
        self._answer_path()

    def do_POST(self) -> None:
        self._answer_path()

    def log_message(self, *_: object) -> None:
        """Tests read ``Hub.requests`` instead."""

    def _answer_path(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        if found := API.fullmatch(path):
            kind, name, verb, rest = found.group("kind", "name", "verb", "rest")
        elif found := FILE.fullmatch(path):
            kind, name, verb = found["kind"] or "models", found["name"], "resolve"
            rest = f"{found['revision']}/{found['path']}"
        else:
            return self._refuse(HTTPStatus.NOT_FOUND, "")
        repository = (self.hub.datasets if kind.startswith("datasets") else self.hub.models).get(name)
        revision, _, rest = (rest or "main").partition("/")
        if repository is None:
            return self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
        if revision not in ("main", repository.commit):
            return self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        if verb in (None, "revision"):
            return self._answer_json(repository.info(name))
        if verb == "tree":
            return self._answer_json(repository.entries(rest, "recursive=true" in address.query.lower()))
        if verb == "paths-info":
            return self._answer_json([repository.entry(one) for one in self._asked_paths() if one in repository.files])
        if verb == "resolve":
            return self._answer_file(repository, rest)
        return self._refuse(HTTPStatus.NOT_FOUND, "")

    def _asked_paths(self) -> Collection[str]:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return [body["paths"]] if isinstance(body["paths"], str) else body["paths"]

    def _answer_json(self, value: Any) -> None:
        if value is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")
        return self._answer(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer_file(self, repository: Repository, path: str) -> None:
        commit = {"X-Repo-Commit": repository.commit}
        if repository.gated:
            return self._refuse(HTTPStatus.FORBIDDEN, "GatedRepo")
        if path not in repository.files:
            return self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound", commit)
        data = repository.files[path]
        headers = {**commit, "ETag": f'"{_digest(data)}"', "Accept-Ranges": "bytes"}
        if not (wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            return self._answer(HTTPStatus.OK, data, headers, path)
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        if first > last:
            return self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "", commit)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._answer(HTTPStatus.PARTIAL_CONTENT, data[first : last + 1], headers, path)

    def _refuse(self, status: HTTPStatus, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._answer(status, b"", {**(headers or {}), "X-Error-Code": code})

    def _answer(self, status: HTTPStatus, body: bytes, headers: Mapping[str, str], path: str = "") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = b"" if self.command == "HEAD" else body
        if sent and path in self.hub.drop:
            self.hub.drop.remove(path)
            self.close_connection = True
            sent = sent[: len(sent) // 2]
        self.hub.requests.append(Request(self.command, self.path, int(status), len(sent)))
        self.wfile.write(sent)


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
