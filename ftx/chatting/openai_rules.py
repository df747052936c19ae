"""What OpenAI's API promises and transformers' server does not keep: what it cannot do is refused, errors are JSON, a
stop text is no part of the answer, a stream says that it is over."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from jinja2 import TemplateError
from starlette.exceptions import HTTPException as AnyHTTPException

DONE = "data: [DONE]\n\n"
# Of a request: what each may at most be.
ONLY: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "echo": (None, False),
}


def refusal(message: str, code: str | None = None) -> HTTPException:
    """Of a request that cannot be answered as it is meant."""
    return HTTPException(status_code=400, detail={"message": message, "code": code})


def with_rules(handler: type, name: str, longest: int | None) -> type:
    """``handler`` of transformers, for one model that is called ``name`` and takes ``longest`` tokens."""

    class Ruled(handler):
        async def handle_request(self, body: dict[str, Any], request_id: str) -> Any:
            check_request(body)
            try:
                response = await super().handle_request(body, request_id)
            except TemplateError as error:
                raise refusal(f"messages: the chat template does not take them: {error}") from error
            stops = _stops(body)
            if body.get("stream"):
                response.body_iterator = until_stop(response.body_iterator, stops)
                return response
            return cut(response, stops)

        def _resolve_model(self, body: dict[str, Any]) -> tuple[Any, ...]:
            """Under the name that it is asked by, without a revision."""
            return (name, *super()._resolve_model(body)[1:])

        def _streaming(
            self, request: str, model: Any, tokenizer: Any, known_as: str, inputs: Any, *others: Any, **named: Any
        ) -> Any:
            _fit(inputs, others[0], longest)
            return super()._streaming(request, model, tokenizer, known_as, inputs, *others, **named)

        async def _non_streaming(
            self, request: str, model: Any, tokenizer: Any, known_as: str, inputs: Any, *others: Any, **named: Any
        ) -> Any:
            _fit(inputs, others[0], longest)
            if "gen_manager" not in named:
                return await super()._non_streaming(request, model, tokenizer, known_as, inputs, *others, **named)
            heard = named["gen_manager"] = _Heard(named["gen_manager"])
            response = await super()._non_streaming(request, model, tokenizer, known_as, inputs, *others, **named)
            return _with_blanks(response, heard.text)

    return Ruled


class _Heard:
    """A manager of generations that remembers the last text."""

    def __init__(self, manager: Any) -> None:
        self._manager, self.text = manager, ""

    async def generate_non_streaming(self, *given: Any, **named: Any) -> Any:
        found = await self._manager.generate_non_streaming(*given, **named)
        self.text = found[0]
        return found


def _with_blanks(response: JSONResponse, text: str) -> JSONResponse:
    """The answer as it was generated, where what was read out of it differs by blanks around it alone."""
    whole = json.loads(bytes(response.body))
    message = whole["choices"][0]["message"]
    if (message.get("content") or "") == text.strip():
        message["content"] = text
    return JSONResponse(whole, status_code=response.status_code)


def check_request(body: dict[str, Any]) -> None:
    """Raise a refusal for what would be left out without a word."""
    for key, possible in ONLY.items():
        if body.get(key) not in possible:
            raise refusal(f"{key}={body[key]}: this server cannot do that; leave it out")
    if "prompt" not in body and not (isinstance(body.get("messages"), list) and body["messages"]):
        raise refusal("messages: must be a list of at least one message")


def _fit(inputs: Any, settings: Any, longest: int | None) -> None:
    """A prompt that is too long is refused, and an answer ends where the model does."""
    if longest is None:
        return
    tokens = inputs["input_ids"].shape[-1]
    if tokens >= longest:
        raise refusal(
            f"This model's maximum context length is {longest} tokens, and the request has {tokens} in its prompt.",
            "context_length_exceeded",
        )
    settings.max_new_tokens = min(settings.max_new_tokens, longest - tokens)


def _stops(body: dict[str, Any]) -> list[str]:
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else list(stop)


def cut(response: JSONResponse, stops: Sequence[str]) -> JSONResponse:
    """An answer up to the first stop text."""
    whole = json.loads(bytes(response.body))
    for choice in whole["choices"]:
        place, key = _text_of(choice, "message")
        text = place.get(key) or ""
        place[key] = text[: _first(text, stops)]
        if place[key] != text:
            choice["finish_reason"] = "stop"
    return JSONResponse(whole, status_code=response.status_code)


async def until_stop(parts: AsyncIterator[Any], stops: Sequence[str]) -> AsyncIterator[str]:
    """A stream up to the first stop text; what may be the beginning of one waits for what follows."""
    held, is_over = "", False
    async for part in parts:
        for event in filter(None, str(part).split("\n\n")):
            chunk = _read(event.removeprefix("data: "))
            if "choices" not in chunk:
                yield _event(chunk)
                continue
            choice = chunk["choices"][0]
            place, key = _text_of(choice, "delta")
            held += "" if is_over else place.get(key) or ""
            end = _first(held, stops)
            is_last, is_cut = choice.get("finish_reason") is not None, end < len(held)
            ready = end if is_cut or is_last else len(held) - _beginning_of(held, stops)
            text, held = held[:ready], "" if is_cut else held[ready:]
            is_over = is_over or is_cut
            if is_last and text:
                yield _event(_only_text(chunk, text))
                text = ""
            if is_last and is_over:
                choice["finish_reason"] = "stop"
            if text or is_last or key not in place:
                yield _event({**chunk, "choices": [_with_text(choice, text)]})
    yield DONE


def _text_of(choice: dict[str, Any], chat: str) -> tuple[dict[str, Any], str]:
    """Where the text is: in chats within a message or what is added to one."""
    return (choice[chat], "content") if chat in choice else (choice, "text")


def _with_text(choice: dict[str, Any], text: str) -> dict[str, Any]:
    place, key = _text_of(choice, "delta")
    told = {**place, key: text} if text or key == "text" else {name: one for name, one in place.items() if name != key}
    return {**choice, "delta": told} if place is not choice else told


def _only_text(chunk: dict[str, Any], text: str) -> dict[str, Any]:
    """Before the last event, which says why it is the last."""
    choice = {name: one for name, one in chunk["choices"][0].items() if name != "finish_reason"}
    rest = {name: one for name, one in chunk.items() if name != "usage"}
    return {**rest, "choices": [_with_text(choice, text)]}


def _first(text: str, stops: Sequence[str]) -> int:
    """Where the first stop text begins, or the text ends."""
    return min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))


def _beginning_of(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end may become a stop text."""
    return max((size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)


def _read(event: str) -> dict[str, Any]:
    """transformers puts what went wrong between quotes as it is, whatever is in it."""
    try:
        found: dict[str, Any] = json.loads(event)
    except ValueError:
        found = {"error": event}
    return found if "choices" in found else _error(str(found.get("error", found)), 500)


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _error(message: str, status: int, code: str | None = None) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def say_errors_as_openai(application: FastAPI) -> None:
    """Whatever goes wrong."""

    async def refused(_: Request, error: Any) -> JSONResponse:
        told: dict[str, Any] = error.detail if isinstance(error.detail, dict) else {"message": str(error.detail)}
        return JSONResponse(_error(told["message"], error.status_code, told.get("code")), status_code=error.status_code)

    async def invalid(_: Request, error: Any) -> JSONResponse:
        return JSONResponse(_error(f"the request is no JSON object: {error.errors()[0]['msg']}", 400), status_code=400)

    async def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(_error(f"{type(error).__name__}: {error}", 500), status_code=500)

    application.add_exception_handler(AnyHTTPException, refused)
    application.add_exception_handler(RequestValidationError, invalid)
    application.add_exception_handler(Exception, failed)
