"""Writes ELF cores from parts, as Linux lays them out: headers, notes, then memory."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

PAGE = 4096
PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_PHDR = 1, 2, 4, 6
READ, WRITE, EXECUTE = 4, 2, 1
BUILD_ID = bytes(range(1, 21))
NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_FILE, NT_SIGINFO = 1, 3, 6, 0x46494C45, 0x53494749

USER_REGS = {
    62: "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss"
    " fs_base gs_base ds es fs gs",
    3: "ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss",
    40: "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 sp lr pc cpsr orig_r0",
    183: " ".join(f"x{i}" for i in range(29)) + " fp lr sp pc pstate",
}
"""Machine number to its ``elf_gregset_t``."""


@dataclass
class Segment:
    """A mapping: ``data`` is what the core holds of its ``size`` bytes."""

    vaddr: int
    size: int
    data: bytes
    flags: int


@dataclass
class Core:
    """A core; ``header`` replaces fields of the ELF header by their offset and struct letter."""

    machine: int = 62
    segments: list[Segment] = field(default_factory=list)
    notes: list[bytes] = field(default_factory=list)
    header: dict[tuple[int, str], int] = field(default_factory=dict)
    xnum: bool = False

    @property
    def wide(self) -> bool:
        return self.machine in {62, 183}

    def words(self, *values: int) -> bytes:
        return struct.pack(f"<{len(values)}{'Q' if self.wide else 'I'}", *values)

    def note(self, kind: int, data: bytes, owner: bytes = b"CORE") -> None:
        parts = [part + b"\0" * (-len(part) % 4) for part in (owner + b"\0", data)]
        self.notes.append(struct.pack("<III", len(owner) + 1, len(data), kind) + b"".join(parts))

    def thread(self, tid: int, signal: int = 0, **registers: int) -> None:
        """Add NT_PRSTATUS: info, cursig, pending and held signals, four ids, four times, registers, fpvalid."""
        head = struct.pack("<3ih2x", signal, 0, 0, signal) + self.words(0, 0)
        head += struct.pack("<4i", tid, 1, tid, tid) + self.words(*[0] * 8)
        names = USER_REGS[self.machine].split()
        assert set(registers) <= set(names)
        head += self.words(*(registers.get(name, 0x1000 + i) for i, name in enumerate(names)))
        self.note(NT_PRSTATUS, head + bytes(8 if self.wide else 4))

    def siginfo(self, signal: int, code: int, address: int = 0) -> None:
        union = struct.pack("<4xQ" if self.wide else "<I", address)
        self.note(NT_SIGINFO, (struct.pack("<3i", signal, 0, code) + union).ljust(128, b"\0"))

    def process(self, pid: int, name: bytes, arguments: bytes) -> None:
        ids = struct.pack("<4x4xQIIi12x" if self.wide else "<4xIHHi12x", 0, 0, 0, pid)
        self.note(NT_PRPSINFO, ids + name.ljust(16, b"\0") + arguments.ljust(80, b"\0"))

    def auxv(self, **values: int) -> None:
        keys = {"phdr": 3, "phent": 4, "phnum": 5, "base": 7, "entry": 9, "execfn": 31, "sysinfo_ehdr": 33}
        pairs = [word for key, value in values.items() for word in (keys[key], value)]
        self.note(NT_AUXV, self.words(*pairs, 0, 0))

    def files(self, *rows: tuple[int, int, int, str]) -> None:
        """Add NT_FILE: (start, end, page of the file, path) of each mapping."""
        table = self.words(len(rows), PAGE) + b"".join(self.words(*row[:3]) for row in rows)
        self.note(NT_FILE, table + b"".join(row[3].encode() + b"\0" for row in rows))

    def load(self, vaddr: int, data: bytes, flags: int = READ | WRITE, size: int | None = None) -> None:
        self.segments.append(Segment(vaddr, len(data) if size is None else size, data, flags))

    def phdr(self, kind: int, flags: int, offset: int, vaddr: int, filesz: int, memsz: int) -> bytes:
        if self.wide:
            return struct.pack("<IIQQQQQQ", kind, flags, offset, vaddr, 0, filesz, memsz, PAGE)
        return struct.pack("<8I", kind, offset, vaddr, 0, filesz, memsz, flags, PAGE)

    def ehdr(self, kind: int, phoff: int, phnum: int, shoff: int = 0, shnum: int = 0) -> bytes:
        ident = b"\x7fELF" + bytes([2 if self.wide else 1, 1, 1]).ljust(12, b"\0")
        layout, sizes = ("<HHIQQQIHHHHHH", (64, 56, 64)) if self.wide else ("<HHIIIIIHHHHHH", (52, 32, 40))
        ehsize, phentsize, shentsize = sizes
        return ident + struct.pack(
            layout, kind, self.machine, 1, 0, phoff, shoff, 0, ehsize, phentsize, phnum, shentsize, shnum, 0
        )

    def finish(self) -> bytes:
        ehsize, phentsize = (64, 56) if self.wide else (52, 32)
        notes = b"".join(self.notes)
        count = len(self.segments) + 1
        start = ehsize + count * phentsize
        table = bytearray(self.phdr(PT_NOTE, 0, start, 0, len(notes), 0))
        at = start + len(notes) + PAGE - 1 & -PAGE
        body = bytearray()
        for s in self.segments:
            table += self.phdr(PT_LOAD, s.flags, at + len(body), s.vaddr, len(s.data), s.size)
            body += s.data
        end = at + len(body)
        if self.xnum:
            header = self.ehdr(4, ehsize, 0xFFFF, end, 1)
            # Section 0: sh_info has the number of program headers.
            section = bytes(44 if self.wide else 28) + struct.pack("<I", count)
            body += section.ljust(64 if self.wide else 40, b"\0")
        else:
            header = self.ehdr(4, ehsize, count)
        out = bytearray((header + table + notes).ljust(at, b"\0") + body)
        for (offset, letter), value in self.header.items():
            struct.pack_into("<" + letter, out, offset, value)
        return bytes(out)

    def image(
        self,
        span: int,
        build_id: bytes = b"",
        *,
        size: int = PAGE,
        kind: int = 3,
        vaddr: int = 0,
        dynamic: tuple[int, int] | None = None,
        kernel: tuple[int, int, int] | None = None,
    ) -> bytes:
        """Return the first ``size`` bytes of an ELF image that takes ``span`` bytes of memory."""
        ehsize, phentsize = (64, 56) if self.wide else (52, 32)
        notes = b""
        if kernel is not None:
            major, minor, patch = kernel
            notes += struct.pack("<III", 6, 4, 0) + b"Linux\0\0\0" + struct.pack("<I", major << 16 | minor << 8 | patch)
        if build_id:
            notes += struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id + b"\0" * (-len(build_id) % 4)
        count = 3 + (dynamic is not None)
        at = ehsize + count * phentsize
        table = self.phdr(PT_PHDR, READ, ehsize, vaddr + ehsize, count * phentsize, count * phentsize)
        table += self.phdr(PT_LOAD, READ | EXECUTE, 0, vaddr, span, span)
        if dynamic is not None:
            table += self.phdr(PT_DYNAMIC, READ | WRITE, dynamic[0], dynamic[0], dynamic[1], dynamic[1])
        table += self.phdr(PT_NOTE, READ, at, vaddr + at, len(notes), len(notes))
        return (self.ehdr(kind, ehsize, count) + table + notes).ljust(size, b"\0")[:size]


def whole(machine: int = 62) -> Core:
    """Return a core with everything: two threads, a program and a library, a data file, a vdso, a stack."""
    core = Core(machine)
    core.thread(71, 11, **{"esp" if machine == 3 else "rsp" if machine == 62 else "sp": 0x7FF0_0040})
    core.process(70, b"crashing-progra", b"/opt/crashing-program --fast ")
    core.siginfo(11, 1, 0x18)
    core.auxv(phdr=0x40_0040, entry=0x40_1010, execfn=0x7FF0_0080, sysinfo_ehdr=0x7000_0000)
    core.files(
        (0x40_0000, 0x40_1000, 0, "/opt/crashing-program"),
        (0x40_1000, 0x40_3000, 1, "/opt/crashing-program"),
        (0x60_0000, 0x60_1000, 2, "/opt/crashing-program"),
        (0x5000_0000, 0x5001_0000, 0, "/usr/share/table.dat"),
        (0x6000_0000, 0x6000_1000, 0, "/lib/libx.so.1 (deleted)"),
        (0x6000_1000, 0x6000_2000, 1, "/lib/libx.so.1 (deleted)"),
    )
    core.thread(70, 11)
    core.load(0x40_0000, core.image(0x20_2000, BUILD_ID), READ)
    core.load(0x40_1000, b"", READ | EXECUTE, 0x2000)
    core.load(0x60_0000, bytes(PAGE))
    core.load(0x5000_0000, b"not code".ljust(PAGE), READ, 0x1_0000)
    core.load(0x6000_0000, b"", READ, PAGE)
    core.load(0x6000_1000, b"", READ | EXECUTE, PAGE)
    core.load(0x7000_0000, core.image(0x1000, BUILD_ID[::-1], size=0x2000, kernel=(6, 1, 7)), READ | EXECUTE)
    core.load(0x7FF0_0000, bytes(0x80) + b"/opt/crashing-program\0".ljust(PAGE))
    return core


def linked(machine: int, *, headers: bool) -> Core:
    """Return a core as qemu writes it: no NT_FILE; where not ``headers``, no first page of any file either."""
    core = Core(machine)
    word = 8 if core.wide else 4
    ehdr = 64 if core.wide else 52
    base, library, linker, data = 0x40_0000, 0x5000_0000, 0x5010_0000, 0x40_2000
    core.thread(9, 11)
    core.process(9, b"prog", b"./prog")
    core.auxv(phdr=base + ehdr, phent=0, phnum=4, base=linker, entry=base + 0x1010, execfn=data + 0x800)
    dynamic = core.words(5, 0x1234, 21, data + 0x400, 0, 0)
    names = {"": data + 0x700, "/lib/libx.so": data + 0x710, "/lib/ld.so": data + 0x720}
    links = [data + 0x500 + i * 0x40 for i in range(3)]
    page = bytearray(PAGE)
    for name, at in names.items():
        page[at - data : at - data + len(name) + 1] = name.encode() + b"\0"
    page[0x800:0x807] = b"./prog\0"
    page[0x100 : 0x100 + len(dynamic)] = dynamic
    page[0x400 : 0x400 + 5 * word] = core.words(1, links[0], 0, 0, linker)
    bases = (base, library, linker)
    for i, (bias, text) in enumerate(zip(bases, names.values(), strict=True)):
        into = links[i] - data
        following = links[i + 1] if i < 2 else 0
        page[into : into + 4 * word] = core.words(bias, text, bias + 0x2000 + 0x100, following)
    image = core.image(0x3000, BUILD_ID, dynamic=(0x2100, len(dynamic)))
    for bias in bases:
        core.load(bias, image if headers else b"", READ, PAGE)
        core.load(bias + PAGE, b"", READ | EXECUTE, PAGE)
        core.load(bias + 2 * PAGE, bytes(page) if bias == base else bytes(PAGE))
    core.load(linker + 3 * PAGE, bytes(PAGE))  # Not the linker's any more.
    return core
