"""AG News as classification: one article, one of four categories, answered as JSON."""

import html
import json
import re
from typing import Any

from ftx.data.formats.checks import Parts, required_text, shown

CATEGORIES = ("World", "Sports", "Business", "Sci/Tech")
SYSTEM = (
    f"You are a news article classifier. Answer with one of {', '.join(CATEGORIES[:-1])} and {CATEGORIES[-1]}, "
    'as {"category":"..."}.'
)
# The published csv files have no header.
COLUMNS = ("class", "title", "description")

_ANSWERS = {category: json.dumps({"category": category}, separators=(",", ":")) for category in CATEGORIES}

# Entities lost their ``&`` to a space (`` #39;s``), and a few were escaped twice (`` amp;amp;``). Only these names are
# known, for words that end in a semicolon stay.
_NAMES = "quot|amp|apos|lt|gt|nbsp|hellip|[mn]dash|[lr][sd]quo|[aeiouAEIOU](?:acute|grave|circ|uml)|[nN]tilde|[cC]cedil"
_ENTITY = re.compile(rf"[& ](?:amp;)*(#\d+;|#[xX][0-9a-fA-F]+;|(?:{_NAMES});)")


def read_ag_news(row: dict[str, Any]) -> Parts:
    """``class`` 1-4, ``title`` and ``description``, or ``label`` 0-3 and ``text``, which is both of them."""
    if "text" in row and "label" in row:
        text, category = required_text(row, "text"), _category("label", row["label"], first=0)
    elif all(column in row for column in COLUMNS):
        text = f"{required_text(row, 'title')} {required_text(row, 'description')}"
        category = _category("class", row["class"], first=1)
    else:
        raise ValueError(
            "must have class, title and description (to be named for a csv without header), or text and label"
        )
    question = f"Classify the following news article: {repaired(text)}"
    return (
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question},
        {"role": "assistant", "content": _ANSWERS[category]},
    ), ()


def repaired(text: str) -> str:
    r"""The text with its entities whole again and resolved, ``\$`` as ``$`` and other backslashes as line ends."""
    lines = text.replace("\\$", "$").replace("\\", "\n")
    return _ENTITY.sub(lambda found: html.unescape(f"&{found[1]}"), lines).strip()


def _category(column: str, value: Any, first: int) -> str:
    by_number = {str(first + index): category for index, category in enumerate(CATEGORIES)}
    category = None if isinstance(value, bool) else by_number.get(str(value).strip())
    if category is None:
        raise ValueError(f"{column} must be one of {', '.join(by_number)}, not {shown(value)}")
    return category
