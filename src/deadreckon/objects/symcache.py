"""symbolic's SymCache files as a SymTable: columns viewed in place, nothing decoded.

Layout of versions 8 and 9 (module documentation of the symbolic-symcache crate): a header, then files, functions,
source locations, range starts (u32) and string bytes, each aligned to 8. The last ``num_ranges`` source locations
belong to the ranges, in order. Strings carry their ULEB128 length before them. Version 9 made a file record longer.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from deadreckon.errors import Malformed, Unsupported
from deadreckon.model.tables import NONE, SymTable, distinct

__all__ = ["read", "version"]

_HEADER = struct.Struct("<4sI16sI12x6I")
_HEADER_SIZES = {8: 80, 9: 80}
_FILE_WORDS = {8: 3, 9: 6}


class _Header(NamedTuple):
    magic: bytes
    version: int
    uuid: bytes
    age: int
    arch: int
    num_files: int
    num_functions: int
    num_source_locations: int
    num_ranges: int
    string_bytes: int


def version(data: bytes | memoryview) -> int | None:
    """Return the layout version if these bytes are a SymCache, else None."""
    if len(data) < 8 or bytes(data[:4]) != b"SYMC":
        return None
    return int.from_bytes(bytes(data[4:8]), "little")


def read(data: bytes | memoryview) -> SymTable:
    """View a SymCache as a SymTable (``base`` and ``text`` empty).

    Raises Unsupported for a layout version not listed here, Malformed where counts and size disagree.
    """
    if len(data) < _HEADER.size or bytes(data[:4]) != b"SYMC":
        raise Malformed("SymCache header", offset=0, expected="magic SYMC", got=bytes(data[:4]))
    header = _Header._make(_HEADER.unpack_from(data))
    if header.version not in _HEADER_SIZES:
        raise Unsupported(f"SymCache version {header.version}")
    buffer = np.frombuffer(data, np.uint8)
    at = _HEADER_SIZES[header.version]

    def column(count: int, words: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
        nonlocal at
        at = (at + 7) & ~7
        end = at + 4 * count * words
        if end > len(buffer):
            raise Malformed("SymCache column", offset=at, expected=f"{4 * count * words} bytes", got=len(buffer) - at)
        found = buffer[at:end].view(np.uint32).reshape(count, words)
        at = end
        return found

    files = column(header.num_files, _FILE_WORDS[header.version])[:, :3]
    functions = column(header.num_functions, 4)[:, [0, 2, 3]]
    locations = column(header.num_source_locations, 4)
    range_start = column(header.num_ranges, 1)[:, 0]
    at = (at + 7) & ~7
    strings = buffer[at : at + header.string_bytes]
    if len(strings) != header.string_bytes:
        raise Malformed("SymCache strings", offset=at, expected=f"{header.string_bytes} bytes", got=len(strings))
    if header.num_ranges > header.num_source_locations:
        raise Malformed("SymCache ranges", expected=f"at most {header.num_source_locations}", got=header.num_ranges)
    first = header.num_source_locations - header.num_ranges
    range_loc = np.arange(first, header.num_source_locations, dtype=np.uint32)
    gap = (locations[first:] == NONE).all(axis=1)
    range_loc[gap] = NONE
    return SymTable(
        range_start,
        range_loc,
        locations,
        np.ascontiguousarray(functions),
        np.ascontiguousarray(files),
        strings,
        np.zeros((0, 2), np.uint32),
        np.zeros((0, 2), np.uint32),
        distinct(functions[:, 1][functions[:, 1] != NONE]),
    )
