"""Builds minidumps from labels: sections refer to one another by name, and offsets are filled in at the end.

Written from Microsoft's and Breakpad's headers, apart from the reader: it shares no layout with it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deadreckon.config import ReportLimits
from deadreckon.reports.minidump import read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deadreckon.model.crash import RawCrash, RawThread

LINUX, WINDOWS, MACOS = 0x8201, 2, 0x8101
X86, ARM, AMD64, ARM64, ARM64_OLD = 0, 5, 9, 12, 0x8003


@dataclass(frozen=True)
class At:
    """The offset of a labelled section, in ``size`` bytes."""

    label: str
    size: int = 4
    plus: int = 0


@dataclass(frozen=True)
class SizeOf:
    """The size of a labelled section, in ``size`` bytes."""

    label: str
    size: int = 4


Item = bytes | At | SizeOf


def u16(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def location(label: str) -> list[Item]:
    """Return a MINIDUMP_LOCATION_DESCRIPTOR of a labelled section."""
    return [SizeOf(label), At(label)]


def context_amd64(registers: Mapping[str, int], extra: int = 0) -> bytes:
    """Return a CONTEXT of x86-64, with ``extra`` bytes of extended state after it."""
    order = [
        "rax",
        "rcx",
        "rdx",
        "rbx",
        "rsp",
        "rbp",
        "rsi",
        "rdi",
        "r8",
        "r9",
        "r10",
        "r11",
        "r12",
        "r13",
        "r14",
        "r15",
        "rip",
    ]
    out = bytearray(1232 + extra)
    out[48:52] = u32(0x10001F)
    out[120 : 120 + 8 * 17] = u64(*(registers.get(name, 0) for name in order))
    return bytes(out)


def context_x86(registers: Mapping[str, int]) -> bytes:
    """Return a CONTEXT of x86."""
    order = ["edi", "esi", "ebx", "edx", "ecx", "eax", "ebp", "eip", "cs", "eflags", "esp", "ss"]
    out = bytearray(716)
    out[0:4] = u32(0x1003F)
    out[156 : 156 + 48] = u32(*(registers.get(name, 0) for name in order))
    return bytes(out)


def context_arm(registers: Sequence[int]) -> bytes:
    """Breakpad's MDRawContextARM: flags, r0 to r15, cpsr, floating point."""
    return (u32(0x40000006) + u32(*registers)).ljust(368, b"\0")


def context_arm64(registers: Sequence[int]) -> bytes:
    """Microsoft's CONTEXT of ARM64: flags, cpsr, x0 to x30, sp, pc, vectors."""
    return (u32(0x400007, 0x60000000) + u64(*registers)).ljust(912, b"\0")


def context_arm64_old(registers: Sequence[int]) -> bytes:
    """Breakpad's MDRawContextARM64_Old: 64-bit flags, x0 to x30, sp, pc, cpsr."""
    return (u64(0x80000006) + u64(*registers) + u32(0x60000000)).ljust(796, b"\0")


def rsds(guid: bytes, age: int, name: str) -> bytes:
    """Return a CvInfoPDB70."""
    return b"RSDS" + guid + u32(age) + name.encode() + b"\0"


def nb10(stamp: int, age: int, name: str) -> bytes:
    """Return a CvInfoPDB20."""
    return b"NB10" + u32(0, stamp, age) + name.encode() + b"\0"


def elf_build_id(build_id: bytes) -> bytes:
    """Return an MDCVInfoELF."""
    return u32(0x4270454C) + build_id


