"""Makes up processes for the walker: images with unwind rules and names, stacks, code bytes, threads.

An image's rules are kept as they are meant and are written to columns from the description in model/tables.py, so
that an oracle can read the one and a kernel the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.model.crash import MemoryMap, Regions
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS, WIDTH
from deadreckon.model.tables import CodeTable, RuleTable, SymTable
from deadreckon.unwind.walk import ARCHITECTURES
from synth.cfi import block

if TYPE_CHECKING:
    from random import Random

    from numpy.typing import NDArray


NONE = 0xFFFF_FFFF
KINDS = {"same": 0, "undefined": 1, "offset": 2, "val_offset": 3, "register": 4, "expr": 5, "val_expr": 6}

Cfa = tuple[str, int, int] | tuple[str, bytes]


@dataclass
class Rule:
    """How to get from a frame to its caller. ``cfa`` is ("reg", register, offset) or ("expr", code)."""

    cfa: Cfa
    ra: int
    saved: dict[int, tuple[str, int | bytes]] = field(default_factory=dict)
    signal: bool = False
    end: bool = False
    search: bool = False


@dataclass
class Image:
    """A module. ``rows``, ``names`` (is there a function?), ``base``, ``text`` and ``entries`` are sorted rvas.

    ``code``: what the module's file holds of its instructions.
    """

    start: int
    size: int
    rows: list[tuple[int, Rule | None]] = field(default_factory=list)
    names: list[tuple[int, bool]] = field(default_factory=list)
    base: list[tuple[int, int]] = field(default_factory=list)
    text: list[tuple[int, int]] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    code: list[tuple[int, bytes]] = field(default_factory=list)

    def tables(self) -> tuple[SymTable, RuleTable, CodeTable]:
        """Return the columns."""
        sym = SymTable.empty()
        sym.range_start = np.array([rva for rva, _ in self.names], np.uint32)
        sym.range_loc = np.array([0 if named else NONE for _, named in self.names], np.uint32)
        sym.locations = np.array([[NONE, 0, 0, NONE]], np.uint32)
        sym.base = np.array(self.base, np.uint32).reshape(-1, 2)
        sym.text = np.array(self.text, np.uint32).reshape(-1, 2)
        sym.entries = np.array(self.entries, np.uint32)
        rules: list[list[int]] = []
        saved: list[list[int | bytes]] = []
        numbers: list[int] = []
        expr = bytearray()
        for _, rule in self.rows:
            if rule is None:
                numbers.append(NONE)
                continue
            numbers.append(len(rules))
            flags = rule.signal | rule.end << 1 | rule.search << 3 | rule.ra << 8
            values = [2, 0, len(expr)]
            if rule.cfa[0] == "reg":
                values = [1, int(rule.cfa[1]), int(rule.cfa[2])]  # type: ignore[misc]
            elif isinstance(rule.cfa[1], bytes):
                expr += block(rule.cfa[1])
            rules.append([*values, flags, len(saved), len(rule.saved)])
            for register, (kind, value) in rule.saved.items():
                saved.append([register, KINDS[kind], len(expr) if isinstance(value, bytes) else value])
                if isinstance(value, bytes):
                    expr += block(value)
        offsets = np.cumsum([0, *(len(part) for _, part in self.code)]).tolist()
        sections = [(rva, len(part), at) for (rva, part), at in zip(self.code, offsets, strict=False)]
        code = CodeTable(
            np.frombuffer(b"".join(part for _, part in self.code), np.uint8),
            np.array(sections, np.uint32).reshape(-1, 3),
        )
        found = RuleTable(
            np.array([rva for rva, _ in self.rows], np.uint32),
            np.array(numbers, np.uint32),
            np.array(rules, np.int32).reshape(-1, 6),
            np.array(saved, np.int32).reshape(-1, 3),
            np.frombuffer(bytes(expr), np.uint8),
        )
        return sym, found, code


@dataclass
class World:
    """A process that stopped: its images, memory (address, bytes), mappings and threads (registers by number)."""

    arch: Arch
    mask: int
    images: list[Image] = field(default_factory=list)
    memory: list[tuple[int, bytes]] = field(default_factory=list)
    regions: list[tuple[int, int, int]] | None = None
    threads: list[dict[int, int]] = field(default_factory=list)
    strict: bool = False

    @property
    def word(self) -> int:
        return self.arch.word_size

    def read(self, address: int, size: int) -> int | None:
        """Return memory as a little-endian number, None where not all of it is there."""
        for start, data in self.memory:
            if start <= address and address + size <= start + len(data):
                return int.from_bytes(data[address - start : address - start + size], "little")
        return None

    def columns(self) -> tuple[MemoryMap, Regions | None, NDArray[np.uint64], NDArray[np.uint64]]:
        """Return memory, mappings, and the threads' registers and which of them are known."""
        buffer = np.frombuffer(b"".join(data for _, data in self.memory), np.uint8)
        ranges, at = [], 0
        for start, data in self.memory:
            ranges.append((start, len(data), at))
            at += len(data)
        registers = np.zeros((len(self.threads), WIDTH), np.uint64)
        valid = np.zeros(len(self.threads), np.uint64)
        for row, known in enumerate(self.threads):
            for register, value in known.items():
                registers[row, register] = value
                valid[row] |= np.uint64(1 << register)
        regions = None if self.regions is None else Regions.from_ranges(self.regions)
        return MemoryMap.from_ranges(ranges, buffer), regions, registers, valid


