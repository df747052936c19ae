"""A server that speaks OpenAI's API answers: vLLM, llama.cpp, transformers serve, or one far away."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.data.conversation import Message
from ftx.engines.engine import Answer, OnAnswer, Request, failed
from ftx.environment import openai_key
from ftx.errors import UserError
from ftx.tool_calls import Call

# Of one answer; what does not answer at all is tried again, with growing pauses.
TIMEOUT_SECONDS = 600.0
TRIES = 5


class OpenAIEngine:
    """``evaluation.batch_size`` questions are on their way at a time; the server's own template renders them."""

    def __init__(self, evaluation: EvaluationConfig) -> None:
        """Raises UserError where nobody answers, or which model is meant is not clear."""
        try:
            from openai import OpenAI
        except ImportError as error:
            raise UserError("evaluation.engine=openai: needs the openai package; pip install 'ftx[openai]'") from error

        self._url, self._side_by_side = str(evaluation.url), evaluation.batch_size
        self._client = OpenAI(base_url=self._url, api_key=openai_key(), timeout=TIMEOUT_SECONDS, max_retries=TRIES)
        self._model = evaluation.served_model or self._only_model()

    def answer(self, requests: Sequence[Request], on_answer: OnAnswer | None = None) -> list[Answer]:
        answers: dict[int, Answer] = {}
        with ThreadPoolExecutor(self._side_by_side) as at_once:
            asked = {at_once.submit(self._ask, request): place for place, request in enumerate(requests)}
            for done in as_completed(asked):
                answers[asked[done]] = done.result()
                if on_answer:
                    on_answer(asked[done], done.result())
        return [answers[place] for place in range(len(requests))]

    def _only_model(self) -> str:
        from openai import OpenAIError

        try:
            names = [model.id for model in self._client.with_options(max_retries=0).models.list()]
        except OpenAIError as error:
            raise UserError(
                f"evaluation.url={self._url}: no answer there ({error}); start the server, or mend the address "
                "(up to and with /v1)"
            ) from error
        if len(names) != 1:
            raise UserError(
                f"evaluation.url={self._url}: serves {', '.join(names) or 'no model'}; "
                "say which with evaluation.served_model=NAME"
            )
        return names[0]

    def _ask(self, request: Request) -> Answer:
        from openai import OpenAIError

        began = time.time()
        options: dict[str, Any] = {"tools": [_as_tool(tool) for tool in request.tools]} if request.tools else {}
        if request.temperature > 0:
            options |= {"top_p": request.top_p, "seed": request.drawn_by % 2**31}
        try:
            completion = self._client.chat.completions.create(
                model=self._model,
                messages=[_as_sent(message) for message in request.messages],  # type: ignore[misc]
                max_tokens=request.max_new_tokens,
                temperature=request.temperature,
                **options,
            )
        except OpenAIError as error:
            return failed(_why(error))
        return _read(completion, began)


def _why(error: Exception) -> str:
    """With the server's own words, where it said any."""
    said = getattr(getattr(error, "response", None), "text", "")
    return f"{type(error).__name__}: {said or error}"


def _read(completion: Any, began: float) -> Answer:
    if not completion.choices:
        return failed("the server's answer has no choice in it")
    choice, usage = completion.choices[0], completion.usage
    message = choice.message
    thought = getattr(message, "reasoning_content", None)
    text = (f"<think>{thought}</think>" if thought else "") + (message.content or "")
    return Answer(
        text=text,
        tokens=usage.completion_tokens if usage else 0,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        began=began,
        ended=time.time(),
        finish="length" if choice.finish_reason == "length" else "stop",
        calls=tuple(map(_call, message.tool_calls)) if message.tool_calls else None,
    )


def _call(made: Any) -> Call:
    """One whose arguments are no JSON object is kept as it came, for the task to count."""
    try:
        arguments = json.loads(made.function.arguments)
    except ValueError:
        arguments = None
    known = arguments if isinstance(arguments, dict) else {"": made.function.arguments}
    return Call(made.function.name, known)


def _as_tool(tool: dict[str, Any]) -> dict[str, Any]:
    return tool if tool.get("type") == "function" else {"type": "function", "function": tool}


def _as_sent(message: Message) -> Message:
    """With arguments as text, which is what the API takes."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    return {**message, "tool_calls": [_call_as_sent(number, call) for number, call in enumerate(calls)]}


def _call_as_sent(number: int, call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    named = {"name": function["name"], "arguments": text}
    return {"id": call.get("id", f"call_{number}"), "type": "function", "function": named}
