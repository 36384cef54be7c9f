"""Functions of ARM64 code with the unwind information of Windows, and what running them does to the registers.

A function is a list of instructions, each with its unwind code and its effect; code bytes play no part. Before each
instruction the state is kept, so that unwinding from there can be compared with the caller's registers, which are
known. From "ARM64 exception handling".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

FP, LR, SP = 29, 30, 31
RETURN_ADDRESS = 0x7FF6_1234_5678
STACK = 0x200_0000
SIGNATURE = 0x55 << 48
END, END_C, NOP, SET_FP, SAVE_NEXT, PAC = b"\xe4", b"\xe5", b"\xe3", b"\xe1", b"\xe6", b"\xfc"


@dataclass
class Step:
    """An instruction of a prologue: moves sp down by ``size``, then stores registers at offsets from it."""

    code: bytes
    size: int = 0
    stores: tuple[tuple[int, int], ...] = ()
    frame: int | None = None  # fp = sp + frame
    sign: bool = False


def two(value: int) -> bytes:
    return struct.pack(">H", value)


def allocate(size: int) -> Step:
    units = size // 16
    if units < 32:
        return Step(bytes([units]), size)
    return Step(two(0xC000 | units) if units < 0x800 else b"\xe0" + units.to_bytes(3, "big"), size)


def pair(first: int, offset: int, second: int | None = None) -> tuple[tuple[int, int], ...]:
    return (first, offset), (first + 1 if second is None else second, offset + 8)


def save_r19r20_x(size: int) -> Step:
    return Step(bytes([0x20 | size // 8]), size, pair(19, 0))


def save_fplr(offset: int) -> Step:
    return Step(bytes([0x40 | offset // 8]), 0, pair(FP, offset))


def save_fplr_x(size: int) -> Step:
    return Step(bytes([0x80 | size // 8 - 1]), size, pair(FP, 0))


def save_regp(register: int, offset: int) -> Step:
    return Step(two(0xC800 | register - 19 << 6 | offset // 8), 0, pair(register, offset))


def save_regp_x(register: int, size: int) -> Step:
    return Step(two(0xCC00 | register - 19 << 6 | size // 8 - 1), size, pair(register, 0))


def save_reg(register: int, offset: int) -> Step:
    return Step(two(0xD000 | register - 19 << 6 | offset // 8), 0, ((register, offset),))


def save_reg_x(register: int, size: int) -> Step:
    return Step(two(0xD400 | register - 19 << 5 | size // 8 - 1), size, ((register, 0),))


def save_lrpair(register: int, offset: int) -> Step:
    return Step(two(0xD600 | (register - 19) // 2 << 6 | offset // 8), 0, pair(register, offset, LR))


def save_fregp(register: int, offset: int) -> Step:
    return Step(two(0xD800 | register - 8 << 6 | offset // 8))


def save_fregp_x(register: int, size: int) -> Step:
    return Step(two(0xDA00 | register - 8 << 6 | size // 8 - 1), size)


def save_freg(register: int, offset: int) -> Step:
    return Step(two(0xDC00 | register - 8 << 6 | offset // 8))


def save_freg_x(register: int, size: int) -> Step:
    return Step(two(0xDE00 | register - 8 << 5 | size // 8 - 1), size)


def save_any(register: int, offset: int, *, kind: int = 0, both: bool = False, writeback: bool = False) -> Step:
    """save_any_reg: kind 0, 1, 2 for x, d, q; with ``writeback`` the offset is how far sp moves first."""
    scaled = offset // 16 - 1 if writeback else offset // (16 if both or kind == 2 else 8)
    code = bytes([0xE7, both << 6 | writeback << 5 | register, kind << 6 | scaled])
    at = 0 if writeback else offset
    stores = () if kind else pair(register, at) if both else ((register, at),)
    return Step(code, offset if writeback else 0, stores)


def set_fp(offset: int = 0) -> Step:
    return Step(SET_FP if not offset else bytes([0xE2, offset // 8]), frame=offset)


@dataclass
class Function:
    """A run of instructions; ``points`` are (offset, registers, memory) before each."""

    rng: Random
    registers: dict[int, int] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)
    points: list[tuple[int, dict[int, int], dict[int, int]]] = field(default_factory=list)
    entry: dict[int, int] = field(default_factory=dict)
    length: int = 0

    def __post_init__(self) -> None:
        self.registers = {r: self.rng.getrandbits(64) for r in range(SP)} | {LR: RETURN_ADDRESS, SP: STACK}
        self.entry = dict(self.registers)

    def tick(self) -> None:
        self.points.append((self.length, dict(self.registers), dict(self.memory)))
        self.length += 4

    def do(self, step: Step) -> None:
        self.tick()
        registers = self.registers
        registers[SP] -= step.size
        for register, offset in step.stores:
            self.memory[registers[SP] + offset] = registers[register]
        if step.frame is not None:
            registers[FP] = registers[SP] + step.frame
        if step.sign:
            registers[LR] ^= SIGNATURE

    def undo(self, step: Step) -> None:
        self.tick()
        registers = self.registers
        if step.frame is not None:
            registers[SP] = registers[FP] - step.frame
        for register, offset in step.stores:
            registers[register] = self.memory[registers[SP] + offset]
        registers[SP] += step.size
        if step.sign:
            registers[LR] ^= SIGNATURE

    def body(self, steps: list[Step], *, grow: int = 0) -> None:
        """Clobber what was saved, and lie deeper by ``grow`` where there is a frame pointer."""
        self.tick()
        framed = any(step.frame is not None for step in steps)
        for register in {register for step in steps for register, _ in step.stores}:
            if register != FP or not framed:
                self.registers[register] = self.rng.getrandbits(63)
        self.registers[SP] -= grow
        self.tick()

    def leave(self, steps: list[Step]) -> None:
        """Undo steps, the last one first, and return; the state is then what it was before."""
        before = dict(self.registers)
        for step in reversed(steps):
            self.undo(step)
        self.tick()
        self.registers = before


def codes(steps: list[Step], end: bytes = END) -> bytes:
    return b"".join(step.code for step in reversed(steps)) + end


def record(length: int, unwind: bytes, epilogues: list[tuple[int, int]], *, extended: bool = False) -> bytes:
    """Return an .xdata record; of epilogues (offset, index) one at offset -1 is the one that ends the function."""
    padded = unwind + b"\xe3" * (-len(unwind) % 4)
    words = len(padded) // 4
    single = bool(epilogues) and epilogues[0][0] < 0
    count = epilogues[0][1] if single else len(epilogues)
    first = length // 4 | single << 21
    if extended or count > 31 or words > 31 or not (count or words):
        head = struct.pack("<II", first, words << 16 | count)
    else:
        head = struct.pack("<I", first | words << 27 | count << 22)
    scopes = b"" if single else b"".join(struct.pack("<I", at // 4 | index << 22) for at, index in epilogues)
    return head + scopes + padded


def random_steps(rng: Random) -> list[Step]:
    """Return a prologue in which every kind of instruction may occur."""
    steps = [Step(PAC, sign=True)] if rng.random() < 0.4 else []
    room = 16 * rng.randrange(6, 14)
    first = rng.randrange(8)
    registers = [19, 21, 23, 25, 27]
    offset = 16
    match first:
        case 0:
            steps.append(save_r19r20_x(room))
            registers.remove(19)
        case 1:
            register = rng.choice(registers)
            steps.append(save_regp_x(register, room))
            registers.remove(register)
        case 2:
            steps.append(save_reg_x(rng.choice((19, 20, 28, LR)), room))
            registers = [21, 23, 25]
        case 3:
            steps.append(rng.choice((save_fregp_x, save_freg_x))(rng.choice((8, 10, 14)), room))
        case 4:
            steps.append(save_fplr_x(room))
        case 5:
            steps.append(save_any(rng.choice((8, 19)), room, both=True, writeback=True))
            registers.remove(19)
        case 6:
            steps.append(save_any(rng.randrange(8, 16), room, kind=rng.choice((1, 2)), writeback=True))
        case _:
            steps.append(allocate(room))
            offset = 0
    while registers and offset + 16 <= room and rng.random() < 0.85:
        register = registers.pop(rng.randrange(len(registers)))
        saved_lr = any(r == LR for step in steps for r, _ in step.stores)
        match rng.randrange(8):
            case 0 | 1:
                steps.append(save_regp(register, offset))
                while register + 2 in registers and offset + 32 <= room and rng.random() < 0.7:
                    register += 2
                    registers.remove(register)
                    offset += 16
                    steps.append(Step(SAVE_NEXT, 0, pair(register, offset)))
            case 2:
                steps.append(save_reg(register, offset + 8))
            case 3:
                steps.append(save_regp(register, offset) if saved_lr else save_lrpair(register, offset))
            case 4:
                steps.append(save_fregp(rng.choice((8, 10, 12)), offset))
                if offset + 32 <= room and rng.random() < 0.5:
                    offset += 16
                    steps.append(Step(SAVE_NEXT))
            case 5:
                steps.append(save_freg(rng.randrange(8, 16), offset))
            case 6:
                steps.append(save_any(register, offset, both=rng.random() < 0.5))
            case 7:
                steps.append(save_any(rng.randrange(32), offset, kind=rng.choice((1, 2)), both=rng.random() < 0.5))
        offset += 16
    steps += [Step(NOP)] * rng.randrange(3)
    saved = {r for step in steps for r, _ in step.stores}
    size = 16 * rng.choice((0, 1, 31, 32, 0x7FF, 0x800, 70_000))
    if not saved & {FP, LR} and rng.random() < 0.7:
        if 0 < size <= 512:
            steps.append(save_fplr_x(size))
        else:
            steps += [allocate(size or 64), save_fplr(rng.choice((0, 16)))]
        saved |= {FP, LR}
    elif size:
        steps.append(allocate(size))
    if FP in saved and rng.random() < 0.7:
        steps.append(set_fp(rng.choice((0, 0, 8, 256))))
        if rng.random() < 0.5:
            steps.append(allocate(16 * rng.randrange(1, 40)))
    return steps


def packed_steps(*, reg_i: int, reg_f: int, homes: bool, chain: int, frame: int) -> tuple[list[Step], list[Step]]:
    """Return prologue and epilogue (in the prologue's order) of the canonical form, from the specification's table."""
    integers = reg_i * 8 + (8 if chain == 1 else 0)
    floats = (reg_f + 1) * 8 if reg_f else 0
    saved = integers + floats + (64 if homes else 0)
    saved += saved % 16
    local = frame - saved
    todo = [("pair", 19 + 2 * i, 16 * i) for i in range(reg_i // 2)]
    if reg_i % 2:
        todo.append(("lrpair" if chain == 1 else "reg", 18 + reg_i, 8 * (reg_i - 1)))
    elif chain == 1:
        todo.append(("reg", LR, 8 * reg_i))
    todo += [("fpair", 8 + 2 * i, integers + 16 * i) for i in range(floats // 16)]
    if floats % 16:
        todo.append(("freg", 8 + reg_f, integers + floats - 8))
    steps = [Step(PAC, sign=True)] if chain == 2 else []
    indexed = {"pair": save_regp_x, "reg": save_reg_x, "fpair": save_fregp_x, "freg": save_freg_x}
    plain = {"pair": save_regp, "reg": save_reg, "lrpair": save_lrpair, "fpair": save_fregp, "freg": save_freg}
    for number, (kind, register, offset) in enumerate(todo):
        if number == 0 and kind == "lrpair":
            steps += [allocate(saved), save_lrpair(register, 0)]
        elif number == 0:
            steps.append(indexed[kind](register, saved))
        else:
            steps.append(plain[kind](register, offset))
    mirror = list(steps)
    steps += [Step(NOP)] * (4 if homes else 0)
    rest: list[Step] = []
    if chain >= 2 and local <= 512:
        rest = [save_fplr_x(local)]
    else:
        rest += [allocate(min(local, 4080))] if local else []
        rest += [allocate(local - 4080)] if local > 4080 else []
        rest += [save_fplr(0)] if chain >= 2 else []
    return steps + rest + ([set_fp()] if chain >= 2 else []), mirror + rest


def packed_word(length: int, *, flag: int, reg_i: int, reg_f: int, homes: bool, chain: int, frame: int) -> int:
    """Return the second word of a .pdata entry."""
    low = flag | length // 4 << 2 | reg_f << 13 | reg_i << 16
    return low | homes << 20 | chain << 21 | frame // 16 << 23