# --- Random worlds --------------------------------------------------------------------------------------------------


_OTHERS = [bytes.fromhex(code) for code in (
    "13 16 17 06 9401 9404 9408 9409 19 1f 20 2310 23ffffffff0f 280100 2f0100 28fbff 96 e0".split()
)]  # fmt: skip
"""Operations that take one value or none, a jump or two among them, and one that is none."""


def random_expression(rng: Random, word: int, registers: list[int], address: int) -> bytes:
    """Return a program that often has a value: constants and registers, then operators on them."""
    out = bytearray()
    depth = 0
    for _ in range(rng.randint(1, 14)):
        if depth < 2 or rng.random() < 0.4:
            number = rng.choice((0, 1, 2, 7, 8, 0x7F, 0x80, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1, address))
            choice = rng.randrange(8)
            if choice == 0:
                out += bytes([0x30 + rng.randrange(32)])
            elif choice == 1:
                out += bytes([0x70 + rng.choice(registers) % 32]) + rng.choice((b"\x00", b"\x08", b"\x78", b"\xff\x7f"))
            elif choice == 2:
                out += b"\x92" + bytes([rng.choice(registers)]) + rng.choice((b"\x00", b"\x90\x01", b"\x70"))
            elif choice == 3:
                opcode = rng.randrange(0x08, 0x10)
                size = 1 << (opcode - 8) // 2
                out += bytes([opcode]) + (number % (1 << 8 * size)).to_bytes(size, "little")
            elif choice == 4:
                out += b"\x03" + (number % (1 << 8 * word)).to_bytes(word, "little")
            elif choice == 5:
                out += b"\x10" + _uleb(number)
            elif choice == 6:
                out += b"\x11" + rng.choice(
                    (b"\x7f", b"\x80\x7f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x05")
                )
            else:
                out += rng.choice((b"\x9c", b"\x12", b"\x14", b"\x15\x01", b"\x15\x00"))
            depth += 1
        elif rng.random() < 0.75:
            out.append(rng.choice((*range(0x1A, 0x23), *range(0x24, 0x28), *range(0x29, 0x2F), 0xE1, 0xE2, 0xE3)))
            depth -= 1
        else:
            out += rng.choice(_OTHERS)
    return bytes(out)


def _uleb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


_CALLS = {
    "x86": (
        bytes.fromhex("e811223344"), bytes.fromhex("ffd0"), bytes.fromhex("ff5308"), bytes.fromhex("ff1424"),
        bytes.fromhex("ff542408"), bytes.fromhex("ff1511223344"), bytes.fromhex("ff9311223344"),
        bytes.fromhex("ff942411223344"), bytes.fromhex("ff142511223344"), bytes.fromhex("ffe0"),
        bytes.fromhex("ff7308"), bytes.fromhex("e911223344"), bytes.fromhex("ff9311"),
    ),
    "arm64": (
        (0x94000010).to_bytes(4, "little"), (0x97FFFFFF).to_bytes(4, "little"), (0xD63F0100).to_bytes(4, "little"),
        (0xD73F0901).to_bytes(4, "little"), (0xD61F0100).to_bytes(4, "little"), (0x14000010).to_bytes(4, "little"),
    ),
    "arm": (
        bytes.fromhex("100000eb"), bytes.fromhex("000000fa"), bytes.fromhex("33ff2fe1"), bytes.fromhex("00f010f8"),
        bytes.fromhex("00f010e8"), bytes.fromhex("c046a047"), bytes.fromhex("1eff2fe1"),
        bytes.fromhex("0fe0a0e114ff2fe1"),
    ),
}  # fmt: skip
"""Calls, and a few instructions that only look like one."""


