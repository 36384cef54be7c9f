"""What unwinding may read: stacks, where signals interrupted them, and the code that tells calls from chance."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from deadreckon.model.crash import MemoryMap, Module, RawCrash, RawThread, Regions
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.unwind import reach as unit
from deadreckon.unwind.reach import Space, reach

FULL = (1 << 64) - 1
STACK, ALTERNATE, CODE, HEAP = 0x7F00_0000_0000, 0x10_0000, 0x40_0000, 0x60_0000


def crash(arch: Arch, ranges: list[tuple[int, bytes]], *, regions: bool = True, **registers: int) -> RawCrash:
    """Return a crash with one thread and this memory; all of it is read-write but for what begins at CODE."""
    buffer = b"".join(data for _, data in ranges)
    placed, at = [], 0
    for start, data in ranges:
        placed.append((start, len(data), at))
        at += len(data)
    mapped = [(start, start + len(data), 5 if start == CODE else 3) for start, data in ranges]
    return RawCrash(
        "elfcore",
        arch=arch,
        threads=[RawThread(1, registers=Registers.from_mapping(arch, registers))],
        modules=[Module(CODE, 0x1000, "app")],
        memory=MemoryMap.from_ranges(placed, np.frombuffer(buffer, np.uint8)),
        regions=Regions.from_ranges(mapped) if regions else None,
    )


def taken(found: RawCrash, mask: int = FULL, limit: int = 1 << 30) -> list[tuple[int, int]]:
    """Return (start, size) of what is taken, after checking that it is what the crash holds there."""
    threads = [t.registers for t in found.threads if t.registers is not None]
    pieces = reach(found.arch, threads, Space.of(found), mask, limit)
    for start, data in pieces:
        assert found.memory.read(start, len(data)) == data
    assert all(a + len(d) <= b for (a, d), (b, _) in pairwise(pieces))
    return [(start, len(data)) for start, data in pieces]


def test_from_the_stack_pointer_up() -> None:
    found = crash(Arch.X86_64, [(STACK, bytes(0x4000))], rsp=STACK + 0x3000)
    assert taken(found) == [(STACK + 0x3000 - 128, 0x1000 + 128)]
    # At the very bottom nothing is below.
    assert taken(crash(Arch.X86_64, [(STACK, bytes(0x4000))], rsp=STACK)) == [(STACK, 0x4000)]


def test_around_registers() -> None:
    found = crash(Arch.X86_64, [(HEAP, bytes(0x1000)), (STACK, bytes(64))], rsp=STACK, rbx=HEAP + 0x800, rax=5)
    assert taken(found) == [(HEAP + 0x800 - 128, 192), (STACK, 64)]
    assert taken(crash(Arch.X86_64, [(HEAP, bytes(16))], rax=HEAP)) == [(HEAP, 16)]


def test_a_stack_that_ran_over() -> None:
    below = crash(Arch.X86_64, [(STACK, bytes(0x1000))], rsp=STACK - 0x5000)
    assert taken(below) == [(STACK, 0x1000)]
    far = crash(Arch.X86_64, [(STACK, bytes(0x1000))], rsp=STACK - 0x200_0000)
    assert taken(far) == []


def test_code_before_what_may_be_a_return_address() -> None:
    words = struct.pack("<4Q", CODE + 0x500, 7, STACK, CODE + 0x2000)
    memory = [(CODE, bytes(range(256)) * 16), (STACK, words)]
    for regions in (True, False):
        found = crash(Arch.X86_64, memory, regions=regions, rsp=STACK)
        assert taken(found) == [(CODE + 0x4E0, 64), (STACK, 32)]
    # What follows the code may be where a call, its last instruction, returns to.
    at_the_end = crash(Arch.X86_64, [(CODE, bytes(0x1000)), (STACK, struct.pack("<Q", CODE + 0x1000))], rsp=STACK)
    assert taken(at_the_end) == [(CODE + 0xFE0, 32), (STACK, 8)]


def test_signed_addresses() -> None:
    signed = struct.pack("<Q", CODE + 0x500 | 0x7B << 48)
    found = crash(Arch.ARM64, [(CODE, bytes(0x1000)), (STACK, signed)], sp=STACK)
    assert taken(found) == [(STACK, 8)]
    assert taken(found, (1 << 48) - 1) == [(CODE + 0x4E0, 64), (STACK, 8)]


FRAMES = {
    # From the start of struct ucontext: uc_stack, then the stack pointer in uc_mcontext.
    Arch.X86_64: (16, 160),
    Arch.X86: (8, 48),
    Arch.ARM64: (16, 432),
    Arch.ARM: (8, 84),
}


@pytest.mark.parametrize("arch", FRAMES)
@pytest.mark.parametrize("flags", [0, 1, 1 << 31])
def test_the_stack_that_a_signal_interrupted(arch: Arch, flags: int) -> None:
    stack = STACK & 0xFFFF_FFFF if arch.word_size == 4 else STACK
    stack += 0x5000_0000
    uc_stack, saved_sp = FRAMES[arch]
    frame = bytearray(0x2000)
    at = 0x1C00
    word = "I" if arch.word_size == 4 else "Q"
    struct.pack_into(f"<{word}I", frame, at + uc_stack, ALTERNATE, flags)
    struct.pack_into(f"<{word}", frame, at + uc_stack + 2 * arch.word_size, len(frame))
    struct.pack_into(f"<{word}", frame, at + saved_sp, stack + 0x700)
    names = REGISTER_SETS[arch].names
    sp: dict[str, Any] = {names[REGISTER_SETS[arch].sp]: ALTERNATE + 0x1B00}
    found = crash(arch, [(ALTERNATE, bytes(frame)), (stack, bytes(0x1000))], **sp)
    assert taken(found) == [(ALTERNATE + 0x1B00 - 128, 0x580), (stack + 0x700 - 128, 0x980)]
    # Another stack's description, or none: nothing leads on.
    struct.pack_into(f"<{word}", frame, at + uc_stack, ALTERNATE + 0x10_0000)
    other = crash(arch, [(ALTERNATE, bytes(frame)), (stack, bytes(0x1000))], **sp)
    assert taken(other) == [(ALTERNATE + 0x1B00 - 128, 0x580)]


def test_signal_frames_that_lead_in_a_circle() -> None:
    frame = bytearray(0x1000)
    struct.pack_into("<QQQ", frame, 0x100, ALTERNATE, 0, len(frame))
    struct.pack_into("<Q", frame, 0x100 + 144, ALTERNATE + 8)
    found = crash(Arch.X86_64, [(ALTERNATE, bytes(frame))], rsp=ALTERNATE)
    assert taken(found) == [(ALTERNATE, 0x1000)]


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = crash(Arch.X86_64, [(STACK, bytes(0x4000))], rsp=STACK)
    assert taken(found, limit=0x1000) == [(STACK, 0x1000)]
    monkeypatch.setattr(unit, "MAX_STACK", 0x800)
    assert taken(found) == [(STACK, 0x800)]
    words = struct.pack("<64Q", *(CODE + 0x40 * n for n in range(64)))
    many = crash(Arch.X86_64, [(CODE, bytes(0x1000)), (STACK, words)], rsp=STACK)
    monkeypatch.setattr(unit, "_MAX_CODE", 0x200)
    assert sum(size for start, size in taken(many) if start < STACK) <= 0x200


def test_neighbours_stay_apart() -> None:
    """The walker reads no word across two ranges, and neither must what is made of them."""
    found = crash(Arch.X86_64, [(STACK, bytes(0x1000)), (STACK + 0x1000, bytes(0x1000))], rsp=STACK, rbx=STACK + 0x1000)
    assert taken(found) == [(STACK, 0x1000), (STACK + 0x1000, 64)]


def test_nothing_there() -> None:
    assert taken(crash(Arch.X86_64, [], rsp=STACK, rip=CODE)) == []
    assert taken(crash(Arch.X86_64, [(STACK, bytes(16))])) == []
    assert reach(Arch.UNKNOWN, [], Space.of(RawCrash("x")), FULL, 1) == []
    edge = crash(Arch.X86_64, [(FULL - 15, bytes(15))], rsp=FULL - 15, rax=FULL)
    assert taken(edge) == [(FULL - 15, 15)]
