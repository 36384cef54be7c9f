#!/usr/bin/env python3
"""Convert a Linux ELF core file into a minidump.

Standalone on purpose: nothing is shared with the reader these minidumps test,
so that a mistaken offset cannot cancel itself out. Layouts follow

* Breakpad's ``google_breakpad/common/minidump_format.h`` and
  ``minidump_cpu_*.h`` for the minidump, and its ``linux_core_dumper`` for what
  to take from a core;
* the Linux kernel's ``fs/binfmt_elf.c`` and ``include/uapi/linux/elfcore.h``
  for the notes of a core;
* the System V ABI for ELF itself.

All supported machines are little-endian.
"""

from __future__ import annotations

import argparse
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PT_LOAD = 1
PT_NOTE = 4

PF_X, PF_W, PF_R = 1, 2, 4

NT_PRSTATUS = 1
NT_PRFPREG = 2
NT_PRPSINFO = 3
NT_AUXV = 6
NT_SIGINFO = 0x53494749
NT_FILE = 0x46494C45
NT_GNU_BUILD_ID = 3

AT_EXECFN = 31
AT_SYSINFO_EHDR = 33

VDSO_NAME = "linux-gate.so"
"""What Breakpad calls the kernel's virtual shared object."""

STACK_LIMIT = 32 * 1024
INSTRUCTION_WINDOW = 256
STACK_ALIGNMENT = 16

FAULT_SIGNALS = frozenset({4, 5, 7, 8, 11, 31})
"""SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS: those with a ``si_addr``."""


class ConversionError(Exception):
    """The core cannot be converted."""


# --- machines ----------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """Where a register lies in a minidump context, and its struct format."""

    offset: int
    format: str


@dataclass(frozen=True)
class Machine:
    """How one machine's registers lie in a core and in a minidump context."""

    name: str
    elf_machine: int
    word: str
    processor: int
    registers: tuple[str, ...]
    """Registers of the kernel's ``elf_gregset_t``, in its order."""
    stack_pointer: str
    instruction_pointer: str
    red_zone: int
    context_size: int
    context_flags: Slot
    context_flags_value: int
    context: Mapping[str, Slot]
    float_copies: tuple[tuple[int, int, int], ...] = ()
    """(offset in NT_PRFPREG, length, offset in the context) of raw copies."""

    @property
    def word_size(self) -> int:
        """Bytes in an address."""
        return struct.calcsize("<" + self.word)

    @property
    def pid_offset(self) -> int:
        """Offset of ``pr_pid`` in ``elf_prstatus``: after siginfo and two masks."""
        return 16 + 2 * self.word_size

    @property
    def registers_offset(self) -> int:
        """Offset of ``pr_reg``: after four ids and four ``timeval``."""
        return self.pid_offset + 16 + 8 * self.word_size

    def build_context(self, registers: Mapping[str, int], floats: bytes) -> bytes:
        """Lay out a thread's registers as a minidump context."""
        context = bytearray(self.context_size)
        flags = self.context_flags
        struct.pack_into("<" + flags.format, context, flags.offset, self.context_flags_value)
        for name, slot in self.context.items():
            mask = (1 << 8 * struct.calcsize(slot.format)) - 1
            struct.pack_into("<" + slot.format, context, slot.offset, registers[name] & mask)
        for source, length, target in self.float_copies:
            if len(floats) >= source + length:
                context[target : target + length] = floats[source : source + length]
        return bytes(context)


def _words(text: str) -> tuple[str, ...]:
    """The space-separated words of `text`."""
    return tuple(text.split())


def _slots(first: int, form: str, names: str) -> dict[str, Slot]:
    """Consecutive slots for the space-separated `names`."""
    step = struct.calcsize(form)
    return {name: Slot(first + i * step, form) for i, name in enumerate(_words(names))}


