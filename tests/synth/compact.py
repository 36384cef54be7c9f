"""Writes ``__unwind_info`` sections from Apple's mach-o/compact_unwind_encoding.h."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

Entry = tuple[int, int]
"""Start of a function and its encoding."""


@dataclass
class UnwindInfo:
    """Pages of entries, regular or compressed; ``common`` encodings are shared by the compressed ones."""

    common: list[int] = field(default_factory=list)
    pages: list[tuple[bool, list[Entry]]] = field(default_factory=list)
    end: int = 0x10_0000
    version: int = 1

    def regular(self, *entries: Entry) -> None:
        self.pages.append((False, list(entries)))

    def compressed(self, *entries: Entry) -> None:
        self.pages.append((True, list(entries)))

    def __bytes__(self) -> bytes:
        common_at = 28
        index_at = common_at + 4 * len(self.common)
        at = index_at + 12 * (len(self.pages) + 1)
        index, body = b"", b""
        for compress, entries in self.pages:
            first = entries[0][0]
            index += struct.pack("<III", first, at + len(body), 0)
            body += self._compressed(first, entries) if compress else self._regular(entries)
        index += struct.pack("<III", self.end, 0, 0)
        head = struct.pack("<7I", self.version, common_at, len(self.common), index_at, 0, index_at, len(self.pages) + 1)
        return head + struct.pack(f"<{len(self.common)}I", *self.common) + index + body

    def _regular(self, entries: list[Entry]) -> bytes:
        return struct.pack("<IHH", 2, 8, len(entries)) + b"".join(struct.pack("<II", *entry) for entry in entries)

    def _compressed(self, first: int, entries: list[Entry]) -> bytes:
        local = sorted({encoding for _, encoding in entries} - set(self.common))
        table = [*self.common, *local]
        rows = [table.index(encoding) << 24 | start - first for start, encoding in entries]
        head = struct.pack("<IHHHH", 3, 12, len(rows), 12 + 4 * len(rows), len(local))
        return head + struct.pack(f"<{len(rows) + len(local)}I", *rows, *local)


def permutation(registers: list[int]) -> int:
    """Return the number that stands for an order of up to six of the registers 1 to 6, as Apple's encoder has it.

    Each register is renumbered by how many smaller ones came before it; the first digit weighs most.
    """
    digits = [n - 1 - sum(before < n for before in registers[:i]) for i, n in enumerate(registers)]
    weights = {
        6: (120, 24, 6, 2, 1, 0), 5: (120, 24, 6, 2, 1), 4: (60, 12, 3, 1), 3: (20, 4, 1), 2: (5, 1), 1: (1,), 0: ()
    }  # fmt: skip
    return sum(digit * weight for digit, weight in zip(digits, weights[len(registers)], strict=True))
