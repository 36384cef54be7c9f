"""Writes PE files from parts: headers, sections, CodeView records, exception tables. From Microsoft's "PE Format"."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

TEXT, RDATA, PDATA = 0x1000, 0x2000, 0x3000
X86, AMD64, ARM64 = 0x14C, 0x8664, 0xAA64
CODE, DATA = 0x6000_0020, 0x4000_0040
EXCEPTION, DEBUG = 3, 6
_ALIGN = 0x200


@dataclass
class Pe:
    """A file; ``sections`` are (name, address, content, flags), ``directories`` (address, size) by number.

    Names of over 8 bytes go to the string table of the (empty) symbol table. ``cut`` takes bytes from the end.
    """

    machine: int = AMD64
    timestamp: int = 0x5AB3_8077
    image_size: int = 0x4000
    base: int = 0x1_4000_0000
    sections: list[tuple[str, int, bytes, int]] = field(default_factory=list)
    directories: dict[int, tuple[int, int]] = field(default_factory=dict)
    cut: int = 0

    def debug(self, address: int, *records: tuple[int, bytes]) -> None:
        """Add a section with a debug directory of (type, content)."""
        content = b""
        table = b""
        for kind, record in records:
            at = 28 * len(records) + len(content)
            # The file's offset is filled in when it is known.
            table += struct.pack("<IIHHIIII", 0, 0, 0, 0, kind, len(record), address + at, 0)
            content += record
        self.sections.append((".debug", address, table + content, DATA))
        self.directories[DEBUG] = (address, len(table))

    def __bytes__(self) -> bytes:
        wide = self.machine != X86
        strings = b"".join(name.encode() + b"\0" for name, *_ in self.sections if len(name) > 8)
        optional = struct.pack("<HBB3I2I", 0x20B if wide else 0x10B, 14, 0, 0x200, 0x400, 0, TEXT, TEXT)
        optional += struct.pack("<Q" if wide else "<II", *((self.base,) if wide else (0, self.base)))
        optional += struct.pack("<2I6H", 0x1000, _ALIGN, *(6, 0, 0, 0, 6, 0))  # alignments, versions
        optional += struct.pack("<4I2H", 0, self.image_size, 0x400, 0, 3, 0)
        optional += struct.pack("<4Q" if wide else "<4I", *(0x10_0000, 0x1000, 0x10_0000, 0x1000))  # stack and heap
        optional += struct.pack("<2I", 0, 16)
        for number in range(16):
            optional += struct.pack("<2I", *self.directories.get(number, (0, 0)))
        head = b"MZ" + b"\0" * 58 + struct.pack("<I", 0x80) + b"\0" * 64
        size = len(head) + 24 + len(optional) + 40 * len(self.sections)
        at = -(-size // _ALIGN) * _ALIGN
        body = b""
        rows = b""
        for name, address, content, flags in self.sections:
            raw = -(-len(content) // _ALIGN) * _ALIGN
            field_ = name.encode() if len(name) <= 8 else b"/%d" % (4 + strings.index(name.encode()))
            rows += struct.pack("<8s6I2HI", field_, len(content), address, raw, at + len(body), 0, 0, 0, 0, flags)
            if name == ".debug":
                content = self._placed(content, address, at + len(body))  # noqa: PLW2901
            body += content.ljust(raw, b"\0")
        symbols = at + len(body) if strings else 0
        head += b"PE\0\0" + struct.pack("<2H3I2H", self.machine, len(self.sections), self.timestamp, symbols, 0, 0, 0)
        head = head[:-4] + struct.pack("<2H", len(optional), 0x22)
        table = struct.pack("<I", len(strings) + 4) + strings if strings else b""
        whole = (head + optional + rows).ljust(at, b"\0") + body + table
        return whole[: len(whole) - self.cut]

    def _placed(self, content: bytes, address: int, offset: int) -> bytes:
        out = bytearray(content)
        for at in range(0, self.directories[DEBUG][1], 28):
            (where,) = struct.unpack_from("<I", out, at + 20)
            struct.pack_into("<I", out, at + 24, where - address + offset)
        return bytes(out)


def rsds(guid: bytes, age: int, name: bytes) -> bytes:
    """Return a CodeView record of PDB 7.0."""
    return b"RSDS" + guid + struct.pack("<I", age) + name + b"\0"


def nb10(signature: int, age: int, name: bytes) -> bytes:
    """Return a CodeView record of PDB 2.0."""
    return b"NB10" + struct.pack("<3I", 0, signature, age) + name + b"\0"


def with_table(
    entries: bytes,
    unwind: bytes = b"",
    code: bytes = b"",
    *,
    machine: int = AMD64,
    places: tuple[int, int, int] = (TEXT, RDATA, PDATA),
) -> Pe:
    """Return a file with code, unwind information and an exception table at three places."""
    text, rdata, pdata = places
    file = Pe(machine, image_size=max(pdata + len(entries), 0x4000))
    file.sections = [(".text", text, code, CODE), (".rdata", rdata, unwind, DATA), (".pdata", pdata, entries, DATA)]
    file.directories[EXCEPTION] = (pdata, len(entries))
    return file


def looping(debug_id: bytes = bytes(range(1, 17)), age: int = 1) -> bytes:
    """Return an executable whose one function's unwind information is chained to itself, and so has no end."""
    function = struct.pack("<3I", TEXT, TEXT + 0x100, RDATA)
    # Version 1, UNW_FLAG_CHAININFO; no codes; then the RUNTIME_FUNCTION it continues: itself.
    file = with_table(function, bytes([1 | 4 << 3, 0, 0, 0]) + function, b"\x90" * 0x100)
    file.debug(0x3800, (2, rsds(debug_id, age, b"loop.pdb")))
    return bytes(file)
