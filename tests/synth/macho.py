"""Writes small Mach-O files, thin and fat, from Apple's mach-o/loader.h and mach-o/fat.h."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

X86_64, ARM64, I386 = 0x0100_0007, 0x0100_000C, 7
EXECUTE, DYLIB, DSYM = 2, 6, 10
PURE = 0x8000_0400
CONTENT = 0x1000


@dataclass
class Mach:
    """One slice: a __TEXT segment with ``sections`` (name, address, size, flags), ``starts`` as absolute addresses.

    Sections whose name is in ``content`` have that in the file, from CONTENT on.
    """

    uuid: bytes = bytes(range(1, 17))
    cpu: int = X86_64
    kind: int = DYLIB
    base: int = 0x1_0000_0000
    order: str = "<"
    wide: bool = True
    sections: list[tuple[bytes, int, int, int]] = field(default_factory=list)
    starts: list[int] | None = None
    symbols: list[tuple[str, int]] = field(default_factory=list)
    content: dict[bytes, bytes] = field(default_factory=dict)

    def pack(self, layout: str, *values: int | bytes) -> bytes:
        return struct.pack(self.order + layout, *values)

    def __bytes__(self) -> bytes:
        pack = self.pack
        commands = [pack("II16s", 0x1B, 24, self.uuid)]
        places: dict[bytes, int] = {}
        for name in self.content:
            places[name] = CONTENT + sum(len(self.content[n]) for n in places)
        section = "16s16sQQIIIIIIII" if self.wide else "16s16sIIIIIIIII"
        rest = (0,) * (3 if self.wide else 2)
        sections = b"".join(
            pack(section, name, b"__TEXT", address, size, places.get(name, 0), 0, 0, 0, flags, *rest)
            for name, address, size, flags in self.sections
        )
        layout = "16sQQQQiiII" if self.wide else "16sIIIIiiII"
        size = 8 + struct.calcsize("=" + layout) + len(sections)
        commands.append(
            pack("II", 0x19 if self.wide else 1, size)
            + pack(layout, b"__TEXT", self.base, 0x10_0000, 0, 0, 7, 5, len(self.sections), 0)
            + sections
        )
        tables = [(2, 24, self._symbols())] if self.symbols else []
        if self.starts is not None:
            tables.append((0x26, 16, [self._starts(self.starts)]))
        head = 32 if self.wide else 28
        at = head + sum(map(len, commands)) + sum(length for _, length, _ in tables)
        body = b""
        for kind, length, parts in tables:
            offset = at + len(body)
            if kind == 2:
                rows, names = parts
                commands.append(pack("IIIIII", 2, length, offset, len(self.symbols), offset + len(rows), len(names)))
            else:
                commands.append(pack("IIII", kind, length, offset, len(parts[0])))
            body += b"".join(parts)
        magic = 0xFEEDFACF if self.wide else 0xFEEDFACE
        size = sum(map(len, commands))
        header = pack("IIIIIII", magic, self.cpu, 3, self.kind, len(commands), size, 0)
        whole = header + (b"\0" * 4 if self.wide else b"") + b"".join(commands) + body
        return whole.ljust(CONTENT, b"\0") + b"".join(self.content.values()) if self.content else whole

    def _starts(self, starts: list[int]) -> bytes:
        out = bytearray()
        previous = self.base
        for start in starts:
            delta, previous = start - previous, start
            while delta >= 0x80:
                out.append(delta & 0x7F | 0x80)
                delta >>= 7
            out.append(delta)
        return bytes(out) + b"\0"

    def _symbols(self) -> list[bytes]:
        names = bytearray(b"\0")
        rows = b""
        for name, address in self.symbols:
            # N_SECT | N_EXT, in the first section.
            rows += self.pack("IBBHQ" if self.wide else "IBBHI", len(names), 0x0F, 1, 0, address)
            names += name.encode() + b"\0"
        return [rows, bytes(names)]


def fat(*slices: Mach) -> bytes:
    """Return a fat file of slices."""
    at = 0x1000
    head = struct.pack(">II", 0xCAFEBABE, len(slices))
    body = bytearray()
    for one in slices:
        data = bytes(one)
        head += struct.pack(">IIIII", one.cpu, 3, at + len(body), len(data), 12)
        body += data + b"\0" * (-len(data) % 0x1000)
    return head.ljust(at, b"\0") + bytes(body)