_EPILOGUES = [
    bytes.fromhex(x) for x in "5b 5e 5d 5c c9 8be5 89ec 83c40c 83c4f8 81c410000000 8d65f4 8da5f0ffffff".split()
]
"""What x86 functions end with before they return."""
_PROLOGUES = (
    [bytes.fromhex(x) for x in (
        "10b5 f0b5 2de9f041 4df804ed 82b0 d0b0 2ded048b 2ded020a adf5807d adf2040d 00af 0446 00f010f8 10bd 4df8047d"
    ).split()],
    [bytes.fromhex(x) for x in (
        "10402de9 f0412de9 04e02de5 08d04de2 41df4de2 048b2ded 04b08de2 0040a0e1 100000eb 04702de5"
    ).split()],
)  # fmt: skip
"""What ARM's functions begin with, in Thumb and in ARM."""


def random_world(rng: Random, arch: Arch) -> World:
    """Return a process whose stacks hold true and false return addresses, frame records and junk."""
    rules = ARCHITECTURES[arch].RULES
    registers = REGISTER_SETS[arch]
    word = arch.word_size
    full = (1 << 8 * word) - 1
    mask = {"x86": full, "arm": full & ~1, "arm64": (1 << 48) - 1}[rules.call]
    world = World(arch, mask, strict=arch is Arch.X86_64 and rng.random() < 0.3)
    low = 0x10_0000 if word == 4 else 0x7F00_0000_0000
    stack = (0xBF00_0000 if word == 4 else 0x7FFC_0000_0000) + 8 * rng.randrange(64)
    saved_registers = [registers.index(name) for name in rules.callee_saved]
    returns: list[int] = []
    ends: list[int] = [0]
    generated = low - 0x10_0000
    for number in range(rng.randint(1, 3)):
        image = Image(low + number * rng.choice((0x1000, 0x8000)), 0x1000)
        code = bytearray(rng.randbytes(0x1000) if rng.random() < 0.5 else b"\x90" * 0x1000)
        at = 0x100
        has_rules, has_names, has_text = rng.random() < 0.8, rng.random() < 0.8, rng.random() < 0.5
        while at < 0xE00:
            size = rng.choice((0x20, 0x80, 0x100))
            image.entries.append(at)
            if has_names:
                image.names.append((at, rng.random() < 0.9))
            if has_rules:
                for row in sorted({0, rng.randrange(size), rng.randrange(size)}):
                    rule = random_rule(rng, arch, saved_registers, stack) if rng.random() < 0.85 else None
                    image.rows.append((at + row, rule))
            if rng.random() < 0.06:
                image.base.append((at, at + size))
            if rules.call == "arm" and rng.random() < 0.6:
                first = b"".join(rng.choices(_PROLOGUES[rng.random() < 0.5], k=rng.randint(1, 4)))
                code[at : at + len(first)] = first
            if arch == "x86":
                last = b"".join(rng.choices(_EPILOGUES, k=rng.randint(0, 3))) + rng.choice((b"\xc3", b"\xc2\x08\0"))
                code[at + size - len(last) : at + size] = last
                ends += [image.start + at + size - i for i in range(1, len(last) + 1)]
            for _ in range(3):
                call = rng.choice(_CALLS[rules.call])
                where = at + rng.randrange(size) & (~3 if rules.call == "arm64" else ~0)
                code[where : where + len(call)] = call
                returns.append(image.start + where + len(call))
            at += size
            if rng.random() < 0.3:
                at += rng.choice((1, 0x40))
                if has_rules:
                    image.rows.append((at - 1, None))
        if rng.random() < 0.3:
            image.entries = []
        if has_text:
            image.text = [(0x100, 0x900), (0xA00, 0xE00)]
        world.images.append(image)
        if rng.random() < 0.6:
            cut = rng.choice((0, 0, 0x300))
            world.memory.append((image.start + cut, bytes(code[cut:0x1000])))
        elif rng.random() < 0.5:
            image.code = [(0x100, bytes(code[0x100:0x800])), (0x880, bytes(code[0x880:0xE80]))]
    world.images.sort(key=lambda image: image.start)
    if rng.random() < 0.4:
        world.regions = [(i.start, i.start + 0x1000, rng.choice((5, 5, 4, 1))) for i in world.images]
        world.regions.append((stack, stack + 0x1000, 3))
        world.regions.append((generated, generated + 0x800, 7))
    words = rng.randint(20, 160)
    values: list[int] = []
    while (i := len(values)) < words:
        kind = rng.random()
        if kind < 0.35:
            value = rng.choice(returns)
        elif kind < 0.6:
            value = stack + word * rng.randrange(i, words + 8)
            if i + 1 < words and rng.random() < 0.5:
                # A frame record: the caller's, then the return address.
                jit = generated + rng.randrange(0x1000)
                values += [rng.choice((value, value, 0)), rng.choice((*[rng.choice(returns)] * 4, jit, 0))]
                continue
        elif kind < 0.7:
            value = rng.choice(world.images).start + rng.choice((rng.randrange(0x1000), *image.entries[:5]))
        elif kind < 0.85:
            value = rng.choice((0, 0, 1, 0xFFF, 0x1000, full))
        else:
            value = rng.getrandbits(8 * word)
        if rules.call == "arm64" and rng.random() < 0.2:
            value |= 0x5A << 56
        values.append(value & full)
    data = b"".join(v.to_bytes(word, "little") for v in values)
    hole = rng.choice((0, 0, 0, word * rng.randrange(words)))
    world.memory.append((stack, data[: hole or len(data)]))
    if hole:
        gap = rng.choice((1, word, word, 3 * word))
        world.memory.append((stack + hole + gap, data[hole + gap :] or b"\0"))
    world.memory.sort()
    for _ in range(3):
        known = {
            r: rng.choice((rng.getrandbits(8 * word), stack + word * rng.randrange(words))) for r in saved_registers
        }
        known[registers.pc] = rng.choice((
            rng.choice(ends), rng.choice(returns), rng.choice(world.images).start + rng.randrange(0x1000), 0,
            rng.getrandbits(8 * word),
        ))  # fmt: skip
        known[registers.sp] = (
            stack + word * rng.choice((0, 0, rng.randrange(words), words + 50)) + rng.choice((0, 0, 0, 1))
        )
        records = [stack + word * i for i, v in enumerate(values[:-1]) if stack <= v < stack + word * words]
        known[registers.fp] = rng.choice(
            (*records[:3], stack + word * rng.randrange(words), 0, rng.getrandbits(8 * word))
        )
        if registers.lr >= 0:
            known[registers.lr] = rng.choice((rng.choice(returns), rng.getrandbits(8 * word)))
        for register in list(known):
            if rng.random() < 0.03:
                del known[register]
        world.threads.append(known)
    return world


