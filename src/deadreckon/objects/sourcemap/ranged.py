"""Range mappings (ECMA-426 proposal): which segments map every following character, not the one position.

``rangeMappings`` has a group for each generated line, separated by semicolons; its unsigned VLQs, each relative to the
one before, count segments of the line. Drafts differ in where they count from. The one with tests counts from 1, and a
later one from 0; a group that begins with 0 exists in the later one only, and tells it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deadreckon.kernels.decode import Items, decode_items

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deadreckon.kernels.decode import Mappings

__all__ = ["indices", "mark"]

_MAX_TEXT = 16 << 20


def indices(text: str) -> tuple[Items, NDArray[np.int64], NDArray[np.int64], bool]:
    """Return the items of the field, for each number its group and its segment (from 0), and if a 0 came first."""
    items = decode_items(text.encode("latin-1", "replace"))
    counts = np.diff(items.first)
    groups = np.repeat(np.arange(len(items)), counts)
    total = np.cumsum(items.values)
    before = np.append(np.int64(0), total)[items.first[:-1]]
    from_zero = bool(np.any(items.values[items.first[:-1][counts > 0]] == 0))
    return items, groups, total - np.repeat(before, counts) - (0 if from_zero else 1), from_zero


def mark(mappings: Mappings, row: int, end: int, line: int, text: str) -> str | None:
    """Mark a part's range mappings; its lines are the rows from ``row`` to ``end`` and begin at a generated line.

    ``mappings`` are as decoded, not yet ordered. Returns what is wrong with the field, None where nothing is.
    """
    if len(text) > _MAX_TEXT:
        return f"more than {_MAX_TEXT} characters; no mapping is taken for a range"
    items, groups, segments, _ = indices(text)
    if np.any(items.faults) or np.any(items.separators == ord(",")):
        return "not unsigned VLQs in groups; no mapping is taken for a range"
    if not len(groups):
        return None
    if not len(mappings.ranged):
        mappings.ranged = np.zeros(len(mappings.column), np.uint8)
    lines = mappings.lines[row:end].astype(np.int64) - line
    found = np.searchsorted(lines, groups)
    at = np.minimum(found, max(0, len(lines) - 1))
    if not len(lines):
        return "counts segments that are not there"
    first = mappings.first[row:end].astype(np.int64)
    count = np.diff(mappings.first[row : end + 1].astype(np.int64))
    good = (found < len(lines)) & (lines[at] == groups) & (segments >= 0) & (segments < count[at])
    mappings.ranged[(first[at] + segments)[good]] = 1
    return None if good.all() else "counts segments that are not there"
