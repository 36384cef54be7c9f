"""PE images: headers and identity, and the file's bytes by address.

Source: Microsoft "PE Format" (headers, section flags, debug directory, CodeView records). Identity is read by hand,
because a directory of thousands of files is searched by it.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.ids import Arch, DebugId, code_id_from_pe, normalize_code_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["DIRECTORY_EXCEPTION", "DIRECTORY_LOAD_CONFIG", "Headers", "PeIdentity", "Section", "headers", "identify"]

_MACHINES = {
    0x14C: Arch.X86,
    0x1C0: Arch.ARM,
    0x1C2: Arch.ARM,
    0x1C4: Arch.ARM,
    0x8664: Arch.X86_64,
    0xAA64: Arch.ARM64,
}
_OPTIONAL_MAGIC = {0x10B: 96, 0x20B: 112}
"""Offset of the data directories in the optional header, by its magic (PE32, PE32+)."""
DIRECTORY_EXCEPTION, DIRECTORY_LOAD_CONFIG = 3, 10
_DIRECTORY_DEBUG = 6
_DEBUG_TYPE_CODEVIEW = 2
_PORTABLE_PDB = 0x504D
_CNT_CODE, _MEM_EXECUTE = 0x20, 0x2000_0000
_MAX_SECTIONS = 4096
_MAX_DEBUG_ENTRIES = 64
_MAX_NAME = 4096
_MAX_SECTION_NAME = 64


class Section(NamedTuple):
    """A section: ``size`` bytes in memory at ``address``, ``raw`` bytes in the file at ``offset``."""

    address: int
    size: int
    offset: int
    raw: int
    flags: int
    name: str


@dataclass(frozen=True, slots=True)
class Headers:
    """An image's headers and bytes. Addresses are relative to the image base (RVAs).

    ``sections`` are sorted, ``starts`` their addresses; ``directories``: (address, size) of the data directories.
    """

    data: bytes | memoryview
    arch: Arch
    timestamp: int
    image_base: int
    image_size: int
    sections: list[Section]
    directories: list[tuple[int, int]]
    starts: list[int]

    def directory(self, number: int) -> tuple[int, int]:
        """Return a data directory's address and size, zeros where there is none."""
        return self.directories[number] if number < len(self.directories) else (0, 0)

    def at(self, address: int, size: int) -> bytes:
        """Return the file's bytes at an address, fewer where the section or the file ends before."""
        i = bisect_right(self.starts, address) - 1
        if i >= 0:
            section = self.sections[i]
            inside = address - section.address
            if inside < section.raw:
                begin = section.offset + inside
                return bytes(self.data[begin : begin + min(size, section.raw - inside)])
        return b""

    def offsets(self, addresses: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return where addresses lie in the file, and where their sections begin and end there; 0 for none."""
        table = np.array([s[:4] for s in self.sections] or [(0, 0, 0, 0)], np.int64)
        start, _, offset, raw = table[np.maximum(np.searchsorted(table[:, 0], addresses, side="right") - 1, 0)].T
        inside = (addresses >= start) & (addresses < start + raw) & (offset + addresses - start < len(self.data))
        return (
            np.where(inside, offset + addresses - start, 0),
            np.where(inside, offset, 0),
            np.where(inside, np.minimum(offset + raw, len(self.data)), 0),
        )

    def text(self) -> NDArray[np.uint32]:
        """Return start and end of the executable sections, u32[n, 2], sorted."""
        spans = [
            (s.address, min(s.address + (s.size or s.raw), 0xFFFF_FFFE))
            for s in self.sections
            if s.flags & (_CNT_CODE | _MEM_EXECUTE)
        ]
        return np.array([s for s in spans if s[0] < s[1]], np.uint32).reshape(-1, 2)


def headers(data: bytes | memoryview) -> Headers:
    """Read an image's headers. Raises Malformed where that can't be done."""
    try:
        at = struct.unpack_from("<I", data, 0x3C)[0]
        if bytes(data[at : at + 4]) != b"PE\0\0":
            raise Malformed("PE signature", offset=at, expected="PE\\0\\0", got=bytes(data[at : at + 4]))
        machine, count, timestamp, symbols, number_of_symbols, optional_size, _ = struct.unpack_from(
            "<HHIIIHH", data, at + 4
        )
        optional = at + 24
        magic = struct.unpack_from("<H", data, optional)[0]
        directories = optional + _OPTIONAL_MAGIC.get(magic, optional_size)
        number = struct.unpack_from("<I", data, directories - 4)[0] if magic in _OPTIONAL_MAGIC else 0
        base = struct.unpack_from("<Q", data, optional + 24)[0] if magic == 0x20B else 0
        base = struct.unpack_from("<I", data, optional + 28)[0] if magic == 0x10B else base
        image_size = struct.unpack_from("<I", data, optional + 56)[0]
        rows = [
            struct.unpack_from("<8sIIIIIIHHI", data, optional + optional_size + 40 * i)
            for i in range(min(count, _MAX_SECTIONS))
        ]
        entries = [struct.unpack_from("<II", data, directories + 8 * i) for i in range(min(number, 16))]
    except struct.error as e:
        raise Malformed("PE headers", offset=0, expected="headers within the file", got=f"{len(data)} bytes") from e
    strings = symbols + 18 * number_of_symbols if symbols else len(data)
    sections = sorted(
        Section(address, size, offset, raw, flags, _name(data, strings, name))
        for name, size, address, raw, offset, *_, flags in rows
    )
    arch = _MACHINES.get(machine, Arch.UNKNOWN)
    return Headers(data, arch, timestamp, base, image_size, sections, entries, [s.address for s in sections])


def _name(data: bytes | memoryview, strings: int, field: bytes) -> str:
    """Return a section's name; GNU's and LLVM's tools put longer ones into the string table, as ``/offset``."""
    name = field.rstrip(b"\0")
    if name[:1] == b"/" and name[1:].isdigit():
        at = strings + int(name[1:])
        name = bytes(data[at : at + _MAX_SECTION_NAME]).split(b"\0", 1)[0] or name
    return name.decode("ascii", "replace")


@dataclass(frozen=True, slots=True)
class PeIdentity:
    """What names a PE file: ``debug_id`` is None where it has no CodeView record, ``debug_file`` is the PDB's path."""

    arch: Arch
    debug_id: DebugId | None
    code_id: str
    debug_file: str
    image_base: int


def identify(data: bytes | memoryview) -> PeIdentity:
    """Read identity from a file's bytes (or a map of them). Raises Malformed where the headers can't be read."""
    image = headers(data)
    debug_id, debug_file = next(_codeview(image), (None, ""))
    code_id = normalize_code_id(code_id_from_pe(image.timestamp, image.image_size))
    return PeIdentity(image.arch, debug_id, code_id, debug_file, image.image_base)


def _codeview(image: Headers) -> Iterator[tuple[DebugId | None, str]]:
    """Yield id and path of each CodeView record: RSDS has a GUID, its predecessor NB10 a time stamp in its place.

    A Portable PDB's id ends in the directory entry's stamp, as the file itself has it, and not in the record's age
    (.NET's "PE/COFF Specification Addendum").
    """
    address, size = image.directory(_DIRECTORY_DEBUG)
    table = image.at(address, min(size, 28 * _MAX_DEBUG_ENTRIES))
    for at in range(0, len(table) - 27, 28):
        stamp, _, minor, kind, length, where, offset = struct.unpack_from("<IHHIIII", table, at + 4)
        if kind != _DEBUG_TYPE_CODEVIEW:
            continue
        length = min(length, 24 + _MAX_NAME)
        record = bytes(image.data[offset : offset + length]) if offset else image.at(where, length)
        if record[:4] == b"RSDS" and len(record) >= 24:
            guid, age, name = record[4:20], int.from_bytes(record[20:24], "little"), record[24:]
            age = stamp if minor == _PORTABLE_PDB else age
        elif record[:4] == b"NB10" and len(record) >= 16:
            guid, age, name = record[8:12].ljust(16, b"\0"), int.from_bytes(record[12:16], "little"), record[16:]
        else:
            continue
        try:
            debug_id: DebugId | None = DebugId.from_guid(guid, age)
        except ValueError:
            debug_id = None
        yield debug_id, name.split(b"\0", 1)[0].decode("utf-8", "replace")
