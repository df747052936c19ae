"""Made-up Glaive function calling v2: turns in one text, calls as ``<functioncall>`` with quoted arguments."""

import json
import random
from typing import Any

_PREAMBLE = "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -"
_CITIES = ("Oslo", "Lagos", "Quito", "Hanoi")
_END = "<|endoftext|>"


def make_glaive_v2(draw: random.Random) -> dict[str, Any]:
    """``system`` and ``chat``: a question that a function answers, or one that no function is for."""
    city, days = draw.choice(_CITIES), draw.randint(1, 7)
    function = {
        "name": "get_forecast",
        "description": "Get the weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
            },
            "required": ["city", "days"],
        },
    }
    turns = _called(city, days, draw.randint(-5, 35)) if draw.random() < 0.7 else _uncalled(city)
    return {"system": f"{_PREAMBLE}\n{json.dumps(function, indent=4)}\n", "chat": "\n\n\n".join(turns) + "\n"}


def _called(city: str, days: int, degrees: int) -> list[str]:
    arguments = json.dumps({"city": city, "days": days})
    result = json.dumps({"degrees": degrees})
    return [
        f"USER: What will the weather be like in {city} in the next {days} days?",
        f'ASSISTANT: <functioncall> {{"name": "get_forecast", "arguments": \'{arguments}\'}} {_END}',
        f"FUNCTION RESPONSE: {result}",
        f"ASSISTANT: In {city} it will be {degrees} degrees. {_END}",
    ]


def _uncalled(city: str) -> list[str]:
    return [
        f"USER: Can you book me a flight to {city}?",
        f"ASSISTANT: I can only tell you the weather in {city}, flights are beyond what I can do. {_END}",
    ]
