"""An endpoint on this machine that speaks OpenAI's API: transformers' own server around the model that ftx loaded."""

import socket
import time
from importlib.util import find_spec
from inspect import signature
from typing import TYPE_CHECKING, Any

from ftx.errors import UserError

if TYPE_CHECKING:
    from ftx.chatting.loading import Partner

LOOPBACK = "127.0.0.1"
# Names that a browser may have called this machine by; others come from pages that reach into the network.
HOSTS = [LOOPBACK, "localhost"]
NEEDS = ("fastapi", "uvicorn", "openai")


def open_port(port: int) -> socket.socket:
    """On loopback alone; 0 takes one that is free. Raises UserError for one that is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        # Whoever asks before the server is up waits for it.
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(f"--port {port}: cannot listen there ({error}); --port 0 takes one that is free") from error
    return listening


def check_can_serve() -> None:
    """Raise UserError where packages are missing."""
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise UserError(f"--serve: {', '.join(missing)} is not installed; pip install 'ftx[serve]'")


def serve(partner: "Partner", listening: socket.socket) -> None:
    """Answer until somebody ends the process."""
    import uvicorn
    from transformers import GenerationConfig
    from transformers.utils import logging

    from ftx.data.tokenize import stop_ids
    from ftx.generation import ready_to_answer

    # The server announces each request.
    logging.set_verbosity_error()
    server = uvicorn.Server(uvicorn.Config(_application(partner), log_level="warning"))
    with ready_to_answer(partner.model):
        # What a request leaves out is as OpenAI's API has it: drawn at temperature 1, from all tokens.
        partner.model.generation_config = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            eos_token_id=stop_ids(partner.tokenizer, partner.template) or None,
            pad_token_id=partner.tokenizer.pad_token_id or 0,
        )
        server.run(sockets=[listening])


def _application(partner: "Partner") -> Any:
    """transformers' server, with one model, loaded by ftx, that it neither unloads nor replaces."""
    from fastapi.middleware.trustedhost import TrustedHostMiddleware
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.completion import CompletionHandler
    from transformers.cli.serving.model_manager import TimedModel
    from transformers.cli.serving.response import ResponseHandler
    from transformers.cli.serving.server import build_server
    from transformers.cli.serving.transcription import TranscriptionHandler
    from transformers.cli.serving.utils import GenerationState

    from ftx.chatting.openai_rules import say_errors_as_openai, with_rules

    manager, state = _manager(partner.name), GenerationState()
    manager.loaded_models[manager.process_model_name(partner.name)] = TimedModel(partner.model, -1, partner.tokenizer)
    manager.force_model = partner.name
    kept = {"keep_thinking": True} if partner.template.thinking == "keep" else {}
    longest = getattr(partner.model.config, "max_position_embeddings", None)
    handlers: dict[str, Any] = {
        "chat_handler": with_rules(ChatCompletionHandler, partner.name, longest)(manager, state, kept),
        "completion_handler": with_rules(CompletionHandler, partner.name, longest)(manager, state),
        "response_handler": ResponseHandler(manager, state, kept),
        "transcription_handler": TranscriptionHandler(manager, state),
    }
    if "systemone_handler" in signature(build_server).parameters:  # of newer versions
        from transformers.cli.serving.systemone import SystemOneHandler

        handlers["systemone_handler"] = SystemOneHandler(manager, state)
    application = build_server(manager, generation_state=state, **handlers)
    say_errors_as_openai(application)
    application.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    return application


def _manager(name: str) -> Any:
    """Of models that the server has: its own looks into the hub's cache, and loads what it is asked for."""
    from fastapi import HTTPException
    from transformers.cli.serving.model_manager import ModelManager

    class OneModel(ModelManager):
        def get_gen_models(self, cache_dir: str | None = None) -> list[dict[str, Any]]:  # type: ignore[override]
            return [{"id": name, "object": "model", "created": int(time.time()), "owned_by": "ftx"}]

        def load_model_and_processor(self, model_id_and_revision: str, *others: Any, **named: Any) -> Any:
            if model_id_and_revision not in self.loaded_models:
                raise HTTPException(status_code=400, detail=f"this server has {name} alone")
            return super().load_model_and_processor(model_id_and_revision, *others, **named)

    return OneModel(device="cpu", model_timeout=-1)
