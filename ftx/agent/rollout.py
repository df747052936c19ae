"""One model at work on one question: what it is asked next, and what becomes of what it answers."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ftx.agent.cells import shown
from ftx.agent.notebook import Notebook
from ftx.agent.prompts import FINAL_ANSWER, RUN_CELL, reminder
from ftx.data.conversation import Message
from ftx.engines.engine import Answer
from ftx.tasks.task import Record
from ftx.tool_calls import Call, read_calls

# So many cells in a row that fail are a loop, where the work ends with them.
LOOP_LENGTH = 3
# Where a call begins, in the forms that mark it.
CALL_MARKS = ("<tool_call>", "<functioncall>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<|python_tag|>")
# What engines say of a prompt that the model cannot take.
_TOO_LONG = ("too long", "context length", "context window", "maximum context")


class End(StrEnum):
    """How the work on a question ended."""

    ANSWERED = "answered"
    NO_TOOL_CALL = "no_tool_call"
    ERROR_LOOP = "error_loop"
    TURN_LIMIT = "turn_limit"
    ENGINE_FAILED = "engine_failed"
    TOO_LONG = "too_long_context"


@dataclass
class Spent:
    """What the work took so far."""

    turns: int = 0
    reminders: int = 0
    tool_calls: int = 0
    """Without final answers."""
    tool_errors: int = 0
    failed_in_a_row: int = 0
    tokens: int = 0
    prompt_tokens: int = 0


@dataclass
class Rollout:
    """``take`` is given the model's answers until ``end`` says how it ended; every turn goes into ``log``.

    ``notebook`` is None for a model without tools: its first answer is the last.
    """

    id: str
    messages: list[Message]
    log: Path
    notebook: Notebook | None
    max_turns: int
    retries: int
    wall_seconds: float
    end: End | None = None
    answer: str | None = None
    error: str = ""
    spent: Spent = field(default_factory=Spent)
    began: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text(_line({"messages": self.messages}), encoding="utf-8")

    def take(self, answer: Answer) -> None:
        """One turn: run what the model asks for, and note what came of it."""
        self.spent.turns += 1
        self.spent.tokens += answer.tokens
        self.spent.prompt_tokens += answer.prompt_tokens
        before = len(self.messages)
        if answer.finish == "failed":
            self.error = answer.error
            self.end = End.TOO_LONG if _is_too_long(answer.error) else End.ENGINE_FAILED
        elif self.notebook is None:
            self.messages.append({"role": "assistant", "content": answer.text})
            self._finish(answer.text.rpartition("</think>")[2])
        else:
            self._act(answer)
        if self.end is None and self.spent.turns >= self.max_turns:
            self.end = self._out_of_turns()
        self._note(answer, self.messages[before:])

    def record(self) -> Record:
        """The outcome; ``text`` is all that the model said."""
        assert self.end is not None
        return {
            "id": self.id,
            "answer": self.answer,
            "end": str(self.end),
            **vars(self.spent),
            "began": self.began,
            "ended": time.time(),
            "finish": "failed" if self.end in (End.ENGINE_FAILED, End.TOO_LONG) else "stop",
            "error": self.error,
            "text": "\n\n".join(_in_words(message) for message in self.messages if message["role"] == "assistant"),
        }

    def _out_of_turns(self) -> End:
        if self.spent.tool_calls == 0:
            return End.NO_TOOL_CALL
        return End.ERROR_LOOP if self.spent.failed_in_a_row >= LOOP_LENGTH else End.TURN_LIMIT

    def _act(self, answer: Answer) -> None:
        """Not every template has room for several calls in a message: the first is the one that counts."""
        calls = answer.calls if answer.calls is not None else read_calls(answer.text)
        if not calls:
            self.messages.append({"role": "assistant", "content": answer.text})
            self._remind(answer, unreadable=calls is None)
            return
        call, name = calls[0], f"call-{self.spent.turns}"
        function = {"name": call.name, "arguments": call.arguments}
        called = {"id": name, "type": "function", "function": function}
        self.messages.append({"role": "assistant", "content": before_calls(answer.text), "tool_calls": [called]})
        returned = self._call(call)
        if self.end is None:
            if len(calls) > 1:
                returned += f"\n[this was the first of {len(calls)} calls; call one tool in a message]"
            self.messages.append({"role": "tool", "name": call.name, "tool_call_id": name, "content": returned})

    def _remind(self, answer: Answer, *, unreadable: bool) -> None:
        if self.spent.reminders >= self.retries:
            self.end = End.NO_TOOL_CALL
            return
        self.spent.reminders += 1
        self.messages.append(reminder(was_cut=answer.finish == "length", unreadable=unreadable))

    def _call(self, call: Call) -> str:
        """What the model is told of a call; a final answer ends the work."""
        if call.name == FINAL_ANSWER and "answer" in call.arguments:
            self._finish(str(call.arguments["answer"]))
            return ""
        if call.name == RUN_CELL and isinstance(code := call.arguments.get("code"), str):
            return self._run(code)
        self._count(failed=True)
        if call.name in (RUN_CELL, FINAL_ANSWER):
            return f"[{call.name} needs {'code' if call.name == RUN_CELL else 'answer'}, a text]"
        return f"[there is no tool {call.name}; there are {RUN_CELL} and {FINAL_ANSWER}]"

    def _run(self, code: str) -> str:
        assert self.notebook is not None
        cell = self.notebook.run(code)
        self._count(failed=cell.failed)
        return shown(cell, self.wall_seconds)

    def _count(self, *, failed: bool) -> None:
        self.spent.tool_calls += 1
        self.spent.tool_errors += failed
        self.spent.failed_in_a_row = self.spent.failed_in_a_row + 1 if failed else 0

    def _finish(self, answer: str) -> None:
        self.answer, self.end = answer.strip(), End.ANSWERED

    def _note(self, answer: Answer, messages: Sequence[Message]) -> None:
        turn = {
            "turn": self.spent.turns,
            "messages": list(messages),
            "tokens": answer.tokens,
            "prompt_tokens": answer.prompt_tokens,
            "generation_seconds": answer.ended - answer.began,
            "seconds": time.time() - self.began,
            "finish": answer.finish,
            "error": answer.error,
            "end": self.end and str(self.end),
        }
        with self.log.open("a", encoding="utf-8") as file:
            file.write(_line(turn))


def before_calls(text: str) -> str:
    """What is said before the first call; a call that nothing marks is all that is said after the thinking."""
    thought, closed, said = text.rpartition("</think>")
    found = [at for mark in CALL_MARKS if (at := said.find(mark)) >= 0]
    return (thought + closed + said[: min(found, default=0)]).rstrip()


def _is_too_long(error: str) -> bool:
    return any(words in error.lower() for words in _TOO_LONG)


def _in_words(message: Message) -> str:
    """What the model said, and the code or answer that it gave a tool."""
    calls = [call["function"]["arguments"] for call in message.get("tool_calls", ())]
    return "\n".join([str(message["content"]), *(str(value) for call in calls for value in call.values())]).strip()


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