X86_64 = Machine(
    name="x86_64",
    elf_machine=62,
    word="Q",
    processor=9,
    registers=_words(
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
        "fs_base gs_base ds es fs gs"
    ),
    stack_pointer="rsp",
    instruction_pointer="rip",
    red_zone=128,
    context_size=1232,
    context_flags=Slot(48, "I"),
    context_flags_value=0x10000B,
    context=(
        _slots(56, "H", "cs ds es fs gs ss")
        | _slots(68, "I", "eflags")
        | _slots(120, "Q", "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip")
    ),
    float_copies=((24, 4, 52), (0, 512, 256)),
)

X86 = Machine(
    name="x86",
    elf_machine=3,
    word="I",
    processor=0,
    registers=_words("ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss"),
    stack_pointer="esp",
    instruction_pointer="eip",
    red_zone=0,
    context_size=716,
    context_flags=Slot(0, "I"),
    context_flags_value=0x1000F,
    context=_slots(140, "I", "gs fs es ds edi esi ebx edx ecx eax ebp eip cs eflags esp ss"),
    float_copies=((0, 108, 28),),
)

ARM = Machine(
    name="arm",
    elf_machine=40,
    word="I",
    processor=5,
    registers=_words("r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 sp lr pc cpsr orig_r0"),
    stack_pointer="sp",
    instruction_pointer="pc",
    red_zone=0,
    context_size=368,
    context_flags=Slot(0, "I"),
    context_flags_value=0x40000002,
    context=_slots(4, "I", "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 sp lr pc cpsr"),
)

_ARM64_GENERAL = "{} sp pc".format(" ".join(f"x{number}" for number in range(31)))

ARM64 = Machine(
    name="arm64",
    elf_machine=183,
    word="Q",
    processor=12,
    registers=_words(f"{_ARM64_GENERAL} pstate"),
    stack_pointer="sp",
    instruction_pointer="pc",
    red_zone=0,
    context_size=912,
    context_flags=Slot(0, "I"),
    context_flags_value=0x400003,
    context=_slots(4, "I", "pstate") | _slots(8, "Q", _ARM64_GENERAL),
)

ARM64_OLD = replace(
    ARM64,
    processor=0x8003,
    context_size=796,
    context_flags=Slot(0, "Q"),
    context_flags_value=0x80000002,
    context=_slots(8, "Q", _ARM64_GENERAL) | _slots(272, "I", "pstate"),
)
"""Breakpad's own layout for ARM64, from before Windows had one."""

MACHINES = {machine.elf_machine: machine for machine in (X86_64, X86, ARM, ARM64)}
"""By ELF ``e_machine``. A further machine is a further row."""


# --- reading ELF and the core --------------------------------------------------


@dataclass(frozen=True)
class ProgramHeader:
    """One ELF program header."""

    type: int
    flags: int
    offset: int
    vaddr: int
    file_size: int
    memory_size: int


def read_program_headers(data: bytes) -> list[ProgramHeader]:
    """The program headers of the ELF image beginning with `data`."""
    if data[:4] != b"\x7fELF" or len(data) < 64:
        raise ConversionError("not an ELF image")
    wide = data[4] == 2
    (start,) = struct.unpack_from("<Q", data, 32) if wide else struct.unpack_from("<I", data, 28)
    size, count = struct.unpack_from("<HH", data, 54 if wide else 42)
    layout = "<IIQQQQQQ" if wide else "<IIIIIIII"
    headers = []
    for at in range(start, start + size * count, size):
        if at + size > len(data):
            raise ConversionError("program headers lie outside the image")
        if wide:
            kind, flags, offset, vaddr, _, filesz, memsz, _ = struct.unpack_from(layout, data, at)
        else:
            kind, offset, vaddr, _, filesz, memsz, flags, _ = struct.unpack_from(layout, data, at)
        headers.append(ProgramHeader(kind, flags, offset, vaddr, filesz, memsz))
    return headers


