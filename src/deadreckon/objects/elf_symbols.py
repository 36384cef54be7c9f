"""ELF symbol tables: named address ranges.

Source: System V ABI (gABI) chapter 4 "Symbol Table"; for the lowest bit of Thumb functions "ELF for the Arm
Architecture" 5.5.3. Rows are viewed as columns; only the ones asked for become Python objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_RVA", "Named", "extents", "named"]

Named = tuple[int, int, str]
"""Start, end (exclusive) and name; addresses are relative to the image base."""

MAX_RVA = 0xFFFF_FFFE
_MAX_NAME = 4096
_SHN_UNDEF, _SHN_LORESERVE, _SHN_XINDEX = 0, 0xFF00, 0xFFFF


def _rows(data: bytes, *, wide: bool, order: Literal["<", ">"]) -> NDArray[np.void]:
    if wide:
        layout = [("name", "u4"), ("info", "u1"), ("other", "u1"), ("shndx", "u2"), ("value", "u8"), ("size", "u8")]
    else:
        layout = [("name", "u4"), ("value", "u4"), ("size", "u4"), ("info", "u1"), ("other", "u1"), ("shndx", "u2")]
    dtype = np.dtype(layout).newbyteorder(order)
    return np.frombuffer(data, dtype, len(data) // dtype.itemsize)


def named(
    data: bytes,
    names: bytes,
    types: tuple[int, ...],
    *,
    wide: bool,
    order: Literal["<", ">"],
    base: int = 0,
    mask: int = 0,
    section: int | None = None,
) -> list[Named]:
    """Return the defined symbols of some types, sorted by address and size; a size of 0 gives an empty range.

    ``data`` and ``names`` are a symbol table and its string table; ``base`` is taken from addresses and ``mask``'s
    bits are cleared in them. With ``section`` only the symbols of the section with that number are returned.
    """
    rows = _rows(data, wide=wide, order=order)
    section_of = rows["shndx"]
    defined = (section_of != _SHN_UNDEF) & ((section_of < _SHN_LORESERVE) | (section_of == _SHN_XINDEX))
    kept = rows[np.isin(rows["info"] & 0xF, types) & defined]
    if section is not None:
        kept = kept[kept["shndx"] == section]
    found = []
    for ref, value, size in sorted(
        zip(kept["name"].tolist(), kept["value"].tolist(), kept["size"].tolist(), strict=True),
        key=lambda row: (row[1], row[2]),
    ):
        start = (value & ~mask) - base
        if start < 0 or start + size > MAX_RVA:
            continue
        end = names.find(b"\0", ref, ref + _MAX_NAME)
        name = names[ref : end if end >= 0 else ref].decode("utf-8", "replace")
        if name:
            found.append((start, start + size, name))
    return found


def extents(symbols: list[Named], limits: NDArray[np.uint32]) -> list[Named]:
    """Return symbols, sorted by address and size, as ranges that don't overlap; the first by address keeps its ground.

    A symbol without a size ends at the next one, or with the range of ``limits`` (u32[n, 2], sorted) that it is in;
    outside of those it has none.
    """
    # At one address the symbol with the largest size comes last, and is taken.
    largest = {start: (end, name) for start, end, name in symbols}
    found: list[Named] = []
    previous_end = 0
    following_starts = iter([*list(largest)[1:], MAX_RVA])
    for start, (end, name) in largest.items():
        following, stop = next(following_starts), end
        if start == end:
            within = int(np.searchsorted(limits[:, 0], start, side="right")) - 1
            stop = min(int(limits[within, 1]), following) if within >= 0 else start
        if previous_end <= start < stop:
            found.append((start, stop, name))
            previous_end = stop
    return found
