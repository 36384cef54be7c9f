"""Batch look-up: many addresses against one SymTable, inlined calls expanded.

The oracle is symbolic's ``SymCache.lookup`` (tests/kernels/test_ranges.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel
from deadreckon.model.tables import NONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deadreckon.model.tables import SymTable

__all__ = ["MAX_INLINE_DEPTH", "look_up"]

MAX_INLINE_DEPTH = 256
"""Inlined calls followed at one address; a damaged table could otherwise lead in a circle."""

_RU32 = array(types.uint32, readonly=True)
_RU32_2D = array(types.uint32, 2, readonly=True)


@kernel(
    types.int64(
        _RU32, _RU32, _RU32_2D, array(types.uint64, readonly=True), array(types.int64), array(types.uint32), types.int64
    )
)
def _look_up(range_start, range_loc, locations, rvas, first, found, max_depth):
    """Write each address's locations, innermost first, to ``found`` while it has room; return how many there are.

    ``first[i]:first[i + 1]`` are the places in ``found`` of address i.
    """
    n = 0
    room = len(found)
    count = len(range_start)
    n_locations = len(locations)
    for i in range(len(rvas)):
        first[i] = n
        rva = rvas[i]
        if rva > np.uint64(0xFFFF_FFFF) or count == 0:
            continue
        key = np.uint32(rva)
        # A search without branches on the data: the processor can't mispredict what it doesn't have to guess.
        low = 0
        length = count
        while length > 1:
            half = length >> 1
            low += half if range_start[low + half] <= key else 0
            length -= half
        if range_start[low] > key:
            continue
        location = range_loc[low]
        depth = 0
        while location < n_locations and depth < max_depth:
            if n < room:
                found[n] = location
            n += 1
            depth += 1
            location = locations[location, 3]
    first[len(rvas)] = n
    return n


def look_up(table: SymTable, rvas: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Return (first i64[n + 1], locations u32[m]): ``locations[first[i]:first[i + 1]]`` belong to ``rvas[i]``.

    ``rvas`` u64[n] are relative to the module's base and already moved into the call where they are return
    addresses. An address the table does not cover has no locations. Locations are rows of ``table.locations``,
    innermost (inlined) first.
    """
    rvas = np.ascontiguousarray(rvas, np.uint64)
    first = np.empty(len(rvas) + 1, np.int64)
    found = np.empty(2 * len(rvas) + 16, np.uint32)
    while True:
        n = _look_up(table.range_start, table.range_loc, table.locations, rvas, first, found, MAX_INLINE_DEPTH)
        if n <= len(found):
            return first, found[:n]
        found = np.empty(n, np.uint32)


assert NONE == 0xFFFF_FFFF  # The end of an inline chain is "no row of locations", whatever their number.
