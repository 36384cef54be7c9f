"""Memory as the walker reads it: sorted ranges over one buffer.

Kernels hand it on as one tuple: (start u64[n], end u64[n], offset i64[n], buffer u8[]).
"""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._jit import kernel
from deadreckon.kernels._leb import fixed

__all__ = ["find", "load", "region"]


@kernel()
def find(column, count, rva):
    """Return the last index with ``column[i] <= rva``, -1 for none."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if column[middle] <= rva:
            low = middle + 1
        else:
            high = middle
    return low - 1


@kernel()
def region(address, start, end):
    """Return the index of the range that holds an address, -1 for none."""
    i = find(start, len(start), address)
    return i if i >= 0 and address < end[i] else -1


@kernel()
def load(address, size, memory):
    """Return (little-endian word, True), or (0, False) where memory does not hold all of it."""
    start, end, offset, buffer = memory
    i = region(address, start, end)
    if i < 0 or end[i] - address < np.uint64(size):
        return np.uint64(0), False
    return fixed(buffer, offset[i] + np.int64(address - start[i]), size), True
