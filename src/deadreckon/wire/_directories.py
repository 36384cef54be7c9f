"""How much an archive's table of contents would make a reader hold, known before anything holds it.

These formats have their table in one piece, and a reader keeps a record of each file in it before the first entry:
5 KB of 7z made libarchive use 800 MB, 300 KB of xar 1 GB, and 180 KB of zip in a zip Python's zipfile 600 MB
(test_bombs_in_directories). Specifications: APPNOTE.TXT 4.3.12 to 4.3.16 (zip), 7zFormat.txt of the LZMA SDK, and the
xar project's description of its header.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded
from deadreckon.wire._reading import Damaged, Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

__all__ = ["check_directory"]

_DIRECTORY_BYTES = {"zip": 16 << 20, "7z": 8 << 20, "xar": 8 << 20}
"""Largest table, uncompressed: readers take up to thirty times as much for a xar's, and ten for a zip's."""

_ENCODED_BYTES = 1 << 16
"""Largest description of a 7z's compressed header; writers need some 40 bytes."""


def check_directory(source: str | memoryview, kind: str) -> None:
    """Raise LimitExceeded for a table of contents too large to hold, and Damaged for one that can't be measured."""
    measure = {"zip": _zip, "7z": _7z, "xar": _xar}.get(kind)
    if measure is None:
        return
    with Source(source) as file:
        try:
            size = measure(file)
        except (struct.error, zlib.error, IndexError, OverflowError) as e:
            raise Damaged(f"unreadable directory: {e}", fatal=True) from e
    limit = _DIRECTORY_BYTES[kind]
    if size > limit:
        raise LimitExceeded("directory_bytes", limit, what=kind)


def _zip(file: Source) -> int:
    # Readers go by the last end record there is, and by the zip64 one that its locator, or its place, tells.
    tail = file.at(max(file.size - 22 - 0xFFFF, 0), 22 + 0xFFFF)
    last = tail.rfind(b"PK\x05\x06", 0, max(len(tail) - 18, 0))
    if last < 0:
        return 0
    end = file.size - len(tail) + last
    (size,) = struct.unpack_from("<I", tail, last + 12)
    locator = file.at(end - 20, 20)
    if locator[:4] != b"PK\x06\x07":
        return int(size)
    sizes = [size if size != 0xFFFF_FFFF else 0]
    for at in {struct.unpack_from("<Q", locator, 8)[0], end - 20 - 56}:
        record = file.at(at, 56)
        if record[:4] == b"PK\x06\x06" and len(record) == 56:
            size64, start = struct.unpack_from("<QQ", record, 40)
            sizes += [size64, end - start]
    return int(max(sizes))


def _xar(file: Source) -> int:
    # Big-endian: magic, u16 header size, u16 version, u64 length of the zlib-compressed table.
    limit = _DIRECTORY_BYTES["xar"]
    header_size, packed_size = struct.unpack(">4xH2xQ", file.at(0, 16))
    if packed_size > limit:
        return int(packed_size)
    return len(zlib.decompressobj().decompress(file.at(header_size, packed_size), limit + 1))


def _7z(file: Source) -> int:
    # Signature, version, crc, then u64 offset (from 32) and size of the header; that is plain, or 0x17 and where its
    # packed form is: pack info, folders with their coders, 0x0C and the unpacked sizes.
    offset, size = struct.unpack("<12xQQ4x", file.at(0, 32))
    start = file.at(32 + offset, min(size, _ENCODED_BYTES))
    if start[:2] != b"\x17\x06":
        return int(size)
    if size > _ENCODED_BYTES:
        raise IndexError("encoded header is too long")
    header = io.BytesIO(start[2:])
    number = functools.partial(_7z_number, header)
    number()
    packs = number()
    while part := header.read(1)[0]:
        if part == 0x09:
            _repeat(packs, number)
        else:
            header.read(1 + 4 * packs)
    header.read(2)
    folders = number()
    header.read(1)
    outputs = 0
    for _ in range(min(folders, size)):
        coders = number()
        folder_inputs = folder_outputs = 0
        for _ in range(min(coders, size)):
            flags = header.read(1)[0]
            header.read(flags & 0x0F)
            folder_inputs += number() if flags & 0x10 else 1
            folder_outputs += number() if flags & 0x10 else 1
            header.read(number() if flags & 0x20 else 0)
        binds = max(folder_outputs - 1, 0)
        _repeat(2 * binds, number)
        packed = folder_inputs - binds
        _repeat(packed if packed > 1 else 0, number)
        outputs += folder_outputs
    if header.read(1) != b"\x0c":
        raise IndexError("no unpacked sizes")
    return max(_repeat(outputs, number), default=0)


def _repeat(count: int, number: Callable[[], int]) -> list[int]:
    # A count that lies runs into the end of the header, which raises IndexError.
    return [number() for _ in range(count)]


def _7z_number(file: BinaryIO) -> int:
    # As many bytes follow as the first one has leading ones; its other bits are the highest.
    first = file.read(1)[0]
    extra = 8 - (first ^ 0xFF).bit_length()
    low = file.read(extra)
    if len(low) < extra:
        raise IndexError("header ends in a number")
    return int.from_bytes(low, "little") | (first & 0x7F >> extra) << 8 * extra
