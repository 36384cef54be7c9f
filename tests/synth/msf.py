"""Writes multi-stream files with a PDB's DBI stream, from LLVM's "The MSF File Format" and "The PDB DBI Stream"."""

from __future__ import annotations

import struct

NO_STREAM = 0xFFFF
TEXT_FLAGS = 0x6000_0020


def msf(streams: list[bytes], block: int = 512) -> bytes:
    """Return a file of these streams."""
    blocks: list[bytes] = [b"", b"", b""]  # superblock and two free maps

    def put(data: bytes) -> list[int]:
        numbers = []
        for at in range(0, len(data), block):
            numbers.append(len(blocks))
            blocks.append(data[at : at + block])
        return numbers

    placed = [put(data) for data in streams]
    directory = struct.pack(f"<{1 + len(streams)}I", len(streams), *map(len, streams))
    directory += b"".join(struct.pack(f"<{len(numbers)}I", *numbers) for numbers in placed)
    root = put(struct.pack(f"<{-(-len(directory) // block)}I", *put(directory)))
    header = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
    blocks[0] = header + struct.pack("<6I", block, 1, len(blocks), len(directory), 0, root[0])
    return b"".join(data.ljust(block, b"\0") for data in blocks)


def section_headers(*sections: tuple[bytes, int, int, int]) -> bytes:
    """Return section headers of (name, address, size, flags)."""
    return b"".join(
        struct.pack("<8sIIIIIIHHI", n, size, at, size, 0, 0, 0, 0, 0, flags) for n, at, size, flags in sections
    )


def omap(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<II", *pair) for pair in pairs)


def pdb(debug: dict[int, bytes]) -> bytes:
    """Return a PDB whose optional debug header names these streams by their places; nothing else is in it."""
    streams = [b"", b"", b"", b"", *debug.values()]
    numbers = {place: 4 + i for i, place in enumerate(debug)}
    header = struct.pack("<11H", *(numbers.get(place, NO_STREAM) for place in range(11)))
    sizes = (8, 4, 0, 12, 0)
    fixed = struct.pack("<iIIHHHHHH5iIiiHHI", -1, 19990903, 1, 0, 0, 0, 0, 0, 0, *sizes, 0, len(header), 4, 0, 0x14C, 0)
    streams[3] = fixed + b"\xee" * (sum(sizes) + 4) + header
    return msf(streams)
