"""Answers to DABench's questions, ``@name[value]`` for each thing asked, by the benchmark's own rule."""

import re
from collections.abc import Mapping

_LABEL = re.compile(r"@(\w+)\[(.*?)\]")
_TOLERANCE = 1e-6


def read_labels(text: str) -> dict[str, str]:
    """Every ``@name[value]`` in a text; the last one of a name counts, and a value ends at the first ``]``."""
    return dict(_LABEL.findall(text))


def labels_equal(given: Mapping[str, str], gold: Mapping[str, str]) -> bool:
    """Whether every gold label is given as it is; what is given beside them does not count."""
    return all(name in given and _equal(given[name], value) for name, value in gold.items())


def _equal(given: str, gold: str) -> bool:
    """Texts exactly; numbers by value: rounding as the question asks for it is part of the answer."""
    if given == gold:
        return True
    try:
        return abs(float(given) - float(gold)) < _TOLERANCE
    except ValueError:
        return False
