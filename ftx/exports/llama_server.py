"""How llama.cpp's own chat renders a conversation: its server is asked, on a free port of this machine."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from ftx.data.conversation import Message

TIMEOUT_SECONDS = 60


class LlamaChat:
    """The server of the model in ``file``; it ends with this object."""

    def __init__(self, file: Path) -> None:
        import xllamacpp

        parameters: Any = xllamacpp.CommonParams()
        parameters.model.path = str(file)
        parameters.n_ctx = 64
        parameters.n_gpu_layers = 0
        parameters.warmup = False
        self._server: Any = xllamacpp.Server(parameters)
        self._open = build_opener(ProxyHandler({})).open

    def render(self, messages: Sequence[Message]) -> str:
        """With the header of the answer; without the begin token, which llama.cpp adds as it tokenizes."""
        request = Request(
            f"{self._server.listening_address}/apply-template",
            json.dumps({"messages": list(messages)}).encode(),
            {"Content-Type": "application/json"},
        )
        with self._open(request, timeout=TIMEOUT_SECONDS) as answer:
            rendered: str = json.loads(answer.read())["prompt"]
        return rendered
