"""Batch look-up of generated positions in a source map, and of original ones in its function names.

Only segments of the same generated line answer, as ECMA-426 has it (a consumer that falls back to earlier lines names
code that is not there); a range mapping goes on to later lines. At a position with several segments the last one is the
place, and the last that has a name gives the name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel
from deadreckon.model.tables import BEFORE_FIRST, EMPTY_LINE, MAPPED, NO_LINE, UNMAPPED

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from deadreckon.model.tables import FunctionTable, SourceMapTable

__all__ = ["Positions", "look_up", "look_up_functions"]

_MAX_SAME = 64
"""Segments of one position that are asked for a name; real maps have up to a dozen, a hostile one millions."""

_WIDTH = 16
_BEYOND = 1 << 32
"""A line and a column after every one that a table may have."""

_RU8, _RU32, _RI32 = (array(kind, readonly=True) for kind in (types.uint8, types.uint32, types.int32))
_RI32_2D = array(types.int32, 2, readonly=True)
_RI64 = array(types.int64, readonly=True)


@kernel(
    types.void(
        *(_RU32, _RU32, _RI32, _RI32_2D, _RU8, _RI64, _RI64),
        *(array(types.int64), array(types.int32, 2), array(types.uint8)),
        *(array(types.int64), array(types.int64), array(types.int64)),
    )
)
def _look_up(lines, first, column, place, ranged, wanted_line, wanted_column, segment, found, state, row, low, length):
    """Fill ``segment``, ``found`` and ``state`` for each wanted position.

    As many positions are searched in step as ``row``, ``low`` and ``length`` have room for: one after the other would
    wait for memory at each step.
    """
    rows = len(lines)
    count = len(wanted_line)
    empty = np.int64(lines[rows - 1]) + 1 - rows if rows else np.int64(0)
    for block in range(0, count, len(row)):
        size = min(len(row), count - block)
        # The line's row, or that of the last line before it: its number, less the empty lines before it.
        more = False
        for j in range(size):
            row[j] = max(min(wanted_line[block + j] - empty, rows - 1), 0)
            length[j] = max(min(wanted_line[block + j] + 1, rows) - row[j], 1)
            more |= length[j] > 1
        while more:
            more = False
            for j in range(size):
                half = length[j] >> 1
                row[j] += half if np.int64(lines[row[j] + half]) <= wanted_line[block + j] else 0
                length[j] -= half
                more |= length[j] > 1
        # The last segment of the row at or before the column.
        for j in range(size):
            low[j] = 0
            length[j] = 0
            if rows and lines[row[j]] == wanted_line[block + j]:
                low[j] = np.int64(first[row[j]])
                length[j] = np.int64(first[row[j] + 1]) - low[j]
                more |= length[j] > 1
        while more:
            more = False
            for j in range(size):
                half = length[j] >> 1
                low[j] += half if np.int64(column[low[j] + half]) <= wanted_column[block + j] else 0
                length[j] -= half
                more |= length[j] > 1
        for j in range(size):
            i = block + j
            at = low[j]
            here = row[j]
            segment[i] = -1
            for field in range(4):
                found[i, field] = -1
            line = wanted_line[i]
            limit = wanted_column[i]
            if rows == 0 or np.int64(lines[here]) > line:
                state[i] = EMPTY_LINE if rows else NO_LINE
                continue
            if length[j] == 0 or np.int64(column[at]) > limit:
                state[i] = BEFORE_FIRST if length[j] else EMPTY_LINE if here + 1 < rows else NO_LINE
                # A range mapping goes on until the next segment, whichever line that is on.
                here -= 1 if length[j] else 0
                if len(ranged) == 0 or here < 0 or limit < 0:
                    continue
                at = np.int64(first[here + 1]) - 1
                original = place[at, 1] + (line - np.int64(lines[here]))
                if ranged[at] == 0 or place[at, 0] < 0 or (original | limit) >> 31 != 0:
                    continue
                segment[i] = at
                state[i] = MAPPED
                found[i, 0] = place[at, 0]
                found[i, 1] = original
                found[i, 2] = limit
                continue
            segment[i] = at
            if place[at, 0] < 0:
                state[i] = UNMAPPED
                continue
            state[i] = MAPPED
            for field in range(4):
                found[i, field] = place[at, field]
            beyond = limit - np.int64(column[at])
            if len(ranged) and ranged[at] and beyond:
                # The name is that of the segment's own position.
                found[i, 2] = min(place[at, 2] + beyond, np.int64(0x7FFF_FFFF))
                found[i, 3] = -1
            elif place[at, 3] < 0:
                stop = max(np.int64(first[here]), at - _MAX_SAME)
                other = at - 1
                while other >= stop and column[other] == column[at]:
                    if place[other, 3] >= 0:
                        found[i, 3] = place[other, 3]
                        break
                    other -= 1


@kernel(types.void(_RU32, _RI32_2D, _RI32_2D, array(types.int32)))
def _functions(first, at, places, names):
    """Write the name's index of the last row at or before each place, -1 where there is none."""
    sources = len(first) - 1
    for i in range(len(places)):
        names[i] = -1
        source = places[i, 0]
        if source < 0 or source >= sources:
            continue
        line = places[i, 1]
        column = places[i, 2]
        low = np.int64(first[source])
        length = np.int64(first[source + 1]) - low
        while length > 0:
            half = length >> 1
            middle = low + half
            if at[middle, 0] < line or (at[middle, 0] == line and at[middle, 1] <= column):
                low = middle + 1
                length -= half + 1
            else:
                length = half
        if low > np.int64(first[source]):
            names[i] = at[low - 1, 2]


@dataclass(slots=True)
class Positions:
    """What a batch of generated positions leads to, in its order.

    ``segment`` i64[q]: the row of the table that answered, -1 for none. ``place`` i32[q, 4]: source, original line,
    original column, name, all 0-based and -1 where there is none. ``state`` u8[q]: MAPPED, UNMAPPED, BEFORE_FIRST,
    EMPTY_LINE or NO_LINE (model/tables.py).
    """

    segment: NDArray[np.int64]
    place: NDArray[np.int32]
    state: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.segment)


def look_up(table: SourceMapTable, lines: ArrayLike, columns: ArrayLike) -> Positions:
    """Look up generated positions: 0-based lines, 0-based columns in UTF-16 units (byte offsets for bytecode)."""
    wanted_line = np.clip(np.asarray(lines, np.int64), -1, _BEYOND)
    wanted_column = np.clip(np.asarray(columns, np.int64), -1, _BEYOND)
    if wanted_line.shape != wanted_column.shape or wanted_line.ndim != 1:
        raise ValueError(f"as many lines as columns, in one dimension: {wanted_line.shape}, {wanted_column.shape}")
    count = len(wanted_line)
    found = Positions(np.empty(count, np.int64), np.empty((count, 4), np.int32), np.empty(count, np.uint8))
    t = table
    row, low, length = np.empty((3, _WIDTH), np.int64)
    _look_up(
        *(t.lines, t.first, t.column, t.place, t.ranged, wanted_line, wanted_column),
        *(found.segment, found.place, found.state, row, low, length),
    )
    return found


def look_up_functions(functions: FunctionTable, places: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the index in ``functions.names`` of the function around each of ``places`` (Positions.place), or -1."""
    names = np.empty(len(places), np.int32)
    _functions(functions.first, functions.at, np.ascontiguousarray(places, np.int32), names)
    return names