def random_rule(rng: Random, arch: Arch, saved_registers: list[int], stack: int) -> Rule:
    """Return a rule that is mostly one a compiler could have meant."""
    registers = REGISTER_SETS[arch]
    word = arch.word_size
    ra = registers.lr if registers.lr >= 0 else registers.pc
    everything = [*saved_registers, registers.sp, registers.fp, ra, registers.pc, 33]
    base = rng.choice((registers.sp, registers.sp, registers.sp, registers.fp, rng.choice((*everything, 40, -1))))
    cfa: Cfa = ("reg", base, word * rng.choice((0, 1, 2, 2, 3, 4, 6, 10)))
    if rng.random() < 0.1:
        cfa = ("reg", base, rng.choice((-word, 0x7FFF_FFFF, -0x7FFF_FFFF, 3, 100_000)))
    if rng.random() < 0.1:
        cfa = ("expr", random_expression(rng, word, everything, stack))
    elif rng.random() < 0.1:
        # As the procedure linkage table has it: a word more once the index is pushed.
        cfa = (
            "expr",
            bytes([0x70 + registers.sp, word, 0x70 + registers.pc % 32, 0, 0x3F, 0x1A, 0x3B, 0x2A, 0x33, 0x24, 0x22]),
        )
    rule = Rule(cfa, ra, signal=rng.random() < 0.08, end=rng.random() < 0.03)
    if registers.lr < 0 or rng.random() < 0.7:
        rule.saved[ra] = ("offset", -word)
    if rng.random() < 0.05:
        rule.ra = rng.choice((*everything, 200))
    for register in rng.sample(everything, rng.choice((0, 0, 1, 2, 3))):
        kind = rng.choice(("offset", "offset", "offset", *KINDS))
        value: int | bytes = word * rng.randrange(-6, 3)
        if kind == "register":
            value = rng.choice((*everything, 34, 100, -1))
        elif kind in {"expr", "val_expr"}:
            value = random_expression(rng, word, everything, stack)
        rule.saved[register] = (kind, value)
    if arch == "x86" and rng.random() < 0.3:
        # Windows': the return address is above the locals and the arguments of what was called.
        size = word * rng.choice((0, 1, 2, 3))
        rule.cfa = ("expr", bytes([0x70 + registers.sp, size, 0x79, 0, 0x22, 0x23, word]))
        rule.search = rng.random() < 0.8
        rule.saved |= {ra: ("offset", -word), 9: ("val_expr", bytes([0x08, rng.choice((0, 4, 8, 12))]))}
    return rule
