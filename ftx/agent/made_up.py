"""A made-up benchmark of questions about tables, in the files that DABStep has."""

import json

_PAYMENTS = (("Alfa", "NL", 12.5), ("Beta", "BE", 30.0), ("Alfa", "NL", 7.5), ("Gamma", "NL", 20.0))
_GUIDELINES = "Answer must be just a number rounded to 1 decimal."
# Question, level, answer.
_ASKED = (
    ("What is the total amount of all payments of Alfa?", "easy", "20.0"),
    ("What is the largest amount of a payment?", "easy", "30.0"),
    ("What is the total amount of all payments from NL?", "hard", "40.0"),
    ("What is the mean amount of the payments from BE?", "hard", "30.0"),
)


def dabstep_files() -> dict[str, str]:
    """Path in the benchmark's folder → text."""
    tasks = [
        {"task_id": str(number), "question": question, "guidelines": _GUIDELINES, "level": level, "answer": answer}
        for number, (question, level, answer) in enumerate(_ASKED, 1)
    ]
    withheld = [{**task, "answer": ""} for task in tasks]
    table = "".join(f"{name},{country},{amount}\n" for name, country, amount in _PAYMENTS)
    return {
        "dev.jsonl": _lines(tasks),
        "test.jsonl": _lines(withheld),
        "context/payments.csv": f"merchant,country,amount\n{table}",
        "context/manual.md": "Amounts are in euros. A country is that of the card.\n",
    }


def _lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
