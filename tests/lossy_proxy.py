"""A way to a server on which answers get lost and requests arrive late."""

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PASSED_ON = ("Content-Type", "Content-Length", "Host", "Accept")
# A request and the one that MLflow's client sends in its place.
HELD = 2
CHANGES = ("POST", "PUT", "PATCH", "DELETE")


class Way(ThreadingHTTPServer):
    """Requests that change something go through; of each kind so many answers get lost first."""

    daemon_threads = True

    def __init__(self, port: int, lost: int, late: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port, self._lost, self._late = port, lost, late
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.held: list[Callable[[], object]] = []
        self.lost: set[str] = set()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def loses(self, method: str, path: str) -> bool:
        with self._lock:
            kind = "/".join(path.split("/")[-2:])
            self._asked[kind] += 1
            loses = method in CHANGES and self._asked[kind] <= self._lost
            if loses:
                self.lost.add(kind)
            return loses

    def holds(self, path: str) -> bool:
        return bool(self._late) and path.endswith(self._late) and len(self.held) < HELD

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that the other side gave up is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    server: Way
    protocol_version = "HTTP/1.1"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}

        def ask() -> http.client.HTTPResponse:
            there = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
            there.request(self.command, self.path, body, headers)
            return there.getresponse()

        self.close_connection = True
        if self.server.holds(self.path):
            self.server.held.append(lambda: ask().read())
            return
        answer = ask()
        said = answer.read()
        if self.server.loses(self.command, self.path.partition("?")[0]):
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(said)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def lossy(port: int, *, lost: int = 0, late: str = "") -> Iterator[Way]:
    """Loses the first ``lost`` answers of each kind of request; holds the first requests whose path ends in ``late``.

    ``held`` are they: called, they arrive.
    """
    way = Way(port, lost, late)
    thread = threading.Thread(target=way.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield way
    finally:
        way.shutdown()
        way.server_close()
        thread.join()
