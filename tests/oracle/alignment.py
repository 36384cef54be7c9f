"""The position-dependent model of ReBucket by its definition: the best of all alignments, as a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def likeness(one: Sequence[int], other: Sequence[int], near: float = 0.04, shift: float = 0.13) -> float:
    one, other = one[:64], other[:64]
    if not one or not other:
        return 1.0 if len(one) == len(other) else 0.0
    table = [[0.0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            best = max(table[i][j + 1], table[i + 1][j])
            if a == b:
                best = max(best, table[i][j] + math.exp(-near * min(i, j)) * math.exp(-shift * abs(i - j)))
            table[i + 1][j + 1] = best
    return table[-1][-1] / sum(math.exp(-near * i) for i in range(min(len(one), len(other))))
