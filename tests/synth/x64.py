"""Functions of x86-64 code with the unwind information of Windows, and what running them does to the registers.

A function is written instruction by instruction, each with its bytes, its effect and its unwind code. Before each
instruction the state is kept, so that unwinding from there can be compared with the caller's registers, which are
known. From "x64 prolog and epilog" and "x64 exception handling"; numbers of registers are the instruction set's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

RSP, RBP = 4, 5
NONVOLATILE = (3, 5, 6, 7, 12, 13, 14, 15)
RETURN_ADDRESS = 0x7FF6_1234_5678
STACK = 0x20_0000
PUSH_NONVOL, ALLOC_LARGE, ALLOC_SMALL, SET_FPREG, SAVE_NONVOL, SAVE_NONVOL_FAR, EPILOG = range(7)
SAVE_XMM128, SAVE_XMM128_FAR, PUSH_MACHFRAME = range(8, 11)


@dataclass
class Point:
    """The state before the instruction at an offset."""

    offset: int
    registers: dict[int, int]
    memory: dict[int, int]


@dataclass
class Function:
    """Code under way. ``entry``: the registers on entry; ``codes``: unwind codes, first step first."""

    rng: Random
    code: bytearray = field(default_factory=bytearray)
    registers: dict[int, int] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    codes: list[bytes] = field(default_factory=list)
    entry: dict[int, int] = field(default_factory=dict)
    pushed: list[int] = field(default_factory=list)
    saved: dict[int, int] = field(default_factory=dict)  # register: address
    frame: tuple[int, int] = (0, 0)
    prologue_size: int = 0
    epilogues: list[tuple[int, int]] = field(default_factory=list)  # (offset of the first pop, end)
    origin: int = 0  # where the fragment begins whose codes are being written

    def __post_init__(self) -> None:
        self.registers = {r: self.rng.getrandbits(64) for r in range(16)}
        self.registers[RSP] = STACK
        self.memory[STACK] = RETURN_ADDRESS
        self.entry = dict(self.registers)

    def run(self, code: bytes) -> None:
        """Note the state, then add an instruction; its effect is the caller's business."""
        self.points.append(Point(len(self.code), dict(self.registers), dict(self.memory)))
        self.code += code

    def unwind(self, operation: int, info: int = 0, operand: bytes = b"") -> None:
        self.codes.append(bytes([len(self.code) - self.origin, info << 4 | operation]) + operand)

    # --- Prologue ---

    def push(self, register: int) -> None:
        self.run(bytes([0x41, 0x50 + register - 8] if register >= 8 else [0x50 + register]))
        self.registers[RSP] -= 8
        self.memory[self.registers[RSP]] = self.registers[register]
        self.pushed.append(register)
        self.unwind(PUSH_NONVOL, register)

    def allocate(self, size: int) -> None:
        """Write ``sub rsp, size`` (a multiple of 8)."""
        short = size < 0x80
        self.run(b"\x48\x83\xec" + bytes([size]) if short else b"\x48\x81\xec" + struct.pack("<I", size))
        self.registers[RSP] -= size
        if size <= 128:
            self.unwind(ALLOC_SMALL, size // 8 - 1)
        elif size < 0x8_0000 and self.rng.random() < 0.8:
            self.unwind(ALLOC_LARGE, 0, struct.pack("<H", size // 8))
        else:
            self.unwind(ALLOC_LARGE, 1, struct.pack("<I", size))

    def set_frame(self, register: int, offset: int) -> None:
        """Write ``lea register, [rsp + offset]`` (a multiple of 16 up to 240)."""
        self.run(
            bytes([0x4C if register >= 8 else 0x48, 0x8D, 0x84 | (register & 7) << 3, 0x24]) + struct.pack("<I", offset)
        )
        self.registers[register] = self.registers[RSP] + offset
        self.frame = register, offset
        self.unwind(SET_FPREG)

    def save(self, register: int, offset: int, *, base: int | None = None) -> None:
        """Write ``mov [rsp + offset], register``; ``base``: where unwind codes count from, if not from rsp."""
        where = self.registers[RSP] + offset
        self.run(
            bytes([0x4C if register >= 8 else 0x48, 0x89, 0x84 | (register & 7) << 3, 0x24]) + struct.pack("<i", offset)
        )
        self.memory[where] = self.registers[register]
        self.saved[register] = where
        distance = where - (self.registers[RSP] if base is None else base)
        if distance < 0x8_0000 and self.rng.random() < 0.7:
            self.unwind(SAVE_NONVOL, register, struct.pack("<H", distance // 8))
        else:
            self.unwind(SAVE_NONVOL_FAR, register, struct.pack("<I", distance))

    def save_vector(self, register: int, offset: int) -> None:
        """Write ``movaps [rsp + offset], xmm``."""
        self.run(bytes([0x0F, 0x29, 0x84 | (register & 7) << 3, 0x24]) + struct.pack("<I", offset))
        if self.rng.random() < 0.5:
            self.unwind(SAVE_XMM128, register, struct.pack("<H", offset // 16))
        else:
            self.unwind(SAVE_XMM128_FAR, register, struct.pack("<I", offset))

    # --- Body and epilogue ---

    def body(self, *, grow: int = 0) -> None:
        """Clobber what was saved and, after ``sub rsp, rax``, lie deeper by ``grow``."""
        self.prologue_size = self.prologue_size or len(self.code)
        for register in [*self.pushed, *self.saved]:
            if register != self.frame[0] or not self.frame[0]:
                self.run(bytes([0x49 if register >= 8 else 0x48, 0xC7, 0xC0 | register & 7]) + b"\x11\x22\x33\x44")
                self.registers[register] = self.rng.getrandbits(64)
        if grow:
            self.run(b"\x48\x29\xc4")
            self.registers[RSP] -= grow
        self.run(b"\x0f\x1f\x00")  # nop

    def leave(self, end: bytes = b"\xc3") -> None:
        """Undo the prologue and return, or jump away."""
        before = dict(self.registers)
        for register, where in self.saved.items():
            if register not in self.pushed and register != self.frame[0]:
                self.run(b"\x48\x8b" + bytes([0x80 | (register & 7) << 3]) + b"\0\0\0\0")
                self.registers[register] = self.memory[where]
        target = STACK - 8 * len(self.pushed)
        if self.frame[0] and (self.registers[RSP] != target or self.rng.random() < 0.5):
            register = self.frame[0]
            distance = target - self.registers[register]
            # r12 as a base would take one more byte, and rsp can't be one; compilers avoid both.
            short = -0x80 <= distance < 0x80
            self.run(
                bytes([0x49 if register >= 8 else 0x48, 0x8D, (0x60 if short else 0xA0) | register & 7])
                + struct.pack("<b" if short else "<i", distance)
            )
            if register in self.saved and register not in self.pushed:
                self.registers[register] = self.memory[self.saved[register]]
        elif self.registers[RSP] != target:
            size = target - self.registers[RSP]
            short = size < 0x80
            self.run(b"\x48\x83\xc4" + bytes([size]) if short else b"\x48\x81\xc4" + struct.pack("<I", size))
        self.registers[RSP] = target
        start = len(self.code)
        for register in reversed(self.pushed):
            self.run(bytes([0x41, 0x58 + register - 8] if register >= 8 else [0x58 + register]))
            self.registers[register] = self.memory[self.registers[RSP]]
            self.registers[RSP] += 8
        self.run(end)
        self.epilogues.append((start, len(self.code)))
        self.registers = before

    def record(self, *, version: int = 1, flags: int = 0, tail: bytes = b"", leading: bytes = b"") -> bytes:
        """Return UNWIND_INFO; ``leading``: codes before the prologue's, ``tail`` follows them all."""
        codes = leading + b"".join(reversed(self.codes))
        register, offset = self.frame
        head = bytes([version | flags << 3, self.prologue_size, len(codes) // 2, register | offset // 16 << 4])
        return head + codes + b"\0\0" * (len(codes) // 2 % 2) + tail


RETURNS = (b"\xc3", b"\xf3\xc3", b"\xc2\0\0", b"\xf2\xc3")
JUMPS = tuple(
    bytes.fromhex(code)
    for code in (
        *("e900001000", "eb70", "ff2500000000", "48ff2500000000", "48ffe0", "ff6008", "48ffa000010000"),
        *("48ff2424", "f2e900001000", "41ffe3"),
    )
)


def random_function(rng: Random, ends: tuple[bytes, ...] = RETURNS + JUMPS) -> Function:
    """Return a function of the usual forms, with one epilogue or several, which end as they are told."""
    function = Function(rng)
    pushes = rng.sample(NONVOLATILE, rng.randrange(len(NONVOLATILE)))
    for register in pushes:
        function.push(register)
    left = [r for r in NONVOLATILE if r not in pushes]
    frame = rng.choice(pushes) if pushes and rng.random() < 0.4 else 0
    early = frame and rng.random() < 0.5
    if frame == 12:
        frame = 0  # As a base it takes another form, which the specification doesn't list.
    if frame and early:
        function.set_frame(frame, 0)
    size = rng.choice((0, 8, 40, 120, 128, 136, 4096, 0x12_3450)) if not frame else rng.choice((32, 256, 4096))
    if size:
        function.allocate(size)
    if frame and not early:
        function.set_frame(frame, 16 * rng.randrange(min(15, size // 16) + 1))
    # Offsets of saves count from the frame base: where rsp was when the frame register was set, else where it is.
    base = function.registers[frame] - function.frame[1] if frame else function.registers[RSP]
    slots = rng.sample(range(4), min(len(left), rng.randrange(4)))
    for register, slot in zip(left, slots, strict=False):
        # Callers leave room for four registers above the return address.
        function.save(register, size + 8 * len(pushes) + 8 + 8 * slot, base=base)
    if size >= 256:
        function.save_vector(rng.randrange(6, 16), 16 * rng.randrange(4))
    function.body(grow=4096 if frame and rng.random() < 0.5 else 0)
    for _ in range(rng.randrange(1, 4)):
        function.leave(rng.choice(ends))
        function.body()
    return function
