"""What is done to a SymTable after it was read: pure functions from table to table.

A name reaches only as far as the file says it does: an address between two known functions has none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import LimitExceeded
from deadreckon.model.tables import NONE, SymTable, distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = [
    "BASE_FUNCTIONS",
    "base_ranges",
    "clipped",
    "combined",
    "cut",
    "from_symbols",
    "has_lines",
    "moved",
    "renamed",
    "thumb",
    "without_placeholders",
]

BASE_FUNCTIONS = (
    "_start",
    "__start",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
    "thread_start",
    "_RtlUserThreadStart",
    "RtlUserThreadStart",
    "_RtlUserThreadStart@8",
)
"""Functions that nothing calls: a stack ends in one of them. Breakpad's text can't say so, and walkers that rely on
it add what happens to lie above (seen after ``_start`` in rust-minidump's linux-mini.dmp)."""

# Names that dump_syms and symbolic make up for code without a symbol; taken for a name they would let any stray word
# on a stack pass as a return address (5 of the 12 frames printed by others for lldb/sigsegv.dmp).
_PLACEHOLDER = re.compile(r"<(?:name omitted|unknown|unknown in .*|.* ELF section in .*)>")

_MAX_ROWS = 1 << 26


def has_lines(sym: SymTable) -> bool:
    """Whether any location has a line number."""
    return bool(len(sym.locations)) and bool((sym.locations[:, 1] + 1 > 1).any())


def from_symbols(symbols: Sequence[tuple[int, int, str]]) -> SymTable:
    """Return a table of named ranges: (start, end, name), sorted, not overlapping. There are no lines in it."""
    count = len(symbols)
    found = SymTable.empty()
    if not count:
        return found
    starts = np.array([s[0] for s in symbols], np.int64)
    ends = np.array([s[1] for s in symbols], np.int64)
    names = [_prefixed(s[2].encode("utf-8", "replace")) for s in symbols]
    refs = np.cumsum([0, *map(len, names)])[:count]
    found.functions = np.stack([refs, starts, np.zeros(count, np.int64)], axis=1).astype(np.uint32)
    found.locations = np.full((count, 4), NONE, np.uint32)
    found.locations[:, 1] = 0
    found.locations[:, 2] = np.arange(count)
    found.strings = np.frombuffer(b"".join(names), np.uint8)
    found.entries = distinct(starts.astype(np.uint32))
    # At one address an end comes before a start; of the two the later one is kept.
    return _ranges(
        found, np.concatenate([ends, starts]), np.concatenate([np.full(count, NONE, np.int64), np.arange(count)])
    )


def _ranges(sym: SymTable, where: NDArray[np.int64], what: NDArray[np.int64], *, ordered: bool = False) -> SymTable:
    """Return a table with other ranges: ``what`` begins at ``where``, the last of several at one address."""
    if not ordered:
        order = np.argsort(where, kind="stable")
        where, what = where[order], what[order]
    last = np.append(where[1:] != where[:-1], np.ones(min(len(where), 1), np.bool_))
    where, what = where[last], what[last]
    changes = np.append(np.ones(min(len(what), 1), np.bool_), what[1:] != what[:-1])
    return SymTable(
        where[changes].astype(np.uint32),
        what[changes].astype(np.uint32),
        *(sym.locations, sym.functions, sym.files, sym.strings, sym.base, sym.text, sym.entries),
    )


def _location_at(sym: SymTable, addresses: NDArray[np.int64]) -> NDArray[np.int64]:
    row = np.searchsorted(sym.range_start, addresses, side="right") - 1
    if not len(sym.range_start):
        return np.full(len(addresses), NONE, np.int64)
    return np.where(row >= 0, sym.range_loc[np.maximum(row, 0)].astype(np.int64), NONE)


def combined(first: SymTable, second: SymTable) -> SymTable:
    """Return the first table, its gaps filled from the second one."""
    if not len(second.range_start):
        return first
    if not len(first.range_start):
        return second
    locations = second.locations.astype(np.int64)
    for column, offset in ((0, len(first.files)), (2, len(first.functions)), (3, len(first.locations))):
        locations[:, column] = _shifted(locations[:, column], offset)
    functions, files = second.functions.astype(np.int64), second.files.astype(np.int64)
    functions[:, 0] = _shifted(functions[:, 0], len(first.strings))
    both = SymTable(
        *(first.range_start, first.range_loc),
        np.concatenate([first.locations, locations.astype(np.uint32)]),
        np.concatenate([first.functions, functions.astype(np.uint32)]),
        np.concatenate([first.files, _shifted(files, len(first.strings)).astype(np.uint32)]),
        np.concatenate([first.strings, second.strings]),
        first.base,
        first.text if len(first.text) else second.text,
        distinct(np.concatenate([first.entries, second.entries])).astype(np.uint32),
    )
    where = distinct(np.concatenate([first.range_start, second.range_start])).astype(np.int64)
    preferred = _location_at(first, where)
    other = _shifted(_location_at(second, where), len(first.locations))
    return _ranges(both, where, np.where(preferred != NONE, preferred, other), ordered=True)


def _shifted(refs: NDArray[np.int64], offset: int) -> NDArray[np.int64]:
    return np.where(refs == NONE, NONE, refs + offset)


def clipped(sym: SymTable, text: NDArray[np.uint32]) -> SymTable:
    """End each symbol with the executable section it starts in; outside of these nothing has a name.

    Without an end, ``_fini`` would be the function of every address up to the image's end. ``text`` is u32[n, 2],
    sorted; where it is empty, nothing is known and nothing changes.
    """
    if not len(text) or not len(sym.range_start):
        return sym
    start, end = text[:, 0].astype(np.int64), text[:, 1].astype(np.int64)
    starts = sym.range_start.astype(np.int64)
    section = np.searchsorted(start, starts, side="right") - 1
    inside = (section >= 0) & (starts < end[np.maximum(section, 0)])
    # A symbol's start comes after a section's end at the same address, and so is the one that counts.
    at = np.searchsorted(starts, end)
    order = np.argsort(end, kind="stable")
    found = _ranges(
        sym,
        np.insert(starts, at[order], end[order]),
        np.insert(np.where(inside, sym.range_loc, NONE).astype(np.int64), at, NONE),
        ordered=True,
    )
    found.text = text
    return found


def cut(sym: SymTable, extents: NDArray[np.uint32]) -> SymTable:
    """End each bare symbol (a name without lines) with the function it starts in.

    ``extents`` u32[n, 2], sorted, not overlapping: functions whose ends are known. A symbol outside of them names its
    own address only. Tables of exported names and stripped symbol tables have no sizes: taken to reach to the next
    one, they name most of the code wrongly (all but 5 of 1,341 addresses of dump_syms' mozwer.dll).
    """
    if not len(sym.range_start):
        return sym
    starts = sym.range_start.astype(np.int64)
    inside = sym.range_loc < len(sym.locations)
    lines = sym.locations[np.where(inside, sym.range_loc, 0), 1] if len(sym.locations) else np.ones(len(starts))
    bare = np.flatnonzero(inside & (lines == 0))
    limits = starts[bare] + 1
    if len(extents):
        row = np.searchsorted(extents[:, 0], starts[bare], side="right") - 1
        limits = np.where(row >= 0, np.maximum(limits, extents[np.maximum(row, 0), 1].astype(np.int64)), limits)
    ends = np.append(starts[1:], 1 << 32)[bare]
    limits = limits[limits < ends]
    # A range's own start comes after an end at the same place.
    return _ranges(
        sym,
        np.concatenate([limits, starts]),
        np.concatenate([np.full(len(limits), NONE, np.int64), sym.range_loc.astype(np.int64)]),
    )


def moved(sym: SymTable, omap: NDArray[np.uint32]) -> SymTable:
    """Move a table to where a rearranged image has its code.

    ``omap`` u32[n, 2], sorted: from an image address on, code stems from an earlier address; 0, or one beyond
    2 GiB, where it stems from none. Raises LimitExceeded where a piece of code is used unreasonably often.
    """
    if not len(omap) or not len(sym.range_start):
        return sym
    new, old = omap[:, 0].astype(np.int64), omap[:, 1].astype(np.int64)
    length = np.append(new[1:], new[-1] + 1) - new
    stems = (old != 0) & (old < 1 << 31) & (length > 0)
    starts = sym.range_start.astype(np.int64)
    first = np.searchsorted(starts, old, side="right")
    counts = np.where(stems, np.searchsorted(starts, old + length, side="left") - first, 0)
    counts = np.maximum(counts, 0)
    total = int(counts.sum())
    if total > 64 * (len(starts) + len(omap)) or total > _MAX_ROWS:
        raise LimitExceeded("PDB address map rows", 64 * (len(starts) + len(omap)), total)
    piece = np.repeat(np.arange(len(new)), counts)
    row = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + first[piece]
    here = np.where(stems, _location_at(sym, old), NONE)
    found = _ranges(
        sym,
        np.concatenate([new, starts[row] - old[piece] + new[piece]]),
        np.concatenate([here, sym.range_loc[row].astype(np.int64)]),
    )
    order = np.flatnonzero(stems)[np.argsort(old[stems], kind="stable")]
    entry = sym.functions[:, 1].astype(np.int64)
    at = np.searchsorted(old[order], entry, side="right") - 1
    source = order[np.maximum(at, 0)] if len(order) else np.zeros(len(entry), np.int64)
    known = (at >= 0) & (entry - old[source] < length[source]) if len(order) else np.zeros(len(entry), np.bool_)
    found.functions = sym.functions.copy()
    found.functions[:, 1] = np.where(known, entry - old[source] + new[source], NONE)
    found.entries = distinct(found.functions[found.functions[:, 1] != NONE, 1])
    return found


def thumb(sym: SymTable) -> SymTable:
    """Move 32-bit ARM's Thumb functions to where their code is.

    A Thumb symbol's value has bit 0 set (ELF for the Arm Architecture, 5.5.3). symbolic takes it for the address, so
    that the symbol table's row without a line covers a function's first instruction but for its first byte, and DWARF's
    function keeps its own short name (``draught``) where others have the symbol's (``nav::Ship::draught() const``).
    """
    entry = sym.functions[:, 1].astype(np.int64)
    odd_function = (entry & 1 == 1) & (entry != NONE)
    if not odd_function.any():
        return sym
    functions = sym.functions.copy()
    functions[odd_function, 1] -= 1
    symbols = np.flatnonzero(odd_function)
    symbols = symbols[np.argsort(functions[symbols, 1], kind="stable")]
    at = np.minimum(np.searchsorted(functions[symbols, 1], functions[:, 1]), len(symbols) - 1)
    same = functions[symbols[at], 1] == functions[:, 1]
    functions[same, 0] = functions[symbols[at[same]], 0]
    function = np.append(sym.locations[:, 2], NONE)[np.minimum(sym.range_loc, len(sym.locations))]
    is_thumb = np.append(odd_function, np.False_)[np.minimum(function, len(odd_function))]
    after = np.append(np.False_, is_thumb[:-1]) & (sym.range_loc == NONE)
    move = (sym.range_start & 1 == 1) & (is_thumb | after)
    where = sym.range_start.astype(np.int64) - move
    # Where two meet, the last one stays: DWARF's row knows more than the symbol, and a gap nothing.
    order = np.lexsort((~move & (sym.range_loc != NONE), sym.range_loc != NONE, where))
    found = _ranges(sym, where[order], sym.range_loc.astype(np.int64)[order], ordered=True)
    found.functions, found.entries = functions, distinct(sym.entries & ~np.uint32(1))
    return found


def renamed(sym: SymTable, start: bytes, rename: Callable[[str], str | None]) -> SymTable:
    """Replace the strings that start with ``start``; None keeps one as it is."""
    raw = sym.strings.tobytes()
    if start not in raw:
        return sym
    refs = distinct(np.concatenate([sym.functions[:, 0], sym.files.ravel()]))
    old: list[int] = []
    new: list[int] = []
    added = bytearray()
    for ref in refs[refs != NONE].tolist():
        if start not in raw[ref : ref + len(start) + 5]:
            continue
        name = rename(sym.string(ref))
        if name is not None:
            old.append(ref)
            new.append(len(raw) + len(added))
            added += _prefixed(name.encode("utf-8", "replace"))
    if not old:
        return sym
    before, after = np.array(old), np.array(new)

    def replaced(column: NDArray[np.uint32]) -> NDArray[np.uint32]:
        at = np.minimum(np.searchsorted(before, column), len(before) - 1)
        return np.where(before[at] == column, after[at], column).astype(np.uint32)

    functions = sym.functions.copy()
    functions[:, 0] = replaced(functions[:, 0])
    return SymTable(
        *(sym.range_start, sym.range_loc, sym.locations, functions, replaced(sym.files)),
        np.frombuffer(raw + bytes(added), np.uint8),
        *(sym.base, sym.text, sym.entries),
    )


def without_placeholders(sym: SymTable) -> SymTable:
    """Take away made-up names; a line that stands under one is real and stays, without a function."""
    made_up = _named(sym, _PLACEHOLDER)
    if not len(made_up):
        return sym
    lines = np.append(sym.locations[:, 1], np.uint32(0))
    lineless = lines[np.minimum(sym.range_loc, len(sym.locations))] == 0
    functions = sym.functions.copy()
    functions[made_up, 0] = NONE
    return SymTable(
        sym.range_start,
        np.where(lineless & np.isin(_outermost(sym), made_up), NONE, sym.range_loc).astype(np.uint32),
        *(sym.locations, functions, sym.files, sym.strings, sym.base, sym.text, sym.entries),
    )


def _outermost(sym: SymTable) -> NDArray[np.uint32]:
    """Return the function that each range's code belongs to once inlining is undone."""
    if not len(sym.locations):
        return np.full(len(sym.range_loc), NONE, np.uint32)
    location = sym.range_loc.copy()
    parents = sym.locations[:, 3]
    inlined = np.flatnonzero(location < len(parents))
    for _ in range(256):
        parent = parents[location[inlined]]
        deeper = parent < len(parents)
        inlined = inlined[deeper]
        if not len(inlined):
            break
        location[inlined] = parent[deeper]
    inside = location < len(parents)
    return np.where(inside, sym.locations[np.where(inside, location, 0), 2], NONE).astype(np.uint32)


def _named(sym: SymTable, pattern: re.Pattern[str]) -> NDArray[np.int64]:
    """Return the functions whose names match a pattern that starts with ``<``."""
    refs = sym.functions[:, 0].astype(np.int64)
    size = len(sym.strings)
    ok = np.flatnonzero((refs >= 0) & (refs + 3 < size))
    at = refs[ok]
    # A length of 128 or more takes a second byte, of 16,384 or more a third.
    first = at + 1 + (sym.strings[at] >= 128) + ((sym.strings[at] >= 128) & (sym.strings[at + 1] >= 128))
    candidates = ok[sym.strings[first] == ord("<")]
    return np.array([i for i in candidates.tolist() if pattern.fullmatch(sym.string(int(refs[i])))], np.int64)


def base_ranges(sym: SymTable) -> NDArray[np.uint32]:
    """Return the ranges of functions that nothing calls, u32[n, 2]."""
    raw = sym.strings.tobytes()
    refs = set()
    for name in BASE_FUNCTIONS:
        needle = bytes([len(name)]) + name.encode()
        at = raw.find(needle)
        while at >= 0:
            refs.add(at)
            at = raw.find(needle, at + 1)
    functions = np.flatnonzero(np.isin(sym.functions[:, 0], list(refs)))
    if not len(functions):
        return np.zeros((0, 2), np.uint32)
    rows = np.flatnonzero(np.isin(_outermost(sym), functions))
    ends = np.append(sym.range_start[1:], np.uint32(NONE))
    return np.stack([sym.range_start[rows], ends[rows]], axis=1)


def _prefixed(text: bytes) -> bytes:
    """Return a string as a table holds it, its ULEB128 length before it."""
    size = len(text)
    head = bytearray()
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(head) + bytes([size]) + text
