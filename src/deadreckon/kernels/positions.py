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

_RU8, _RU32, _RI32 = (array(kind, readonly=True) for kind in (types.uint8, types.uint32, types.int32))
_RI32_2D = array(types.int32, 2, readonly=True)
_RI64 = array(types.int64, readonly=True)


@kernel(
    types.void(
        *(_RU32, _RU32, _RI32, _RI32_2D, _RU8, _RI64, _RI64),
        *(array(types.int64), array(types.int32, 2), array(types.uint8)),
    )
)
def _look_up(lines, first, column, place, ranged, wanted_line, wanted_column, segment, found, state):
    """Fill ``segment``, ``found`` and ``state`` for each wanted position."""
    rows = len(lines)
    for i in range(len(wanted_line)):
        line = wanted_line[i]
        limit = wanted_column[i]
        segment[i] = -1
        for field in range(4):
            found[i, field] = -1
        # Where every line has segments, a line's row is its number.
        row = min(line, rows - 1)
        if row < 0 or lines[row] != line:
            low = np.int64(0)
            length = np.int64(rows)
            while length > 0:
                half = length >> 1
                if np.int64(lines[low + half]) <= line:
                    low += half + 1
                    length -= half + 1
                else:
                    length = half
            row = low - 1
        low = np.int64(0)
        here = row >= 0 and lines[row] == line
        before = True
        if here:
            low = np.int64(first[row])
            length = np.int64(first[row + 1]) - low
            while length > 1:
                half = length >> 1
                low += half if column[low + half] <= limit else 0
                length -= half
            before = column[low] > limit
        if before:
            state[i] = BEFORE_FIRST if here else EMPTY_LINE if row + 1 < rows else NO_LINE
            # A range mapping goes on until the next segment, whichever line that is on.
            low = np.int64(first[row]) - 1 if here else np.int64(first[row + 1]) - 1 if row >= 0 else np.int64(-1)
            if len(ranged) == 0 or low < 0 or ranged[low] == 0 or place[low, 0] < 0 or limit < 0:
                continue
            row -= 1 if here else 0
            original = place[low, 1] + (line - np.int64(lines[row]))
            if (original | limit) >> 31 != 0:
                continue
            segment[i] = low
            state[i] = MAPPED
            found[i, 0] = place[low, 0]
            found[i, 1] = original
            found[i, 2] = limit
            continue
        segment[i] = low
        if place[low, 0] < 0:
            state[i] = UNMAPPED
            continue
        state[i] = MAPPED
        for field in range(4):
            found[i, field] = place[low, field]
        if len(ranged) and ranged[low]:
            original = place[low, 2] + (limit - column[low])
            found[i, 2] = original if original >> 31 == 0 else np.int64(place[low, 2])
            if original != place[low, 2]:
                found[i, 3] = -1
        if place[low, 3] < 0:
            stop = max(np.int64(first[row]), low - _MAX_SAME)
            at = low - 1
            while at >= stop and column[at] == column[low]:
                if place[at, 3] >= 0:
                    found[i, 3] = place[at, 3]
                    break
                at -= 1


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
    wanted_line = np.ascontiguousarray(lines, np.int64)
    wanted_column = np.ascontiguousarray(columns, np.int64)
    if wanted_line.shape != wanted_column.shape or wanted_line.ndim != 1:
        raise ValueError(f"as many lines as columns, in one dimension: {wanted_line.shape}, {wanted_column.shape}")
    count = len(wanted_line)
    found = Positions(np.empty(count, np.int64), np.empty((count, 4), np.int32), np.empty(count, np.uint8))
    t = table
    _look_up(
        *(t.lines, t.first, t.column, t.place, t.ranged),
        *(wanted_line, wanted_column, found.segment, found.place, found.state),
    )
    return found


def look_up_functions(functions: FunctionTable, places: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the index in ``functions.names`` of the function around each of ``places`` (Positions.place), or -1."""
    names = np.empty(len(places), np.int32)
    _functions(functions.first, functions.at, np.ascontiguousarray(places, np.int32), names)
    return names
