"""The server of ``make server``, started and killed by its process."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from verb_process import DEADLINE_SECONDS


class TrackingServer:
    """Down until it is started; its port and its data stay the same."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def local_uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    @property
    def uri(self) -> str:
        """The one that it says."""
        return re.search(r"tracking\.uri=(\S+)", self.said)[1]

    def start(self) -> None:
        """Returns when it answers; nothing to do where it is up."""
        if self._process is not None:
            return
        command = [sys.executable, "-m", "ftx.server", "--port", str(self.port), "--folder", str(self.folder)]
        with (self.folder / "said.txt").open("w") as said:
            self._process = subprocess.Popen(command, stdout=said, stderr=said, cwd=self.folder, start_new_session=True)
        limit = time.monotonic() + DEADLINE_SECONDS
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < limit, self.said
            time.sleep(0.05)

    def stop(self, number: signal.Signals) -> None:
        """All of its processes, and wait until they are gone."""
        if self._process is None:
            return
        os.killpg(self._process.pid, number)
        self._process.wait()
        limit = time.monotonic() + DEADLINE_SECONDS
        while self._answers():
            assert time.monotonic() < limit
            time.sleep(0.05)
        self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.local_uri}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
