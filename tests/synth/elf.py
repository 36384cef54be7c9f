"""Writes ELF files from parts, of either class and byte order, from the gABI (chapters 4 and 5)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGBITS, SYMTAB, STRTAB, NOTE, NOBITS = 1, 2, 3, 7, 8
ALLOC, EXECINSTR, COMPRESSED = 2, 4, 0x800
PT_LOAD, PT_NOTE = 1, 4


@dataclass
class Section:
    """A section; ``link`` names the section it refers to, ``size`` lies about its size."""

    name: str
    data: bytes = b""
    kind: int = PROGBITS
    flags: int = 0
    addr: int = 0
    link: str = ""
    entsize: int = 0
    size: int | None = None


@dataclass
class Segment:
    """A segment; its bytes are those of a section, if any."""

    kind: int
    vaddr: int = 0
    section: str = ""


@dataclass
class Elf:
    """A file; ``header`` replaces fields of the ELF header by name."""

    bits: int = 64
    order: str = "<"
    machine: int = 62
    kind: int = 3
    sections: list[Section] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    header: dict[str, int] = field(default_factory=dict)

    def pack(self, wide: str, narrow: str, *values: int) -> bytes:
        return struct.pack(self.order + (wide if self.bits == 64 else narrow), *values)

    def note(self, name: bytes, kind: int, description: bytes) -> bytes:
        padded = [part + b"\0" * (-len(part) % 4) for part in (name, description)]
        return struct.pack(self.order + "III", len(name), len(description), kind) + b"".join(padded)

    def build_id(self, data: bytes) -> bytes:
        """Return a GNU build id note."""
        return self.note(b"GNU\0", 3, data)

    def compressed(self, data: bytes, size: int | None = None) -> bytes:
        """Return a section's content as SHF_COMPRESSED has it; ``size`` lies about what it unpacks to."""
        head = self.pack("IIQQ", "III", *((1, 0) if self.bits == 64 else (1,)), len(data) if size is None else size, 1)
        return head + zlib.compress(data)

    def symbols(self, rows: Sequence[tuple[str, int, int, int, int]]) -> tuple[bytes, bytes]:
        """Return a symbol table and its strings from (name, value, size, type, section)."""
        strings = bytearray(b"\0")
        table = bytearray(self.pack("IBBHQQ", "IIIBBH", 0, 0, 0, 0, 0, 0))
        for name, value, size, kind, section in rows:
            at = len(strings)
            strings += name.encode() + b"\0"
            if self.bits == 64:
                table += self.pack("IBBHQQ", "", at, kind, 0, section, value, size)
            else:
                table += self.pack("", "IIIBBH", at, value, size, kind, 0, section)
        return bytes(table), bytes(strings)

    def __bytes__(self) -> bytes:
        wide = self.bits == 64
        ehsize, phentsize, shentsize = (64, 56, 64) if wide else (52, 32, 40)
        sections = [Section("", kind=0), *self.sections]
        names = bytearray(b"\0")
        sections.append(Section(".shstrtab", kind=STRTAB))
        refs = []
        for section in sections:
            refs.append(len(names) if section.name else 0)
            names += section.name.encode() + b"\0" if section.name else b""
        sections[-1].data = bytes(names)
        body = bytearray(b"\0" * (ehsize + phentsize * len(self.segments)))
        offsets = []
        for section in sections:
            body += b"\0" * (-len(body) % 16)
            offsets.append(len(body) if section.kind else 0)
            body += section.data
        body += b"\0" * (-len(body) % 16)
        shoff = len(body)
        by_name = {section.name: i for i, section in enumerate(sections)}
        for ref, offset, section in zip(refs, offsets, sections, strict=True):
            size = len(section.data) if section.size is None else section.size
            body += self.pack(
                "IIQQQQIIQQ", "IIIIIIIIII", ref, section.kind, section.flags, section.addr, offset, size,
                by_name[section.link], 0, 1, section.entsize,
            )  # fmt: skip
        at = ehsize
        for segment in self.segments:
            i = by_name[segment.section]
            offset, size = offsets[i], len(sections[i].data)
            values = [segment.kind, offset, segment.vaddr, segment.vaddr, size, size]
            if wide:
                data = self.pack("IIQQQQQQ", "", values[0], 5, *values[1:], 4)
            else:
                data = self.pack("", "IIIIIIII", *values, 5, 4)
            body[at : at + phentsize] = data
            at += phentsize
        head = {
            "type": self.kind, "machine": self.machine, "version": 1, "entry": 0, "phoff": ehsize, "shoff": shoff,
            "flags": 0, "ehsize": ehsize, "phentsize": phentsize, "phnum": len(self.segments), "shentsize": shentsize,
            "shnum": len(sections), "shstrndx": len(sections) - 1,
        }  # fmt: skip
        head |= self.header
        identity = b"\x7fELF" + bytes([2 if wide else 1, 1 if self.order == "<" else 2, 1]) + b"\0" * 9
        body[:ehsize] = identity + self.pack("HHIQQQIHHHHHH", "HHIIIIIHHHHHH", *head.values())
        return bytes(body)
