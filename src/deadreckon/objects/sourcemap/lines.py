"""Lines of original sources, out of a map's ``sourcesContent``: only the lines asked for are decoded."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from deadreckon.kernels.lines import in_strings
from deadreckon.model.tables import LineTable, json_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deadreckon.model.tables import SourceMapTable

__all__ = ["all_lines", "source_lines"]

_BREAKS = ("\n", "\r", "\u2028", "\u2029")
_KEPT = 256


def source_lines(table: SourceMapTable, source: int, first: int, count: int) -> list[str] | None:
    """Return up to ``count`` lines of a source from line ``first`` (0-based) on, without their ends.

    None where the map has no content of that source. Lines end as ECMA-262 says: by LF, CR, both, U+2028 or U+2029.
    """
    starts = _starts(table, source)
    if starts is None:
        return None
    first = max(0, first)
    bounds = starts[first : max(first, first + count) + 1].tolist()
    text = table.text
    lines = []
    for start, end in pairwise(bounds):
        line = json_text(b'"' + text[start:end].tobytes() + b'"') or ""
        line = line.removesuffix("\n").removesuffix("\r") if line.endswith("\r\n") else line
        lines.append(line[:-1] if line.endswith(_BREAKS) else line)
    return lines


def _starts(table: SourceMapTable, source: int) -> NDArray[np.uint32] | None:
    if not 0 <= source < len(table.contents):
        return None
    start, end = table.contents[source].tolist()
    if start == end:
        return None
    if table.source_lines is not None:
        first = table.source_lines.first
        return table.source_lines.starts[first[source] : first[source + 1]]
    kept: dict[int, NDArray[np.uint32]] = table.decoded.setdefault("lines", {})
    found = kept.get(source)
    if found is None:
        if len(kept) >= _KEPT:
            kept.clear()
        found = kept[source] = in_strings(table.text, table.contents[source : source + 1])[1]
    return found


def all_lines(table: SourceMapTable) -> LineTable:
    """Return where the lines of every source begin; for a table that is to be stored."""
    if table.source_lines is None:
        table.source_lines = LineTable(*in_strings(table.text, table.contents))
    return table.source_lines
