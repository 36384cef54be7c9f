"""Memory as the walker reads it: sorted ranges over one buffer."""

from __future__ import annotations

import numpy as np

from deadreckon.kernels._jit import kernel

__all__ = ["load", "region"]


@kernel()
def region(address, start, end):
    """Return the index of the range that holds an address, -1 for none."""
    low, high = 0, len(start)
    while low < high:
        middle = (low + high) >> 1
        if start[middle] <= address:
            low = middle + 1
        else:
            high = middle
    if low > 0 and address < end[low - 1]:
        return low - 1
    return -1


@kernel()
def load(address, size, start, end, offset, buffer):
    """Return (little-endian word, True), or (0, False) where memory does not hold all of it."""
    i = region(address, start, end)
    if i < 0 or end[i] - address < np.uint64(size):
        return np.uint64(0), False
    at = offset[i] + np.int64(address - start[i])
    value = np.uint64(0)
    for k in range(size):
        value |= np.uint64(buffer[at + k]) << np.uint64(8 * k)
    return value, True