class Minidump:
    """A dump being built. Streams are in the directory in the order in which they were added."""

    def __init__(self, timestamp: int = 1_600_000_000, version: int = 0xA793) -> None:
        self.timestamp = timestamp
        self.version = version
        self.sections: dict[str, list[Item]] = {}
        self.directory: list[tuple[int, str]] = []
        self._streams = 0
        self._threads: list[Item] = []
        self._thread_count = 0
        self._modules: list[Item] = []
        self._module_count = 0
        self._memory: list[Item] = []
        self._memory_count = 0

    def section(self, *items: Item, label: str = "") -> str:
        """Add bytes that only a label refers to; returns the label."""
        label = label or f"section{len(self.sections)}"
        self.sections[label] = list(items)
        return label

    def stream(self, stream_type: int, *items: Item) -> str:
        """Add a stream."""
        label = self.section(*items, label=f"stream{self._streams}")
        self._streams += 1
        self.directory.append((stream_type, label))
        return label

    def string(self, text: str | bytes) -> str:
        """Add a MINIDUMP_STRING."""
        data = text.encode("utf-16-le", "surrogatepass") if isinstance(text, str) else text
        return self.section(u32(len(data)), data, b"\0\0")

    def utf8(self, text: str) -> str:
        """Add a MinidumpUTF8String."""
        return self.section(u32(len(text.encode())), text.encode(), b"\0")

    def system(self, cpu: int, platform: int, version: tuple[int, int, int] = (0, 0, 0), csd: str = "") -> None:
        """Add SystemInfoStream."""
        information = b"GenuineIntel".ljust(24, b"\0")
        header = u16(cpu, 6, 0x2A07) + bytes([4, 1]) + u32(*version, platform)
        self.stream(7, header, At(self.string(csd)), u16(0, 0), information)

    def thread(self, thread_id: int, context: bytes = b"", stack: tuple[int, bytes] = (0, b""), teb: int = 0) -> None:
        """Add a thread, for ``finish`` to list."""
        label = self.section(context)
        memory = self.section(stack[1])
        self._threads += [
            u32(thread_id, 0, 0, 0), u64(teb), u64(stack[0]), *location(memory), *location(label),
        ]  # fmt: skip
        self._thread_count += 1

    def module(
        self,
        base: int,
        size: int,
        name: str,
        codeview: bytes | None = None,
        *,
        stamp: int = 0,
        version: tuple[int, int, int, int] | None = None,
        file_type: int = 2,
    ) -> None:
        """Add a module, for ``finish`` to list; ``version`` is four 32-bit words."""
        fixed = u32(0xFEEF04BD, 0x10000, *version, *([0] * 7)) if version else bytes(52)
        fixed = fixed[:36] + u32(file_type) + fixed[40:52]
        record = location(self.section(codeview)) if codeview is not None else [u32(0, 0)]
        self._modules += [u64(base), u32(size, 0, stamp), At(self.string(name)), fixed, *record, bytes(24)]
        self._module_count += 1

    def memory(self, address: int, data: bytes) -> None:
        """Add a range of memory, for ``finish`` to list."""
        self._memory += [u64(address), *location(self.section(data))]
        self._memory_count += 1

    def exception(
        self, thread_id: int, code: int, *, flags: int = 0, address: int = 0, context: bytes = b"",
        information: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Add ExceptionStream."""
        padded = [*information, *([0] * (15 - len(information)))]
        self.stream(
            6,
            u32(thread_id, 0, code, flags),
            u64(0, address),
            u32(len(information), 0),
            u64(*padded),
            *location(self.section(context)),
        )

    def list_threads(self, stream_type: int = 3, padding: bytes = b"", extra: bytes = b"") -> None:
        """Add the list of the threads so far, with bytes after its count, and after its records."""
        self.stream(stream_type, u32(self._thread_count), padding, *self._threads, extra)

    def finish(self, padding: bytes = b"") -> bytes:
        """Lay everything out; lists not yet added are, with ``padding`` after their counts."""
        added = {stream_type for stream_type, _ in self.directory}
        for stream_type, count, records in (
            (3, self._thread_count, self._threads),
            (4, self._module_count, self._modules),
            (5, self._memory_count, self._memory),
        ):
            if count and stream_type not in added:
                self.stream(stream_type, u32(count), padding, *records)
        placed: dict[str, int] = {}
        sizes: dict[str, int] = {}
        offset = 32 + 12 * len(self.directory)
        for label, items in self.sections.items():
            offset += -offset % 4
            placed[label] = offset
            sizes[label] = sum(len(i) if isinstance(i, bytes) else i.size for i in items)
            offset += sizes[label]
        out = bytearray(b"MDMP" + u32(self.version, len(self.directory), 32, 0, self.timestamp) + u64(0))
        for stream_type, label in self.directory:
            out += u32(stream_type, sizes[label], placed[label])
        for label, items in self.sections.items():
            out += bytes(placed[label] - len(out))
            for item in items:
                if isinstance(item, At):
                    out += (placed[item.label] + item.plus).to_bytes(item.size, "little")
                elif isinstance(item, SizeOf):
                    out += sizes[item.label].to_bytes(item.size, "little")
                else:
                    out += item
        return bytes(out)


def linux_dump() -> Minidump:
    """Return a Linux dump with a bit of everything: the start of many tests, and of the mutations."""
    dump = Minidump()
    dump.system(9, 0x8201, csd="Linux 5.4.0-42-generic #46-Ubuntu SMP Fri Jul 10 2020 x86_64")
    dump.stream(15, u32(24, 3, 4321, 1_599_999_990, 0, 0))
    stack = u64(*range(0x7000_0000, 0x7000_0040))
    dump.thread(11, context_amd64({"rip": 0x401000, "rsp": 0x7FFF0000}), (0x7FFF0000, stack))
    dump.thread(12, context_amd64({"rip": 0x7F0000001000, "rsp": 0x7FEE0000}), (0x7FEE0000, stack[:64]))
    dump.module(0x400000, 0x10000, "/usr/bin/app", elf_build_id(bytes(range(1, 21))))
    dump.module(0x7F0000000000, 0x20000, "/lib/libc.so.6", rsds(bytes(range(16, 32)), 0, "libc.so.6"))
    dump.memory(0x401000, bytes(range(256)))
    crashed = context_amd64({"rip": 0x401234, "rsp": 0x7FFF0010, "rbp": 0x7FFF0080, "r15": 15})
    dump.exception(11, 11, flags=1, address=0xDEAD, context=crashed)
    dump.stream(24, u32(1), u32(11), At(dump.string("main"), 8))
    maps = (
        "00400000-00410000 r-xp 00000000 08:01 1   /usr/bin/app\n"
        "7f0000000000-7f0000020000 rw-p 00000000 08:01 2   /lib/libc.so.6\n"
        "7fff0000-7fff2000 rw-p 00000000 00:00 0   [stack]\n"
    )
    dump.stream(0x47670009, maps.encode())
    dump.stream(0x47670006, b"/usr/bin/app\0--flag\0")
    dump.stream(0x47670007, b"SECRET=1\0PATH=/bin\0\0")
    dump.stream(0x47670005, b'DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE="20.04"\n')
    dump.stream(0x47670004, b"Name:\tapp\nPid:\t4321\n")
    dump.stream(0x47670008, u64(9, 0x400500, 0, 0))
    crashpad(dump, {"prod": "app"}, {0: {"channel": "beta"}})
    info = u64(0x400000, 0x400000) + u32(0x20, 0) + u64(0x10000) + u32(0x1000, 0x20, 0x1000000, 0)
    dump.stream(16, u32(16, 48) + u64(1) + info)
    return dump


def crashpad(
    dump: Minidump, simple: Mapping[str, str], modules: Mapping[int, Mapping[str, str]], *, objects: bool = True
) -> None:
    """Add Crashpad's stream: annotations of the program, and of modules by their number."""
    links: list[Item] = [u32(len(modules))]
    for index, pairs in modules.items():
        listed = dump.section(u32(1), At(dump.utf8("message")))
        typed: list[Item] = [u32(len(pairs))]
        for name, value in pairs.items():
            typed += [At(dump.utf8(name)), u16(1, 0), At(dump.utf8(value))]
        tail = location(dump.section(*typed)) if objects else []
        links += [u32(index), *location(dump.section(u32(1), *location(listed), u32(0, 0), *tail))]
    entries: list[Item] = [u32(len(simple))]
    for key, value in simple.items():
        entries += [At(dump.utf8(key)), At(dump.utf8(value))]
    dump.stream(
        0x43500001,
        u32(1),
        bytes(range(32)),
        *location(dump.section(*entries)),
        *location(dump.section(*links)),
    )


def read_built(dump: Minidump, padding: bytes = b"") -> RawCrash:
    """Read a dump under the default limits, with ``padding`` after the counts of its lists."""
    return read(dump.finish(padding), ReportLimits())


def codes(crash: RawCrash) -> list[str]:
    """Return the codes of its diagnostics."""
    return [d.code for d in crash.diagnostics]


def crashed(crash: RawCrash) -> RawThread:
    """Return the one thread that crashed."""
    (thread,) = [t for t in crash.threads if t.crashed]
    return thread
