"""Runs inside the sandbox: a Jupyter kernel, its client, and one line of JSON for each cell.

It reads ``{"id", "code", "seconds"}`` from stdin, a cell a line, and writes ``{"id", "state", "stdout", "stderr",
"result", "traceback"}``; state is ``ok``, ``error``, ``interrupted``, ``killed`` or ``died``. The first line it writes
says that the kernel is there. Kernel and client meet in UNIX sockets in the scratch folder. Nothing of ftx can be
imported here.
"""

import json
import os
import queue
import re
import sys
import time
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

# Characters that are kept of each stream; what is shown of them is far shorter.
KEPT = 200_000
START_SECONDS = 60.0
# How long a cell has to end after it has been interrupted.
GRACE_SECONDS = 2.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Cell:
    """What a cell has said so far."""

    def __init__(self) -> None:
        self.state = "ok"
        self.texts = dict.fromkeys(("stdout", "stderr", "result", "traceback"), "")

    def hear(self, kind: str, content: dict[str, Any]) -> None:
        """Add what one message of the kernel says."""
        if kind == "stream":
            self._add(content["name"], content["text"])
        elif kind in ("execute_result", "display_data"):
            said = content["data"].get("text/plain", "")
            self._add("result", f"\n{said}" if self.texts["result"] else said)
        elif kind == "error":
            self.state = "error"
            self.texts["traceback"] = _COLOURS.sub("", "\n".join(content["traceback"]))[-KEPT:]

    def _add(self, name: str, text: str) -> None:
        if name in self.texts:
            self.texts[name] += text[: KEPT - len(self.texts[name])]


class Kernel:
    """A kernel that is started again where it has been killed or has died."""

    def __init__(self) -> None:
        self._starts = 0
        self._start()

    def _start(self) -> None:
        self._starts += 1
        folder = Path.home() / f".kernel-{self._starts}"
        folder.mkdir()
        self.manager = KernelManager(
            kernel_name="python3", transport="ipc", ip=f"{folder}/socket", connection_file=f"{folder}/kernel.json"
        )
        assert self.manager.kernel_spec is not None
        self.manager.kernel_spec.argv = [
            *(sys.executable, "-I", "-m", "ipykernel_launcher", "-f", "{connection_file}"),
            *("--InteractiveShell.colors=NoColor", "--HistoryManager.enabled=False"),
        ]
        # Not this process's own streams: the lines of JSON are all that goes out there.
        with Path(os.devnull).open("r+b") as nothing:
            self.manager.start_kernel(stdin=nothing, stdout=nothing, stderr=nothing)
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=START_SECONDS)

    def _restart(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self._start()

    def run(self, code: str, seconds: float) -> Cell:
        """Run one cell; one that takes longer is interrupted, and where that does not end it, the kernel is killed."""
        cell = Cell()
        message = self.client.execute(code, allow_stdin=False, stop_on_error=False)
        if self._follow(cell, message, time.monotonic() + seconds):
            return cell
        if self.manager.is_alive():
            self.manager.interrupt_kernel()
            if self._follow(cell, message, time.monotonic() + GRACE_SECONDS):
                cell.state = "interrupted"
                return cell
        cell.state = "killed" if self.manager.is_alive() else "died"
        self._restart()
        return cell

    def _follow(self, cell: Cell, message: str, deadline: float) -> bool:
        """Hear what the kernel says of a cell; False where it has not ended by then."""
        while (left := deadline - time.monotonic()) > 0:
            try:
                heard = self.client.get_iopub_msg(timeout=min(left, 0.2))
            except queue.Empty:
                if not self.manager.is_alive():
                    return False
                continue
            if heard["parent_header"].get("msg_id") != message:
                continue
            if heard["msg_type"] == "status" and heard["content"]["execution_state"] == "idle":
                return True
            cell.hear(heard["msg_type"], heard["content"])
        return False


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    kernel = Kernel()
    print(json.dumps({"id": "", "state": "ready"}), file=replies, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        cell = kernel.run(asked["code"], asked["seconds"])
        print(json.dumps({"id": asked["id"], "state": cell.state, **cell.texts}), file=replies, flush=True)


main()
