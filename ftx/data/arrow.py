"""Arrow arrays of texts and numbers, made without ``pyarrow.array``, which would import pandas at its first use."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def texts(values: Sequence[str]) -> pa.Array:
    """Of at most 2 GiB together."""
    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def numbers(values: np.ndarray) -> pa.Array:
    """Of the type that the array has."""
    content = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(content.dtype), len(content), [None, pa.py_buffer(content)])


def lists(values: np.ndarray, counts: np.ndarray) -> pa.Array:
    """So many of the numbers in the first list, so many in the second, and so on."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return pa.LargeListArray.from_arrays(numbers(offsets), numbers(values))
