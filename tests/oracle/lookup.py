"""Look-up of one address, as plainly as it can be said."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deadreckon.model.tables import SymTable


def locations(table: SymTable, rva: int, max_depth: int) -> list[int]:
    """Return an address's locations, innermost first."""
    i = bisect_right(table.range_start.tolist(), rva) - 1
    if i < 0 or rva > 0xFFFF_FFFF:
        return []
    found: list[int] = []
    at = int(table.range_loc[i])
    while at < len(table.locations) and len(found) < max_depth:
        found.append(at)
        at = int(table.locations[at, 3])
    return found
