"""What the model is told: in a notebook, and without one."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftx.agent.benchmarks import Question
from ftx.data.conversation import Message

RUN_CELL, FINAL_ANSWER = "add_and_execute_jupyter_code_cell", "final_answer"
PACKAGES = ("numpy", "pandas", "scipy", "scikit-learn", "matplotlib")
# The beginning of a file that a model without a notebook is shown.
_SHOWN_LINES, _SHOWN_CHARACTERS = 5, 1500


def _tool(name: str, description: str, argument: str, meaning: str) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {argument: {"type": "string", "description": meaning}},
        "required": [argument],
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = (
    _tool(
        RUN_CELL,
        "Adds a Python cell to the notebook, runs it and returns what it printed and the value of its last line. "
        "Variables stay for later cells.",
        "code",
        "The cell's Python code.",
    ),
    _tool(FINAL_ANSWER, "Gives the answer to the question and ends the work.", "answer", "The answer alone."),
)

_ROLE = f"""You are a data analyst who answers questions about files by working in a Jupyter notebook.

You run Python {sys.version_info.major}.{sys.version_info.minor} with {", ".join(PACKAGES)} installed; there is no \
network. Work in small steps: one short cell at a time, and look at what it returns before you write the next. Look \
at the files, and read those that explain the others, before you compute. Do not draw plots, nobody sees them. Long \
output is cut. When you are sure of the answer, call {FINAL_ANSWER}; do not stop before."""

_ANALYST = "You are a data analyst who answers questions about files."

_STYLE = (
    "Keep the answer short and concise, in exactly the form that the guidelines ask for, without explanations. If the "
    "question has no answer in these files, the answer is 'Not Applicable'."
)


def notebook_messages(question: Question) -> tuple[Message, ...]:
    """For a model with TOOLS."""
    files = "\n".join(f"- data/{name}" for name in question.files)
    asked = f"""Files, relative to the notebook's folder:
{files}

Question:
{question.text}

Guidelines:
{question.guidelines}
{_STYLE}

Begin with a first small cell."""
    return {"role": "system", "content": _ROLE}, {"role": "user", "content": asked}


def plain_messages(question: Question, files: Mapping[str, Path]) -> tuple[Message, ...]:
    """For a model that sees the question and the files' beginnings, and answers in text."""
    shown = "\n\n".join(f"{name} begins:\n{_beginning(files[name])}" for name in question.files)
    asked = f"""{shown}

Question:
{question.text}

Guidelines:
{question.guidelines}
{_STYLE}

Reply with the answer alone."""
    return {"role": "system", "content": _ANALYST}, {"role": "user", "content": asked}


def _beginning(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as opened:
        text = opened.read(_SHOWN_CHARACTERS)
    return "\n".join(text.splitlines()[:_SHOWN_LINES])


def reminder(*, was_cut: bool, unreadable: bool) -> Message:
    """To a model that called no tool."""
    if was_cut:
        why = "Your message was too long and was cut off before it called a tool."
    elif unreadable:
        why = "The tool call in your message could not be read."
    else:
        why = "Your message called no tool."
    return {"role": "user", "content": f"{why} Call {RUN_CELL} to go on, or {FINAL_ANSWER} with the answer."}
