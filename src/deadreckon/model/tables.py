"""The columns that kernels work on: SymTable, RuleTable and FrameTable.

Addresses in SymTable and RuleTable are relative to the module's preferred base (``rva``), u32. A table is valid for
one debug id; ``symbols/tablefile.py`` stores it as one mapped file.

RuleTable. An unwind rule says how to get the caller's registers at an address::

    CFA   = reg + offset                           CFA_REG
          | expression                             CFA_EXPR
          | *(reg + offset)  + adjust              CFA_DEREF   (Apple compact unwind, EHABI never)
    reg'  = *(CFA + n) | CFA + n | reg | *(expr) | expr | undefined      the REG_* kinds

Every unwind format lowers to it. Rules repeat a lot (156,000 rows of a C library share 900 of them), so rows hold an
index into the distinct rules, and a rule holds a slice of ``saved``::

    rva  u32[n]  rule u32[n]     rows, sorted; the rule NO_RULE marks a gap
    rules i32[r, 6]              cfa_kind, cfa_reg, cfa_offset, flags, saved_start, saved_count
    saved i32[s, 3]              register, kind, offset
    expr u8[e]                   DWARF expressions, each with its ULEB128 length before it
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = [
    "CALLEE_PARAMETERS",
    "CFA_EXPR",
    "CFA_NONE",
    "CFA_REG",
    "END_OF_STACK",
    "NO_RULE",
    "REG_EXPR",
    "REG_OFFSET",
    "REG_REGISTER",
    "REG_SAME",
    "REG_UNDEFINED",
    "REG_VAL_EXPR",
    "REG_VAL_OFFSET",
    "SEARCHED_RA",
    "SIGNAL_FRAME",
    "TRUST_NAMES",
    "CodeTable",
    "FrameTable",
    "RuleTable",
    "SymTable",
    "distinct",
]

_Scalar = TypeVar("_Scalar", np.uint32, np.int64)

NO_RULE = 0xFFFF_FFFF
NONE = 0xFFFF_FFFF
"""The reference to nothing, in every u32 index column."""

CFA_NONE, CFA_REG, CFA_EXPR = 0, 1, 2
REG_SAME, REG_UNDEFINED, REG_OFFSET, REG_VAL_OFFSET, REG_REGISTER, REG_EXPR, REG_VAL_EXPR = range(7)
SIGNAL_FRAME = 1
"""Rule flag: the frame above was interrupted, not called, so its pc is exact (augmentation ``S``)."""
END_OF_STACK = 2
"""Rule flag: the return address is undefined; no caller exists."""
SIGNED_RA = 4
"""Rule flag: the return address carries a pointer-authentication code (ARM64)."""
SEARCHED_RA = 8
"""Rule flag: the return address may lie up to three words further up (Windows' ``.raSearch``)."""
CALLEE_PARAMETERS = 9
"""A register that x86 hasn't: the size of the arguments of the function that was called last, in rules of Windows."""

TRUST_NAMES = ("none", "scan", "cfi_scan", "frame_pointer", "cfi", "context", "prewalked")
"""Trust levels, by their number in FrameTable.trust."""
TRUST_NONE, TRUST_SCAN, TRUST_CFI_SCAN, TRUST_FP, TRUST_CFI, TRUST_CONTEXT, TRUST_PREWALKED = range(7)


def distinct(values: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return the values once each, in order; numpy's ``unique`` hashes them first, which takes ten times as long."""
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


@dataclass(slots=True)
class RuleTable:
    """Unwind rules of one module; see the module's docstring for the columns."""

    rva: NDArray[np.uint32]
    rule: NDArray[np.uint32]
    rules: NDArray[np.int32]
    saved: NDArray[np.int32]
    expr: NDArray[np.uint8]

    @classmethod
    def empty(cls) -> RuleTable:
        """Return a table that covers nothing."""
        return cls(
            np.zeros(0, np.uint32),
            np.zeros(0, np.uint32),
            np.zeros((0, 6), np.int32),
            np.zeros((0, 3), np.int32),
            np.zeros(0, np.uint8),
        )


@dataclass(slots=True)
class SymTable:
    """Functions, files and lines of one module, whatever they came from.

    ``range_start`` u32[n] sorted; ``range_loc`` u32[n] index into ``locations`` or NONE for a gap.
    ``locations`` u32[m, 4]: file, line (0 unknown), function, inlined_into (a location, or NONE).
    ``functions`` u32[f, 3]: name (string), entry rva (NONE for inlined ones), language.
    ``files`` u32[k, 3]: compilation directory, directory, name (strings or NONE).
    ``strings`` u8: each string is its ULEB128 length and then UTF-8; a reference is the offset of the length.
    ``base`` u32[b, 2]: start and end of functions above which no caller exists (``_start``, ``clone`` ...).
    ``text`` u32[t, 2]: start and end of the executable sections, empty where they are not known.
    ``entries`` u32[e]: where functions start, sorted; a word on a stack that equals one is a function pointer.
    """

    range_start: NDArray[np.uint32]
    range_loc: NDArray[np.uint32]
    locations: NDArray[np.uint32]
    functions: NDArray[np.uint32]
    files: NDArray[np.uint32]
    strings: NDArray[np.uint8]
    base: NDArray[np.uint32]
    text: NDArray[np.uint32]
    entries: NDArray[np.uint32]

    @classmethod
    def empty(cls) -> SymTable:
        """Return a table that names nothing."""
        none = np.zeros(0, np.uint32)
        return cls(
            none,
            none,
            np.zeros((0, 4), np.uint32),
            np.zeros((0, 3), np.uint32),
            np.zeros((0, 3), np.uint32),
            np.zeros(0, np.uint8),
            np.zeros((0, 2), np.uint32),
            np.zeros((0, 2), np.uint32),
            none,
        )

    def string(self, ref: int) -> str:
        """Return the string at a reference, empty for NONE and for a reference outside the table."""
        data = self.strings
        end = len(data)
        length = shift = 0
        at = ref
        while at < end and shift < 35:
            byte = int(data[at])
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return data[at : at + length].tobytes().decode("utf-8", "replace")
        return ""


@dataclass(slots=True)
class CodeTable:
    """A module's instructions, for reports that hold none: the contents of its executable sections.

    ``data`` u8[n]; ``map`` u32[s, 3]: each section's rva, size and offset in ``data``, sorted.
    """

    data: NDArray[np.uint8]
    map: NDArray[np.uint32]

    @classmethod
    def empty(cls) -> CodeTable:
        """Return a table without code."""
        return cls(np.zeros(0, np.uint8), np.zeros((0, 3), np.uint32))

    def read(self, rva: int, size: int) -> bytes | None:
        """Return instructions, None where the table does not hold all of them."""
        at = int(np.searchsorted(self.map[:, 0], rva, side="right")) - 1
        if at < 0:
            return None
        start, length, offset = self.map[at].tolist()
        if rva + size > start + length:
            return None
        return self.data[offset + rva - start : offset + rva - start + size].tobytes()

    @classmethod
    def gather(cls, file: bytes | memoryview, sections: Iterable[tuple[int, int, int]]) -> CodeTable:
        """Copy sections, each an (rva, size, offset in the file), out of an image; those outside of it are cut."""
        rows: list[tuple[int, int, int]] = []
        parts: list[NDArray[np.uint8]] = []
        at = 0
        for rva, size, offset in sorted(sections):
            end = rows[-1][0] + rows[-1][1] if rows else 0
            if not end <= rva <= NONE or not 0 <= offset < len(file):
                continue
            part = np.frombuffer(file, np.uint8, min(size, len(file) - offset, NONE - rva), offset)
            rows.append((rva, len(part), at))
            parts.append(part.copy())
            at += len(part)
        return cls(np.concatenate([np.zeros(0, np.uint8), *parts]), np.array(rows, np.uint32).reshape(-1, 3))


@dataclass(slots=True)
class FrameTable:
    """Frames of all threads of one or many crashes, innermost first within a thread.

    ``thread`` i32, ``instruction_addr`` u64 (exact, never adjusted), ``is_return_address`` bool (look up the address
    before), ``module`` i32 (-1 for none), ``trust`` u8.
    """

    thread: NDArray[np.int32]
    instruction_addr: NDArray[np.uint64]
    stack_pointer: NDArray[np.uint64]
    is_return_address: NDArray[np.bool_]
    module: NDArray[np.int32]
    trust: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.thread)

    @classmethod
    def empty(cls) -> FrameTable:
        """Return a table without frames."""
        return cls(
            np.zeros(0, np.int32),
            np.zeros(0, np.uint64),
            np.zeros(0, np.uint64),
            np.zeros(0, np.bool_),
            np.zeros(0, np.int32),
            np.zeros(0, np.uint8),
        )

    @classmethod
    def concatenate(cls, tables: Sequence[FrameTable]) -> FrameTable:
        """Return the frames of several tables, in order."""
        return cls(*(np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(cls)))
