"""Made-up problems with worked answers, as MathCodeInstruct, SciBench and GSM8K have them."""

import random
from typing import Any

_THINGS = ("apples", "books", "stamps", "marbles", "tickets")
_NAMES = ("Ada", "Emil", "Noor", "Ines")


def make_mathcodeinstruct(draw: random.Random) -> dict[str, Any]:
    """One problem, its solution in blocks of text, code and what the code printed."""
    a, b, things, name = draw.randint(2, 40), draw.randint(2, 40), draw.choice(_THINGS), draw.choice(_NAMES)
    question = f"{name} has {a} {things} and gets {b} more. How many {things} are there?"
    blocks = [
        _block("text", f"We add {a} and {b}."),
        _block("code", f"print({a} + {b})"),
        _block("execution", f"{a + b}"),
        _block("text", f"There are $\\boxed{{{a + b}}}$ {things}."),
    ]
    return {
        "messages": [
            {"role": "system", "content": [_block("text", "")]},
            {"role": "user", "content": [_block("text", question)]},
            {"role": "assistant", "content": blocks},
        ]
    }


def make_scibench(draw: random.Random) -> dict[str, Any]:
    """One problem; a fifth of them without a solution, as most are."""
    mass, speed = draw.randint(2, 30), draw.randint(2, 20)
    solved = draw.random() < 0.8
    return {
        "problem_text": f"A body of {mass} kg moves at {speed} m/s. What is its momentum?",
        "answer_latex": f" {mass * speed}",
        "answer_number": str(mass * speed),
        "unit": "kg m/s",
        "source": draw.choice(("fund", "class", "thermo")),
        "problemid": f" {draw.randint(1, 9)}.{draw.randint(1, 99)}",
        "comment": " ",
        "solution": f"Momentum is mass times velocity, ${mass} \\cdot {speed} = {mass * speed}$." if solved else "",
    }


def make_gsm8k(draw: random.Random) -> dict[str, Any]:
    """``question`` and ``answer``, with the marks of the calculator."""
    a, b, things, name = draw.randint(2, 20), draw.randint(2, 20), draw.choice(_THINGS), draw.choice(_NAMES)
    return {
        "question": f"{name} fills {a} boxes with {b} {things} each. How many {things} are that?",
        "answer": f"There are {a}*{b}=<<{a}*{b}={a * b}>>{a * b} {things}.\n#### {a * b}",
    }


def _block(kind: str, content: str) -> dict[str, str]:
    return {"type": kind, "content": content}
