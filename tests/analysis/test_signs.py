"""Notes on addresses: what is said of each, and of which nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from deadreckon.analysis import signs
from deadreckon.analysis.access import Access, Operand
from deadreckon.analysis.areas import Areas
from deadreckon.model.crash import MemoryMap, Module, RawCrash, Regions
from deadreckon.model.ids import Arch

NONE, READ, RW, RX = 0, 1, 3, 5
TOP = 1 << 64


def areas(*regions: tuple[int, int, int], modules: tuple[Module, ...] = (), stack: tuple[int, int] = (0, 0)) -> Areas:
    crash = RawCrash("minidump", modules=list(modules))
    crash.regions = Regions.from_ranges(regions) if regions else None
    if stack[1]:
        crash.memory = MemoryMap.from_ranges([(stack[0], stack[1], 0)], np.zeros(stack[1], np.uint8))
    return Areas(crash)


def hit(address: int, *operands: tuple[str, int]) -> list[Access]:
    return [Access("read", address, 8, "[...]", tuple(Operand(*o) for o in operands))]


@pytest.mark.parametrize(
    ("address", "word", "operands", "note"),
    [
        (0, 64, [], "null pointer"),
        (0x14, 64, [], "probably a null pointer plus 0x14"),
        (0xFFFF, 64, [], "probably a null pointer plus 0xffff"),
        (0x10000, 64, [], None),
        (TOP - 8, 64, [], "probably a null pointer minus 0x8"),
        (0xFFFF_FFF8, 32, [], "probably a null pointer minus 0x8"),
        (0xFFFF_FFF8, 64, [], None),
        (0x14, 64, [("rdi", 0)], "null pointer plus 0x14: rdi is 0"),
        (0, 64, [("rdi", 0)], "null pointer: rdi is 0"),
        (TOP - 8, 64, [("rdi", 0)], "null pointer minus 0x8: rdi is 0"),
        (0x20_0000, 64, [("rdi", 0)], "null pointer plus 0x200000: rdi is 0"),
        (0x14, 64, [("rdi", 0x10)], "probably a null pointer plus 0x14"),
        # Either of two registers may be the pointer.
        (0x20_0000, 64, [("rdi", 0), ("rcx", 0x20_0000)], None),
        (0x18, 64, [("rdi", 0), ("rcx", 3)], "probably a null pointer plus 0x18"),
    ],
)
def test_null(address: int, word: int, operands: list[tuple[str, int]], note: str | None) -> None:
    assert signs.null(address, word, hit(address, *operands) if operands else []) == note


def test_zero_may_be_what_a_report_has_for_want_of_an_address() -> None:
    assert signs.null(0, 64, [], reported=False) == "probably a null pointer"


@pytest.mark.parametrize(
    ("address", "canonical"),
    [(0, True), (0x7FFF_FFFF_FFFF, True), (1 << 47, False), (0xFFFF_7FFF_FFFF_FFFF, False), (TOP - 1, True)],
)
def test_canonical(address: int, canonical: bool) -> None:
    assert signs.canonical(address) is canonical


STACK = 0x7000_0000
GUARD = (STACK - 0x1000, STACK, NONE)


@pytest.mark.parametrize(
    ("address", "sp", "regions", "note"),
    [
        (STACK - 8, STACK - 8, [GUARD, (STACK, STACK + 0x8000, RW)], "stack overflow: the address is in the guard"),
        (STACK - 8, STACK + 0x20, [GUARD, (STACK, STACK + 0x8000, RW)], "stack overflow: the address is in the guard"),
        (STACK - 8, STACK, [(STACK, STACK + 0x8000, RW)], "stack overflow: the address is below the stack"),
        (STACK - 0x4000, STACK - 0x4000, [(STACK, STACK + 0x8000, RW)], "stack overflow: the address is below"),
        # The stack pointer is elsewhere, or the mapping above is no stack, or another one is between.
        (STACK - 8, 0x1000_0000, [GUARD, (STACK, STACK + 0x8000, RW)], None),
        (STACK - 8, STACK + 0x7F_0000, [GUARD, (STACK, STACK + 0x80_0000, RW)], None),
        (STACK - 8, STACK, [(STACK, STACK + 0x8000, RX)], None),
        (STACK - 8, STACK, [(STACK, STACK + 0x8000, 7)], None),
        (STACK - 8, STACK, [(STACK - 0x1000, STACK, READ), (STACK, STACK + 0x8000, RW)], None),
        (STACK - 0x3000, STACK, [(STACK - 0x3000, STACK - 0x2000, NONE), (STACK, STACK + 0x8000, RW)], None),
        (STACK - 0x20_0000, STACK - 0x20_0000, [(STACK, STACK + 0x8000, RW)], None),
        (STACK + 0x9000, STACK, [(STACK, STACK + 0x8000, RW)], None),
    ],
)
def test_stack_overflow(address: int, sp: int, regions: list[tuple[int, int, int]], note: str | None) -> None:
    found = signs.stack_overflow(address, sp, areas(*regions), "SIGSEGV")
    assert (found is None) == (note is None)
    assert found is None or found.startswith(note or "")


def test_stack_overflow_without_mappings() -> None:
    assert signs.stack_overflow(0x5000 - 8, 0x5000, areas(), "SIGSEGV") is not None
    assert signs.stack_overflow(0x5000 - 0x1000, 0x5000, areas(), "SIGSEGV") is None
    assert signs.stack_overflow(0x5000, 0x5000, areas(stack=(0x4000, 0x2000)), "SIGSEGV") is None
    assert signs.stack_overflow(0x10, None, areas(), "SIGSEGV") is None
    assert signs.stack_overflow(0x10, 0, areas(), "SIGSEGV") is None  # Registers that are all 0.
    assert signs.stack_overflow(0x10, None, areas(), "EXCEPTION_STACK_OVERFLOW") == "stack overflow"


def test_jumps() -> None:
    module = Module(0x40_0000, 0x4000, "/opt/lib/libx.so")
    mapped = areas(
        (0x40_0000, 0x40_2000, RX), (0x40_2000, 0x40_4000, RW), (STACK, STACK + 0x8000, RW), modules=(module,)
    )

    def said(address: int, where: Areas = mapped, sp: int | None = None, arch: Arch = Arch.X86_64) -> list[str]:
        return signs.jump(address, arch, where, sp)

    assert said(0)[0].startswith("jump to a null pointer:")
    assert said(0x18)[0].startswith("jump to probably a null pointer plus 0x18")
    assert said(0x40_2010) == ["jump to non-executable memory (rw-, in libx.so)"]
    assert said(STACK + 8, sp=STACK) == ["jump to non-executable memory (rw-, the stack)"]
    assert said(0x5000_0000) == ["jump to memory that is not mapped"]
    assert said(0x40_1000) == []  # Code; why it could not be fetched is not known.
    assert said(0x5000_0000, areas()) == ["jump to an address in no module"]
    assert said(0x40_1000, areas(modules=(module,))) == []
    assert said(STACK + 8, areas(stack=(STACK, 0x100)), STACK + 0x10) == ["jump to non-executable memory (the stack)"]
    bad_key = said(0x0020_0040_0000_1000, arch=Arch.ARM64)
    assert [n.split(":")[0] for n in bad_key] == [
        "jump to memory that is not mapped",
        "possibly a pointer whose authentication failed",
    ]
    assert said(0x4141_4141_4141_4141)[-1].endswith("'AAAAAAAA'")


def test_protection() -> None:
    module = Module(0x40_0000, 0x1000, "C:\\app\\x.dll")
    mapped = areas((0x40_0000, 0x40_1000, RX), (0x50_0000, 0x50_1000, NONE), modules=(module,))
    assert signs.protection(0x40_0010, "write", mapped) == "write to memory that is mapped r-x (x.dll)"
    assert signs.protection(0x40_0010, "read", mapped) is None
    assert signs.protection(0x40_0010, None, mapped) is None
    assert signs.protection(0x60_0000, "write", mapped) is None
    assert (signs.protection(0x50_0000, None, mapped) or "").startswith("memory without access: 0x500000-0x501000")
    assert signs.protection(0x50_0000, "write", areas()) is None


@pytest.mark.parametrize(
    ("word", "value", "note"),
    [
        (32, 0xDDDD_DDDD, "freed memory in Microsoft's debug heap"),
        (64, 0xDDDD_DDDD_DDDD_DDDD, "freed memory in Microsoft's debug heap"),
        (64, 0xDDDD_DDDD_DDDD_DDE5, "near 0xdddddddddddddddd: freed memory"),
        (64, 0xDDDD_DDDD, "freed memory in Microsoft's debug heap"),
        (32, 0xFEEE_FEEE, "memory that HeapFree() freed"),
        (64, 0xE5E5_E5E5_E5E5_E5E5, "freed memory in Firefox's jemalloc"),
        (64, 0x5555_5555_5555_5555, "freed memory under MallocScribble"),
        (32, 0x4141_4141, "'AAAA'"),
        (64, 0x6867_6665_6463_6261, "'abcdefgh'"),
        (64, 0x0000_5555_5560_1000, None),  # Where Linux puts programs.
        (64, 0x7FFF_1234_5678, None),
        (32, 0x0804_8000, None),
        (32, 0x41, None),
    ],
)
def test_patterns(word: int, value: int, note: str | None) -> None:
    for found in (signs.patterns(value, word, []), signs.patterns(value + 8, word, hit(value + 8, ("rax", value)))):
        assert [note in f for f in found if note] == ([True] if note else [])
        assert bool(found) == bool(note)
        assert all(f.startswith("possibly ") for f in found)


@pytest.mark.parametrize(
    ("address", "value", "note"),
    [
        (0x0020_0000_1234_5678, "SEGV_MAPERR", "possibly a pointer whose authentication failed"),
        (0x2000_0000_1234_5678, "SEGV_MAPERR", "possibly a pointer whose authentication failed"),
        (0x0021_0000_1234_5678, "SEGV_MAPERR", "non-canonical"),
        (0x00AD_BEEF_1234_5678, "SEGV_MAPERR", "non-canonical"),
        (0x0000_7FFF_1234_5678, "SEGV_MAPERR", None),
        (0xB400_007F_1234_5678, "SEGV_MAPERR", None),  # Android's heap is tagged.
        (TOP - 0x2_0000, "SEGV_MAPERR", None),
        (0x7F_1234_5678, "SEGV_MTESERR", "memory tagging"),
    ],
)
def test_arm64_pointers(address: int, value: str, note: str | None) -> None:
    found = signs.arm64_pointer(address, [], value)
    assert (found is None) == (note is None)
    assert found is None or found.startswith(note or "")


def test_the_tag_of_a_pointer() -> None:
    found = signs.arm64_pointer(0x7F00, hit(0x7F00, ("x8", 0x0300_0000_0000_7F00)), "SEGV_MTESERR at 0x7f00")
    assert found is not None
    assert "(x8 has 0x3)" in found
