"""Real data that lies beside the checkout; a test that needs what is not there is skipped and says so."""

import os
from pathlib import Path
from typing import Any

import pytest

from ftx.data.files import read_rows
from ftx.data.rows import Row

SHARED = Path(os.environ.get("FTX_SHARED_DATA", Path(__file__).parents[1] / "../shared/data"))


def real_path(name: str) -> Path:
    """A file or folder of the real data."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the real data {name} in FTX_SHARED_DATA (looked in {SHARED})")
    return path


def real_rows(name: str) -> list[dict[str, Any]]:
    """All rows of a file, every one of them good."""
    rows = list(read_rows(real_path(name)))
    assert all(isinstance(row, Row) for row in rows)
    return [row.value for row in rows]
