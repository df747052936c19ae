"""Made-up chats in the plain formats: messages, prompt and completion, ShareGPT, Alpaca."""

import random
from typing import Any

_TASKS = (
    ("Name the capital of {}.", {"France": "Paris", "Kenya": "Nairobi", "Peru": "Lima", "Japan": "Tokyo"}),
    ("What is the opposite of {}?", {"warm": "cold", "long": "short", "early": "late", "full": "empty"}),
    ("Write {} in capitals.", {"river": "RIVER", "stone": "STONE", "cloud": "CLOUD", "bread": "BREAD"}),
)


def make_messages(draw: random.Random) -> dict[str, Any]:
    """One or two questions with their answers, every third after a system turn; id and source as in Tulu's mixtures."""
    messages = [{"role": "system", "content": "Answer in one sentence."}] if draw.random() < 1 / 3 else []
    for _ in range(draw.randint(1, 2)):
        question, answer = _exchange(draw)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": f"made_up_{draw.randrange(10**6)}", "messages": messages, "source": "made-up"}


def make_prompt_completion(draw: random.Random) -> dict[str, Any]:
    prompt, completion = _exchange(draw)
    return {"prompt": prompt, "completion": completion}


def make_sharegpt(draw: random.Random) -> dict[str, Any]:
    question, answer = _exchange(draw)
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}


def make_alpaca(draw: random.Random) -> dict[str, Any]:
    instruction, output = _exchange(draw)
    return {"instruction": instruction, "input": "", "output": output}


def _exchange(draw: random.Random) -> tuple[str, str]:
    asked, answers = draw.choice(_TASKS)
    about = draw.choice(list(answers))
    times = draw.randint(2, 99)
    return f"{asked.format(about)} Repeat the number {times}.", f"It is {answers[about]}, and the number is {times}."
