"""Made-up traces of notebook agents, with the columns of jupyter-agent-dataset."""

import random
from typing import Any

_RUN, _ANSWER = "add_and_execute_jupyter_code_cell", "final_answer"
_COLUMNS = ("price", "age", "distance", "score")


def make_jupyter_agent(draw: random.Random) -> dict[str, Any]:
    """A cell that reads a file and counts, and the answer."""
    column, mean = draw.choice(_COLUMNS), draw.randint(1, 99)
    question = f"What is the mean {column} in data.csv?"
    messages = [
        {"role": "system", "content": "You answer questions about files with a notebook."},
        {"role": "user", "content": question},
        _calling("I read the file.", _RUN, code=f"import pandas\npandas.read_csv('data.csv')['{column}'].mean()"),
        {"role": "tool", "content": f"{mean}.0"},
        _calling("", _ANSWER, answer=f"{mean}"),
    ]
    return {
        "id": f"made-up/{draw.randrange(10**6)}",
        "messages": messages,
        "tools": [
            _tool(_RUN, "Runs a cell and returns its output.", "code"),
            _tool(_ANSWER, "Gives the answer.", "answer"),
        ],
        "question": question,
        "answer": f"{mean}",
        "edu_score": draw.randint(1, 5),
        "files_used": ["data.csv"],
        "packages_used": ["pandas"],
        "kaggle_dataset_name": "made-up/data",
        "executor_type": "e2b",
        "original_notebook": "",
    }


def _calling(said: str, name: str, **arguments: str) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": said, "tool_calls": [call]}


def _tool(name: str, description: str, argument: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
