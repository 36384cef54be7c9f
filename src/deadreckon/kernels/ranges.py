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
        _RU32,
        _RU32,
        _RU32_2D,
        array(types.uint64, readonly=True),
        array(types.uint32),
        types.int64,
        array(types.int64),
        array(types.uint32),
        types.int64,
    )
)
def _look_up(range_start, range_loc, locations, rvas, grid, shift, first, found, max_depth):
    """Write each address's locations, innermost first, to ``found`` while it has room; return how many there are.

    ``first[i]:first[i + 1]`` are the places in ``found`` of address i. ``grid`` is room for the last range that begins
    at or before each multiple of ``1 << shift``, or empty for a search of the whole table.
    """
    n = 0
    room = len(found)
    count = len(range_start)
    n_locations = len(locations)
    cells = len(grid) - 1
    at = 0
    for cell in range(len(grid)):
        while at + 1 < count and np.int64(range_start[at + 1]) <= cell << shift:
            at += 1
        grid[cell] = at
    for i in range(len(rvas)):
        first[i] = n
        rva = rvas[i]
        if rva > np.uint64(0xFFFF_FFFF) or count == 0:
            continue
        key = np.uint32(rva)
        low = 0
        length = count
        if cells >= 0:
            cell = min(np.int64(key) >> shift, cells)
            low = np.int64(grid[cell])
            length = (np.int64(grid[cell + 1]) + 1 if cell < cells else count) - low
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
    grid, shift = _grid(table.range_start, len(rvas))
    first = np.empty(len(rvas) + 1, np.int64)
    found = np.empty(2 * len(rvas) + 16, np.uint32)
    while True:
        n = _look_up(
            table.range_start, table.range_loc, table.locations, rvas, grid, shift, first, found, MAX_INLINE_DEPTH
        )
        if n <= len(found):
            return first, found[:n]
        found = np.empty(n, np.uint32)


def _grid(range_start: NDArray[np.uint32], addresses: int) -> tuple[NDArray[np.uint32], int]:
    """Return room for a grid of no more cells than ranges, where the batch is large enough to be worth making one.

    A search of 150,000 ranges mispredicts every other of its 17 steps; one within a cell has two or three steps.
    """
    count = len(range_start)
    if addresses < count or not count:
        return np.empty(0, np.uint32), 0
    last = int(range_start[-1])
    shift = max(0, last.bit_length() - count.bit_length() + 1)
    return np.empty((last >> shift) + 1, np.uint32), shift


assert NONE == 0xFFFF_FFFF  # The end of an inline chain is "no row of locations", whatever their number.
