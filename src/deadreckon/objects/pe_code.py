"""PE images: where code and functions lie.

Source: Microsoft "PE Format" (headers, section flags, ``.pdata``), "x64 exception handling" (RUNTIME_FUNCTION,
UNWIND_INFO) and "ARM64 exception handling" (packed and unpacked unwind data). Functions and lines come from symbolic;
an export table says where functions start but never where they end, and this does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import Malformed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PeImage", "read"]

_MACHINE_AMD64, _MACHINE_ARM64 = 0x8664, 0xAA64
_OPTIONAL_MAGIC = {0x10B: 96, 0x20B: 112}
"""Offset of the data directories in the optional header, by its magic (PE32, PE32+)."""
_DIRECTORY_EXCEPTION, _DIRECTORY_CLR = 3, 14
_CNT_CODE, _MEM_EXECUTE = 0x20, 0x2000_0000
_UNW_FLAG_CHAININFO = 4
_MAX_SECTIONS = 4096
_MAX_FUNCTIONS = 1 << 24


@dataclass(slots=True)
class PeImage:
    """What an image says of its code.

    ``text`` u32[n, 2]: executable sections; ``functions`` u32[n, 2]: extents of functions, as far as they are known;
    both sorted and relative to the image base. ``code``: (start, size, offset in the file) of those the file holds.
    ``managed``: the code is .NET's.
    """

    text: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 2), np.uint32))
    functions: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 2), np.uint32))
    code: list[tuple[int, int, int]] = field(default_factory=list)
    managed: bool = False


def read(data: bytes | memoryview) -> PeImage:
    """Read the section table and ``.pdata``. Raises Malformed where the headers can't be read."""
    try:
        at = struct.unpack_from("<I", data, 0x3C)[0]
        if bytes(data[at : at + 4]) != b"PE\0\0":
            raise Malformed("PE signature", offset=at, expected="PE\\0\\0", got=bytes(data[at : at + 4]))
        machine, count, _, _, _, optional_size, _ = struct.unpack_from("<HHIIIHH", data, at + 4)
        optional = at + 24
        magic = struct.unpack_from("<H", data, optional)[0]
        directories = optional + _OPTIONAL_MAGIC.get(magic, optional_size)
        number = struct.unpack_from("<I", data, directories - 4)[0] if magic in _OPTIONAL_MAGIC else 0
        rows = [
            struct.unpack_from("<8sIIIIIIHHI", data, optional + optional_size + 40 * i)
            for i in range(min(count, _MAX_SECTIONS))
        ]
        entries = [struct.unpack_from("<II", data, directories + 8 * i) for i in range(min(number, 16))]
    except struct.error as e:
        raise Malformed("PE headers", offset=0, expected="headers within the file", got=f"{len(data)} bytes") from e
    sections = [(address, size or raw, offset, raw) for _, size, address, raw, offset, *_ in rows]
    flagged = zip(sections, rows, strict=True)
    executable = [section for section, row in flagged if row[9] & (_CNT_CODE | _MEM_EXECUTE) and section[1]]
    spans = [(address, min(address + size, 0xFFFF_FFFE)) for address, size, *_ in executable]
    image = PeImage(np.array(sorted(s for s in spans if s[0] < s[1]), np.uint32).reshape(-1, 2))
    image.code = [(address, min(size, raw), offset) for address, size, offset, raw in executable]
    image.managed = len(entries) > _DIRECTORY_CLR and entries[_DIRECTORY_CLR] != (0, 0)
    if len(entries) > _DIRECTORY_EXCEPTION:
        address, size = entries[_DIRECTORY_EXCEPTION]
        table = _at(data, sections, address, size)
        if machine == _MACHINE_AMD64:
            image.functions = _amd64(data, sections, table)
        elif machine == _MACHINE_ARM64:
            image.functions = _arm64(data, sections, table)
    return image


def _at(data: bytes | memoryview, sections: list[tuple[int, int, int, int]], address: int, size: int) -> bytes:
    """Return the file's bytes at a relative address, fewer where the section or the file ends before."""
    for start, _, offset, raw in sections:
        if start <= address < start + raw:
            begin = offset + address - start
            return bytes(data[begin : begin + min(size, start + raw - address)])
    return b""


def _words(
    data: bytes | memoryview, sections: list[tuple[int, int, int, int]], addresses: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Return the little-endian words at relative addresses, and which of them the file holds."""
    buffer = np.frombuffer(data, np.uint8)
    offsets = np.full(len(addresses), -1, np.int64)
    for start, _, offset, raw in sections:
        here = (addresses >= start) & (addresses < start + raw)
        offsets[here] = addresses[here] - start + offset
    known = (offsets >= 0) & (offsets + 4 <= len(buffer))
    safe = np.where(known, offsets, 0)
    words = np.zeros(len(addresses), np.uint32)
    if len(buffer) >= 4:
        for i in range(4):
            words |= buffer[safe + i].astype(np.uint32) << np.uint32(8 * i)
    return words, known


def _amd64(data: bytes | memoryview, sections: list[tuple[int, int, int, int]], table: bytes) -> NDArray[np.uint32]:
    """Return the extents of RUNTIME_FUNCTION entries; a chained one continues the function before it."""
    rows = np.frombuffer(table, "<u4", len(table) // 12 * 3).reshape(-1, 3)[:_MAX_FUNCTIONS].astype(np.int64)
    rows = rows[rows[:, 0] < rows[:, 1]]
    # An odd address of unwind data is that of another entry, which this one shares it with.
    words, known = _words(data, sections, rows[:, 2] & ~1)
    chained = ((rows[:, 2] & 1) != 0) | (known & ((words & 0xFF) >> 3 & _UNW_FLAG_CHAININFO != 0))
    return _joined(rows[:, 0], rows[:, 1], chained)


def _arm64(data: bytes | memoryview, sections: list[tuple[int, int, int, int]], table: bytes) -> NDArray[np.uint32]:
    """Return the extents of ARM64 entries: the length is in the entry itself, or in the record it points to."""
    rows = np.frombuffer(table, "<u4", len(table) // 8 * 2).reshape(-1, 2)[:_MAX_FUNCTIONS].astype(np.int64)
    packed = rows[:, 1] & 3
    words, known = _words(data, sections, np.where(packed == 0, rows[:, 1], 0))
    length = np.where(packed == 0, np.where(known, words & 0x3FFFF, 0), rows[:, 1] >> 2 & 0x7FF).astype(np.int64) * 4
    # Flag 2: a fragment without a prologue, which is no function of its own.
    ok = length > 0
    return _joined(rows[ok, 0], rows[ok, 0] + length[ok], packed[ok] == 2)


def _joined(start: NDArray[np.int64], end: NDArray[np.int64], continued: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Return sorted extents that don't overlap; one that continues a function right before it is joined to it."""
    ok = end <= 0xFFFF_FFFE
    order = np.argsort(start[ok], kind="stable")
    start, end, continued = start[ok][order], end[ok][order], continued[ok][order]
    if not len(start):
        return np.zeros((0, 2), np.uint32)
    highest = np.maximum.accumulate(end)
    adjoins = np.append(False, start[1:] == highest[:-1])
    first = ~(continued & adjoins) & np.append(True, start[1:] != start[:-1])
    starts = start[first]
    ends = np.maximum.reduceat(end, np.flatnonzero(first))
    ends = np.minimum(ends, np.append(starts[1:], 0xFFFF_FFFE))
    kept = starts < ends
    return np.stack([starts[kept], ends[kept]], axis=1).astype(np.uint32)
