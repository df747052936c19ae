"""Made-up AG News: articles whose words say which of the four classes they are of."""

import random
from typing import Any

# In the order of the labels 0 to 3: who, does what.
_WORDS = (
    (("The president", "A minister", "The parliament", "A peace envoy"), ("signs a treaty", "calls an election")),
    (("The striker", "A young goalkeeper", "The home team", "The coach"), ("wins the final", "scores twice")),
    (("The bank", "A car maker", "The airline", "An oil company"), ("reports a profit", "cuts its forecast")),
    (("A satellite", "The new browser", "A laboratory", "The chip"), ("is faster than before", "finds a new planet")),
)
_PLACES = ("in the capital", "after a long week", "near the coast", "for the third time")


def make_ag_news(draw: random.Random) -> dict[str, Any]:
    """``text`` and ``label``, as on the hub."""
    label = draw.randrange(len(_WORDS))
    who, what = map(draw.choice, _WORDS[label])
    place, days = draw.choice(_PLACES), draw.randint(2, 90)
    return {"text": f"{who} {what} {place} {who} {what}, as was said {days} days ago.", "label": label}
