"""Ranges within ranges to a row of positions, each with the innermost range that holds from there on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["flatten"]

_RI64, _I64 = array(types.int64, readonly=True), array(types.int64)


@kernel(types.int64(_RI64, _RI64, _I64, _I64, _I64, _I64))
def _flatten(start, end, stack, until, at, inner):
    """Fill ``at`` and ``inner``; return how many there are. ``stack`` and ``until`` are room for the open ranges."""
    depth = np.int64(0)
    count = np.int64(0)
    for i in range(len(start) + 1):
        while depth > 0 and (i == len(start) or until[depth - 1] <= start[i]):
            depth -= 1
            at[count] = until[depth]
            inner[count] = stack[depth - 1] if depth > 0 else np.int64(-1)
            count += 1
        if i < len(start):
            at[count] = start[i]
            inner[count] = i
            count += 1
            stack[depth] = i
            until[depth] = min(end[i], until[depth - 1]) if depth > 0 else end[i]
            depth += 1
    return count


def flatten(start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positions i64[2n], ascending, and the innermost range i64[2n] from each of them on, -1 for none.

    ``start`` i64[n] is ascending; of ranges that begin together the outer one comes first. A range that would end
    after the one around it ends with that. Of equal positions the last one counts.
    """
    count = len(start)
    work, until = np.empty(count, np.int64), np.empty(count, np.int64)
    at, inner = np.empty(2 * count, np.int64), np.empty(2 * count, np.int64)
    _flatten(np.ascontiguousarray(start), np.ascontiguousarray(end), work, until, at, inner)
    return at, inner
