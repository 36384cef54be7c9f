"""How alike two stacks are: a scored alignment of their frames, for many pairs at once.

The score is the position-dependent model of ReBucket (Dang et al., "ReBucket: a method for clustering duplicate crash
reports based on call stack similarity", ICSE 2012): of all ways to align equal frames in order, the one with the
greatest sum of ``exp(-near * min(i, j)) * exp(-shift * |i - j|)``, as a share of what a stack of the shorter one's
length has with itself. Frames near the crash weigh more, and so do frames that stand where they stood.

The oracle is tests/oracle/alignment.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DEEPEST", "align"]

DEEPEST = 64
"""Frames of a stack that are compared: the sixty-fourth weighs a tenth of the first."""


@kernel(
    types.void(
        array(types.int64, readonly=True),
        array(types.uint32, readonly=True),
        array(types.int64, 2, readonly=True),
        array(types.float64, readonly=True),
        array(types.float64, readonly=True),
        array(types.float64),
        array(types.float64),
    )
)
def _align(offsets, texts, pairs, depth, shift, row, out):
    """Write the score of each pair; ``row`` is room for the best scores against each beginning of the second stack."""
    for p in range(len(pairs)):
        one = offsets[pairs[p, 0]]
        other = offsets[pairs[p, 1]]
        n = min(offsets[pairs[p, 0] + 1] - one, DEEPEST)
        m = min(offsets[pairs[p, 1] + 1] - other, DEEPEST)
        whole = 0.0
        for i in range(min(n, m)):
            whole += depth[i]
        if whole == 0.0:
            out[p] = 1.0 if n == m else 0.0
            continue
        for j in range(m + 1):
            row[j] = 0.0
        for i in range(n):
            text = texts[one + i]
            diagonal = 0.0
            for j in range(m):
                above = row[j + 1]
                best = max(above, row[j])
                if texts[other + j] == text:
                    best = max(best, diagonal + depth[min(i, j)] * shift[abs(i - j)])
                diagonal = above
                row[j + 1] = best
        out[p] = row[m] / whole


def align(
    offsets: NDArray[np.int64],
    texts: NDArray[np.uint32],
    pairs: NDArray[np.int64],
    *,
    near: float = 0.04,
    shift: float = 0.13,
) -> NDArray[np.float64]:
    """Return f64[k], how alike the stacks of each pair are: 1 for equal ones, 0 for those without a common frame.

    ``offsets`` and ``texts`` are columns of stacks, innermost first, ``pairs`` i64[k, 2] numbers of stacks. Two empty
    stacks are equal, an empty one is like no other. Raises ValueError where the columns contradict each other.
    """
    count = len(offsets) - 1
    if count < 0 or offsets[0] < 0 or offsets[-1] > len(texts) or bool((offsets[1:] < offsets[:-1]).any()):
        raise ValueError("expected offsets that rise, within the frames")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or (len(pairs) and (int(pairs.min()) < 0 or int(pairs.max()) >= count)):
        raise ValueError("expected pairs of stacks that exist")
    steps = np.arange(DEEPEST)
    out = np.empty(len(pairs))
    _align(
        *(offsets, texts, np.ascontiguousarray(pairs, np.int64), np.exp(-near * steps), np.exp(-shift * steps)),
        *(np.empty(DEEPEST + 1), out),
    )
    return out
