"""Data that is made on the spot where ``debug=tiny`` replaces what is on the hub: how its paths are written."""

MADE_UP = "made-up:"
# Of each split.
ROWS = 160


def is_made_up(path: str) -> bool:
    """Whether a path stands for rows, or a benchmark, that are made up when they are read."""
    return path.startswith(MADE_UP)


def kind_of(path: str) -> str:
    """The format of the rows, or the name of the benchmark."""
    return path.removeprefix(MADE_UP)
