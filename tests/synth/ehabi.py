"""Writes ``.ARM.exidx`` and ``.ARM.extab`` from ARM IHI 0038, sections 6 and 7, and ELF files that hold them."""

from __future__ import annotations

import struct

from synth.elf import ALLOC, EXECINSTR, PT_LOAD, STRTAB, SYMTAB, Elf, Section, Segment

ARM, EXIDX = 40, 0x7000_0001
BASE, TEXT, TABLE, INDEX = 0x1_0000, 0x1_1000, 0x1_8000, 0x1_9000
FUNC = 2


def prel31(target: int, place: int) -> int:
    return (target - place) & 0x7FFF_FFFF


class Tables:
    """Functions by address, each with its unwind instructions, added in any of the forms."""

    def __init__(self) -> None:
        self.index = bytearray()
        self.table = bytearray()

    def word(self, function: int, word: int) -> None:
        """Add an index entry with any second word."""
        self.index += struct.pack("<II", prel31(function, INDEX + len(self.index)), word)

    def cantunwind(self, function: int) -> None:
        self.word(function, 1)

    def inline(self, function: int, codes: bytes) -> None:
        self.word(function, int.from_bytes(b"\x80" + codes.ljust(3, b"\xb0"), "big"))

    def pointer(self, function: int) -> None:
        """Add an entry that points to what is added to the table next."""
        self.word(function, prel31(TABLE + len(self.table), INDEX + len(self.index) + 4))

    def compact(self, function: int, codes: bytes, routine: int = 1) -> None:
        """Add a table entry of personality routine 0, 1 or 2."""
        self.pointer(function)
        if routine:
            codes = codes.ljust(2, b"\xb0")
            codes += b"\xb0" * (-(len(codes) - 2) % 4)
            head = bytes([0x80 | routine, (len(codes) - 2) // 4])
        else:
            head, codes = b"\x80", codes.ljust(3, b"\xb0")
        self.raw(head + codes)

    def generic(self, function: int, codes: bytes, routine: int = TEXT) -> None:
        """Add a table entry of a language's own personality routine, as assemblers write them."""
        self.pointer(function)
        codes = codes.ljust(3, b"\xb0")
        codes += b"\xb0" * (-(len(codes) - 3) % 4)
        self.table += struct.pack("<I", prel31(routine, TABLE + len(self.table)))
        self.raw(bytes([(len(codes) - 3) // 4]) + codes)

    def raw(self, data: bytes) -> None:
        """Add words to the table whose bytes read from the most significant one down."""
        for at in range(0, len(data), 4):
            self.table += data[at : at + 4][::-1]

    def elf(
        self, symbols: tuple[tuple[str, int], ...] = (), size: int = 0x1000, *more: Section, code: bytes = b""
    ) -> bytes:
        """Return a file whose code is ``size`` zeros at TEXT, or ``code``."""
        file = Elf(bits=32, machine=ARM)
        table, strings = file.symbols([(name, value, 0, FUNC, 1) for name, value in symbols])
        file.sections = [
            Section(".text", code or b"\0" * size, flags=ALLOC | EXECINSTR, addr=TEXT),
            Section(".ARM.extab", bytes(self.table), flags=ALLOC, addr=TABLE),
            Section(".ARM.exidx", bytes(self.index), EXIDX, ALLOC, addr=INDEX),
            Section(".symtab", table, SYMTAB, link=".strtab", entsize=16),
            Section(".strtab", strings, STRTAB),
            *more,
        ]
        file.segments = [Segment(PT_LOAD, BASE, ".text")]
        return bytes(file)
