"""A stand-in for the hub on loopback as far as uploads go: repositories, weights that are sent ahead, commits.

It wants the right token, and tells whoever comes with another one which it was, as no server should.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_hub import LoopbackHub

TOKEN = "hf_" + "s3cr3t" * 5
SIGNATURE = "X-Signature=signed-by-the-hub"


@dataclass
class Repository:
    """``files``: the committed ones. What is in ``large`` is known by its sha256 and not in the repository itself."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)
    titles: list[str] = field(default_factory=list)
    """Of the commits, the oldest first."""
    beside: bool = False
    """Somebody else commits between what a push sees and its own commit."""

    @property
    def commits(self) -> int:
        return len(self.titles)

    @property
    def head(self) -> str:
        return f"{self.commits:040x}"

    def info(self, path: str) -> dict[str, Any]:
        data = self.files[path]
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git}
        if path in self.large:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}
        return entry


@dataclass
class PushHub(LoopbackHub):
    """Serves while the ``with`` block lasts.

    ``hold``: a path whose weights do not get through: half of them is read, ``held`` is set, and no answer comes.
    ``fail`` maps a part of an address to the status that it is answered with.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    always_public: bool = False
    hold: str = ""
    held: Event = field(default_factory=Event)
    fail: dict[str, int] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    """The paths of large files that arrived, each as often as it did."""

    names: dict[str, str] = field(default_factory=dict)
    """Of an oid: the path of its file."""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return type("Handler", (_Handler,), {"hub": self})

    def with_token(self, home: Path, token: str = TOKEN, offline: bool = False) -> dict[str, str]:
        """``environment`` of somebody who may push; without Xet, whose storage this does not speak."""
        return {**self.environment(home, offline), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}


class _Handler(BaseHTTPRequestHandler):
    hub: PushHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Tests read ``PushHub.asked`` instead."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"PUT {path}")
        assert urlsplit(self.path).query == SIGNATURE
        oid, length = path.rpartition("/")[2], int(self.headers["Content-Length"])
        name = self.hub.names[oid]
        if name == self.hub.hold:
            self.rfile.read(length // 2)
            self.hub.held.set()
            self.rfile.read()
            return
        if self._fails(path):
            self.rfile.read(length)
            return
        data = self.rfile.read(length)
        assert hashlib.sha256(data).hexdigest() == oid
        self.hub.objects[oid] = data
        self.hub.received.append(name)
        self._send(HTTPStatus.OK, {})

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.hub.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        given = self.headers.get("Authorization", "")
        if given != f"Bearer {TOKEN}":
            return self._send(HTTPStatus.UNAUTHORIZED, {"error": f"invalid: {given}"}, message=f"who is {given}?")
        if self._fails(path):
            return None
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            return self._send(HTTPStatus.OK, {"errors": [], "warnings": []})
        if found := re.fullmatch(r"/(.+/.+)\.git/info/lfs/objects/batch", path):
            return self._batch(self.hub.repositories[found[1]], json.loads(body))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", path):
            return self._resolve(self.hub.repositories[found[1]], found[2])
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/([a-z-]+)/main)?", path)
        repository = self.hub.repositories.get(found[1]) if found else None
        if found is None or repository is None:
            return self._send(HTTPStatus.NOT_FOUND, {"error": "Repository not found"}, code="RepoNotFound")
        return self._of_repository(found[1], repository, found[2], body)

    def _of_repository(self, name: str, repository: Repository, verb: str | None, body: bytes) -> None:
        if verb is None:
            return self._send(
                HTTPStatus.OK, {"id": name, "_id": "1", "private": repository.private, "sha": repository.head}
            )
        if verb == "tree":
            return self._send(HTTPStatus.OK, [repository.info(path) for path in sorted(repository.files)])
        if verb == "paths-info":
            paths = parse_qs(body.decode())["paths"]
            return self._send(HTTPStatus.OK, [repository.info(path) for path in paths if path in repository.files])
        if verb == "preupload":
            files = json.loads(body)["files"]
            modes = [self._mode(repository, file["path"]) for file in files]
            return self._send(HTTPStatus.OK, {"files": modes})
        if verb == "commits":
            told = [{"id": "c" * 40, "title": title, "message": "", "authors": [], "date": "2020-01-01T00:00:00.000Z"}
                    for title in reversed(repository.titles)]  # fmt: skip
            return self._send(HTTPStatus.OK, told)
        assert verb == "commit"
        return self._commit(name, repository, [json.loads(line) for line in body.splitlines()])

    def _resolve(self, repository: Repository, path: str) -> None:
        if path not in repository.files:
            return self._send(HTTPStatus.NOT_FOUND, {"error": "no such file"}, code="EntryNotFound")
        data = repository.files[path]
        self.send_response(HTTPStatus.OK)
        self.send_header("X-Repo-Commit", repository.head)
        self.send_header("ETag", f'"{repository.info(path)["oid"]}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        return None

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        private = wanted.get("visibility") == "private" and not self.hub.always_public
        self.hub.repositories[name] = Repository(private)
        self._send(HTTPStatus.OK, {"url": f"{self.hub.address}/{name}", "name": name, "id": "1"})

    def _mode(self, repository: Repository, path: str) -> dict[str, Any]:
        large = path.endswith((".safetensors", ".gguf", ".png"))
        if large:
            self._waiting = path
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _batch(self, repository: Repository, wanted: dict[str, Any]) -> None:
        objects = []
        for one in wanted["objects"]:
            # One file at a time is announced and then asked about, on one connection.
            self.hub.names.setdefault(one["oid"], getattr(self, "_waiting", ""))
            entry = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}?{SIGNATURE}"}}
            objects.append(entry)
        self._send(HTTPStatus.OK, {"objects": objects, "transfer": "basic"})

    def _commit(self, name: str, repository: Repository, lines: list[dict[str, Any]]) -> None:
        if repository.beside:
            repository.titles.append("somebody else's")
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header["parentCommit"] != repository.head:
            return self._send(HTTPStatus.PRECONDITION_FAILED, {"error": "a commit has happened since"})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
                repository.large.add(value["path"])
        repository.titles.append(header["summary"])
        oid = repository.head
        self._send(HTTPStatus.OK, {"commitUrl": f"{self.hub.address}/{name}/commit/{oid}", "commitOid": oid})

    def _fails(self, path: str) -> bool:
        status = next((status for part, status in self.hub.fail.items() if part in path), None)
        if status is not None:
            given = self.headers.get("Authorization", "")
            self._send(HTTPStatus(status), {"error": f"no, {given} {TOKEN}"}, message=f"no, {TOKEN}")
        return status is not None

    def _send(self, status: HTTPStatus, value: Any, code: str = "", message: str = "") -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (("X-Error-Code", code), ("X-Error-Message", message)):
            if text:
                self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