def read_notes(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """(owner, type, description) of each note in a PT_NOTE segment."""
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        name = data[at + 12 : at + 12 + name_size].rstrip(b"\0")
        at += 12 + (name_size + 3 & ~3)
        yield name, kind, data[at : at + size]
        at += size + 3 & ~3


@dataclass(frozen=True)
class Area:
    """A mapped area of memory: a PT_LOAD of the core, with its NT_FILE entry if any."""

    start: int
    end: int
    flags: int
    core_offset: int
    core_size: int
    path: str | None = None
    file_offset: int = 0


@dataclass(frozen=True)
class FileRange:
    """One NT_FILE entry: part of a file mapped into the process."""

    start: int
    end: int
    offset: int
    path: str


@dataclass
class Thread:
    """A thread of the core."""

    tid: int
    registers: dict[str, int]
    floats: bytes = b""


@dataclass(frozen=True)
class Module:
    """A loaded executable, shared library or the vdso."""

    base: int
    size: int
    path: str
    build_id: bytes


@dataclass
class Core:
    """An ELF core file, parsed. The crashed thread is the first of `threads`."""

    data: bytes
    machine: Machine
    sysroot: Path = Path("/")
    threads: list[Thread] = field(default_factory=list)
    areas: list[Area] = field(default_factory=list)
    files: list[FileRange] = field(default_factory=list)
    auxv: bytes = b""
    siginfo: bytes = b""
    psinfo: bytes = b""
    stack_tops: list[int] = field(default_factory=list)
    """Addresses to end stacks at, before the end of their areas."""

    @classmethod
    def parse(cls, data: bytes, sysroot: Path = Path("/")) -> Core:
        """Parse a core; `sysroot` is where the paths of mapped files are found."""
        if len(data) < 64 or data[4] not in (1, 2) or struct.unpack_from("<H", data, 16) != (4,):
            raise ConversionError("not an ELF core file")
        (number,) = struct.unpack_from("<H", data, 18)
        if number not in MACHINES:
            raise ConversionError(f"unsupported ELF machine {number}")
        core = cls(data, MACHINES[number], sysroot)
        headers = read_program_headers(data)
        for header in headers:
            if header.type == PT_NOTE:
                core._read_notes(data[header.offset : header.offset + header.file_size])
        for header in headers:
            if header.type == PT_LOAD and header.memory_size:
                file = next((f for f in core.files if f.start <= header.vaddr < f.end), None)
                core.areas.append(
                    Area(
                        header.vaddr,
                        header.vaddr + header.memory_size,
                        header.flags,
                        header.offset,
                        header.file_size,
                        file.path if file else None,
                        file.offset + header.vaddr - file.start if file else 0,
                    )
                )
        core.areas.sort(key=lambda area: area.start)
        if not core.threads:
            raise ConversionError("the core has no threads")
        return core

    def _read_notes(self, data: bytes) -> None:
        machine = self.machine
        for _, kind, description in read_notes(data):
            if kind == NT_PRSTATUS:
                (tid,) = struct.unpack_from("<I", description, machine.pid_offset)
                layout = f"<{len(machine.registers)}{machine.word}"
                values = struct.unpack_from(layout, description, machine.registers_offset)
                self.threads.append(Thread(tid, dict(zip(machine.registers, values, strict=True))))
            elif kind == NT_PRFPREG and self.threads:
                self.threads[-1].floats = description
            elif kind == NT_PRPSINFO:
                self.psinfo = description
            elif kind == NT_AUXV:
                self.auxv = description
            elif kind == NT_SIGINFO and not self.siginfo:
                self.siginfo = description
            elif kind == NT_FILE:
                self.files = self._parse_files(description)

    def _parse_files(self, data: bytes) -> list[FileRange]:
        word, size = self.machine.word, self.machine.word_size
        count, page = struct.unpack_from(f"<2{word}", data)
        names = data[size * (2 + 3 * count) :].split(b"\0")
        files = []
        for index in range(count):
            start, end, pages = struct.unpack_from(f"<3{word}", data, size * (2 + 3 * index))
            files.append(FileRange(start, end, pages * page, names[index].decode()))
        return files

    # Signal

    @property
    def signal(self) -> int:
        """Number of the fatal signal."""
        return int(struct.unpack_from("<i", self.siginfo)[0]) if self.siginfo else 0

    @property
    def signal_code(self) -> int:
        """``si_code`` of the fatal signal."""
        return int(struct.unpack_from("<i", self.siginfo, 8)[0]) if self.siginfo else 0

    @property
    def fault_address(self) -> int | None:
        """``si_addr``, for the signals that have one."""
        if self.signal not in FAULT_SIGNALS or self.signal_code <= 0:
            return None
        word, size = self.machine.word, self.machine.word_size
        at = 16 if size == 8 else 12
        return int(struct.unpack_from("<" + word, self.siginfo, at)[0])

    # Process

    def auxiliary(self, key: int) -> int | None:
        """A value of the auxiliary vector."""
        word, size = self.machine.word, self.machine.word_size
        for at in range(0, len(self.auxv) - 2 * size + 1, 2 * size):
            found, value = struct.unpack_from(f"<2{word}", self.auxv, at)
            if found == key:
                return int(value)
        return None

    @property
    def process_id(self) -> int:
        """``pr_pid`` of the process information, else the first thread's id."""
        at = {8: 24, 4: 12}[self.machine.word_size]
        if len(self.psinfo) < at + 4:
            return self.threads[0].tid
        return int(struct.unpack_from("<I", self.psinfo, at)[0])

    @property
    def command_line(self) -> bytes:
        """``pr_psargs``, the last 80 bytes of the process information, NUL-separated."""
        arguments = self.psinfo[-80:].split(b"\0")[0].rstrip(b" ")
        return arguments.replace(b" ", b"\0") + b"\0"

    # Memory

    def area_at(self, address: int) -> Area | None:
        """The mapped area `address` lies in."""
        for area in self.areas:
            if area.start <= address < area.end:
                return area
        return None

    def read(self, address: int, size: int) -> bytes:
        """Up to `size` bytes at `address`, from the core or from the mapped file.

        The kernel leaves out the pages of a file that the process has not changed.
        """
        area = self.area_at(address)
        if area is None:
            return b""
        into = address - area.start
        size = min(size, area.end - address)
        if into < area.core_size:
            start = area.core_offset + into
            return self.data[start : start + min(size, area.core_size - into)]
        if area.path is None:
            return b""
        file = self.sysroot / area.path.lstrip("/")
        if not file.is_file():
            return b""
        with file.open("rb") as stream:
            stream.seek(area.file_offset + into)
            return stream.read(size)

    def stack_range(self, stack_pointer: int) -> tuple[int, int] | None:
        """The part of a stack worth keeping, from below its red zone upward.

        A stack pointer that has run into the guard page stands for the stack above.
        """
        area = self.area_at(stack_pointer)
        if area is not None and not area.flags & PF_R:
            area = self.area_at(area.end)
        if area is None:
            return None
        start = stack_pointer - self.machine.red_zone & -STACK_ALIGNMENT
        start = max(start, area.start)
        return start, min(area.end, start + STACK_LIMIT, *(top for top in self.stack_tops if top > start))

    def instruction_range(self, address: int) -> tuple[int, int] | None:
        """The bytes around an instruction, within its area."""
        area = self.area_at(address)
        if area is None:
            return None
        half = INSTRUCTION_WINDOW // 2
        return max(area.start, address - half), min(area.end, address + half)

    # Modules

    def modules(self) -> list[Module]:
        """Mapped ELF files, the main program first, and the vdso last."""
        grouped: dict[str, list[FileRange]] = {}
        for file in self.files:
            grouped.setdefault(file.path, []).append(file)
        program = self._executable_path()
        found = []
        for path, ranges in grouped.items():
            base = min(file.start for file in ranges)
            module = self._module(base, path, max(file.end for file in ranges) - base)
            if module:
                found.append(module)
        found.sort(key=lambda module: (module.path != program, module.base))
        vdso = self.auxiliary(AT_SYSINFO_EHDR)
        area = self.area_at(vdso) if vdso else None
        if vdso and area:
            module = self._module(vdso, VDSO_NAME, area.end - area.start)
            if module:
                found.append(module)
        return found

    def _executable_path(self) -> str | None:
        address = self.auxiliary(AT_EXECFN)
        if address is None:
            return None
        return self.read(address, 4096).split(b"\0")[0].decode(errors="replace")

    def _module(self, base: int, path: str, mapped: int) -> Module | None:
        """The module at `base`; its size covers all PT_LOAD segments."""
        head = self.read(base, 4096)
        try:
            headers = read_program_headers(head)
        except ConversionError:
            return None
        loads = [header for header in headers if header.type == PT_LOAD]
        if not loads:
            return None
        lowest = min(header.vaddr for header in loads) & ~0xFFF
        highest = max(header.vaddr + header.memory_size for header in loads)
        size = max(mapped, (highest - lowest + 0xFFF) & ~0xFFF)
        build_id = b""
        for header in headers:
            if header.type == PT_NOTE:
                notes = self.read(base + header.vaddr - lowest, header.file_size)
                for owner, kind, description in read_notes(notes):
                    if owner == b"GNU" and kind == NT_GNU_BUILD_ID:
                        build_id = description
        return Module(base, size, path, build_id)

    def kernel_version(self) -> str | None:
        """LINUX_VERSION_CODE from the vdso's note, as ``major.minor.patch``."""
        vdso = self.auxiliary(AT_SYSINFO_EHDR)
        if not vdso:
            return None
        try:
            headers = read_program_headers(self.read(vdso, 4096))
        except ConversionError:
            return None
        for header in headers:
            if header.type == PT_NOTE:
                notes = self.read(vdso + header.vaddr, header.file_size)
                for owner, kind, text in read_notes(notes):
                    if owner == b"Linux" and kind == 0 and len(text) >= 4:
                        (code,) = struct.unpack_from("<I", text)
                        return f"{code >> 16}.{code >> 8 & 0xFF}.{code & 0xFF}"
        return None

    def maps(self) -> str:
        """The mappings in the manner of ``/proc/PID/maps``.

        A core tells neither device nor inode, nor whether a mapping is shared.
        """
        stack, vdso = self.auxiliary(AT_EXECFN), self.auxiliary(AT_SYSINFO_EHDR)
        lines = []
        for area in self.areas:
            name = area.path or ""
            if stack is not None and area.start <= stack < area.end:
                name = "[stack]"
            elif area.start == vdso:
                name = "[vdso]"
            bits = (("r", PF_R), ("w", PF_W), ("x", PF_X))
            mode = "".join(letter if area.flags & bit else "-" for letter, bit in bits)
            where = f"{area.start:08x}-{area.end:08x} {mode}p {area.file_offset:08x} 00:00 0"
            lines.append(f"{where:<72} {name}".rstrip() + "\n")
        return "".join(lines)


# --- writing the minidump --------------------------------------------------------

SIGNATURE = 0x504D444D
VERSION = 0xA793

THREAD_LIST = 3
MODULE_LIST = 4
MEMORY_LIST = 5
EXCEPTION = 6
SYSTEM_INFO = 7
MISC_INFO = 15
THREAD_NAMES = 24
BREAKPAD_INFO = 0x47670001
LINUX_CMD_LINE = 0x47670006
LINUX_AUXV = 0x47670008
LINUX_MAPS = 0x47670009

PLATFORM_LINUX = 0x8201
CODEVIEW_ELF = 0x4270454C
BREAKPAD_INFO_REQUESTING_THREAD = 2
"""The requesting thread is valid. No dump thread: readers would leave it out."""

MISC1_PROCESS_ID = 1


class Writer:
    """Appends the pieces of a minidump and remembers its stream directory."""

    HEADER_SIZE = 32

    def __init__(self, streams: int) -> None:
        """Leave room for the header and the entries of `streams` streams."""
        self._out = bytearray(self.HEADER_SIZE + 12 * streams)
        self._capacity = streams
        self._directory: list[tuple[int, int, int]] = []

    def append(self, data: bytes, alignment: int = 4) -> int:
        """Append `data` and return its offset."""
        self._out.extend(bytes(-len(self._out) % alignment))
        offset = len(self._out)
        self._out.extend(data)
        return offset

    def string(self, text: str) -> int:
        """Append a MINIDUMP_STRING: byte length, UTF-16LE, terminator."""
        encoded = text.encode("utf-16-le")
        return self.append(struct.pack("<I", len(encoded)) + encoded + b"\0\0")

    def stream(self, kind: int, data: bytes) -> None:
        """Append a stream and enter it in the directory."""
        self._directory.append((kind, len(data), self.append(data, 8)))

    def finish(self, timestamp: int) -> bytes:
        """Fill in the header and the directory."""
        if len(self._directory) != self._capacity:
            raise ConversionError("stream count differs from the room reserved")
        struct.pack_into(
            "<IIIIIIQ",
            self._out,
            0,
            SIGNATURE,
            VERSION,
            self._capacity,
            self.HEADER_SIZE,
            0,
            timestamp & 0xFFFFFFFF,
            0,
        )
        for index, entry in enumerate(self._directory):
            struct.pack_into("<III", self._out, self.HEADER_SIZE + 12 * index, *entry)
        return bytes(self._out)


@dataclass(frozen=True)
class MemoryBlock:
    """A range of memory already written: a MINIDUMP_MEMORY_DESCRIPTOR."""

    start: int
    size: int
    rva: int

    def covers(self, start: int, end: int) -> bool:
        """Whether all of [start, end) lies within this block."""
        return self.start <= start and end <= self.start + self.size

    def pack(self) -> bytes:
        """The descriptor's sixteen bytes."""
        return struct.pack("<QII", self.start, self.size, self.rva)


NO_MEMORY = MemoryBlock(0, 0, 0)


def convert(
    core: Core,
    thread_names: Mapping[int, str] | None = None,
    extra_memory: Iterable[tuple[int, int]] = (),
    timestamp: int = 0,
) -> bytes:
    """The minidump of `core`.

    A kernel core holds no thread names: `thread_names` supplies them, by thread
    id. `extra_memory` lists further [start, end) ranges to keep, such as the
    stack a signal handler on an alternate stack has left.
    """
    machine = core.machine
    names = dict(thread_names or {})
    crashed = core.threads[0]
    threads = sorted(core.threads, key=lambda thread: thread.tid)
    writer = Writer(streams=11)
    blocks: list[MemoryBlock] = []

    def keep(bounds: tuple[int, int] | None) -> MemoryBlock:
        if bounds is None or any(block.covers(*bounds) for block in blocks):
            return NO_MEMORY
        data = core.read(bounds[0], bounds[1] - bounds[0])
        if not data:
            return NO_MEMORY
        block = MemoryBlock(bounds[0], len(data), writer.append(data, 16))
        blocks.append(block)
        return block

    contexts: dict[int, bytes] = {}
    entries = []
    for thread in threads:
        stack = keep(core.stack_range(thread.registers[machine.stack_pointer]))
        context = machine.build_context(thread.registers, thread.floats)
        rva = writer.append(context, 16)
        contexts[thread.tid] = struct.pack("<II", len(context), rva)
        head = struct.pack("<IIIIQ", thread.tid, 0, 0, 0, 0)
        entries.append(head + stack.pack() + contexts[thread.tid])
    keep(core.instruction_range(crashed.registers[machine.instruction_pointer]))
    for bounds in extra_memory:
        keep(bounds)

    def counted(items: Sequence[bytes]) -> bytes:
        return struct.pack("<I", len(items)) + b"".join(items)

    writer.stream(THREAD_LIST, counted(entries))
    modules = [_module_entry(writer, module) for module in core.modules()]
    writer.stream(MODULE_LIST, counted(modules))
    blocks.sort(key=lambda block: block.start)
    writer.stream(MEMORY_LIST, counted([block.pack() for block in blocks]))
    code, address = core.signal_code & 0xFFFFFFFF, core.fault_address or 0
    record = struct.pack("<IIQQII", core.signal, code, 0, address, 0, 0) + bytes(15 * 8)
    where = struct.pack("<II", crashed.tid, 0)
    writer.stream(EXCEPTION, where + record + contexts[crashed.tid])
    system = " ".join(filter(None, ("Linux", core.kernel_version(), machine.name)))
    writer.stream(
        SYSTEM_INFO,
        struct.pack("<H18xII28x", machine.processor, PLATFORM_LINUX, writer.string(system)),
    )
    misc = struct.pack("<IIIIII", 24, MISC1_PROCESS_ID, core.process_id, 0, 0, 0)
    writer.stream(MISC_INFO, misc)
    named = [(thread.tid, names[thread.tid]) for thread in threads if thread.tid in names]
    writer.stream(THREAD_NAMES, counted([struct.pack("<IQ", tid, writer.string(name)) for tid, name in named]))
    writer.stream(BREAKPAD_INFO, struct.pack("<III", BREAKPAD_INFO_REQUESTING_THREAD, 0, crashed.tid))
    writer.stream(LINUX_CMD_LINE, core.command_line)
    writer.stream(LINUX_AUXV, core.auxv)
    writer.stream(LINUX_MAPS, core.maps().encode())
    return writer.finish(timestamp)


def _module_entry(writer: Writer, module: Module) -> bytes:
    """The 108 bytes of a MINIDUMP_MODULE, with its name and CodeView record."""
    name = writer.string(module.path)
    codeview = struct.pack("<I", CODEVIEW_ELF) + module.build_id
    where = bytes(8)
    if module.build_id:
        where = struct.pack("<II", len(codeview), writer.append(codeview))
    head = struct.pack("<QIIII", module.base, module.size, 0, 0, name)
    return head + bytes(52) + where + bytes(8 + 16)


# --- command line ----------------------------------------------------------------


def _thread_name(text: str) -> tuple[int, str]:
    tid, _, name = text.partition("=")
    return int(tid), name


def _address_range(text: str) -> tuple[int, int]:
    start, _, end = text.partition("-")
    return int(start, 16), int(end, 16)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description="Convert a Linux ELF core file into a minidump.")
    parser.add_argument("core", type=Path, help="ELF core file")
    parser.add_argument("minidump", type=Path, help="file to write")
    parser.add_argument("--sysroot", type=Path, default=Path("/"), help="where the mapped files are (default: /)")
    parser.add_argument(
        "--thread-name",
        type=_thread_name,
        action="append",
        default=[],
        metavar="TID=NAME",
        help="name of a thread",
    )
    parser.add_argument(
        "--memory",
        type=_address_range,
        action="append",
        default=[],
        metavar="START-END",
        help="keep this range of memory too (hexadecimal)",
    )
    parser.add_argument("--old-arm64", action="store_true", help="write Breakpad's old ARM64 context")
    options = parser.parse_args(arguments)
    try:
        core = Core.parse(options.core.read_bytes(), options.sysroot)
        if options.old_arm64 and core.machine is ARM64:
            core.machine = ARM64_OLD
        dump = convert(core, dict(options.thread_name), options.memory, int(options.core.stat().st_mtime))
    except (ConversionError, struct.error) as error:
        parser.exit(1, f"{options.core}: {error}\n")
    options.minidump.write_bytes(dump)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
