"""Core: checked reads of an ELF core's headers, its notes and its memory.

Sources: System V ABI (gABI) chapter 4 "ELF Header" and chapter 5 "Program Header"; Linux ``elf.h`` for PN_XNUM.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.errors import Malformed, Unsupported
from deadreckon.model.crash import MemoryMap, Regions
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import Arch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from mmap import mmap

    from numpy.typing import NDArray

    from deadreckon.config import ReportLimits

__all__ = ["LAYOUTS", "PF_W", "PF_X", "PT_DYNAMIC", "PT_LOAD", "PT_NOTE", "PT_PHDR", "Core", "Layout", "Note"]

PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_PHDR = 1, 2, 4, 6
PF_X, PF_W, PF_R = 1, 2, 4
_ET_CORE = 4
_PN_XNUM = 0xFFFF
_NOTES_PER_THREAD = 16
"""More than any CPU has register sets (ARM64 has ten)."""

# e_ident, then e_type to e_shstrndx.
_EHDR = {False: Struct("<16sHHIIIIIHHHHHH"), True: Struct("<16sHHIQQQIHHHHHH")}
_PHDR = {
    False: np.dtype([(f"p_{n}", "<u4") for n in "type offset vaddr paddr filesz memsz flags align".split()]),
    True: np.dtype(
        [
            *[("p_type", "<u4"), ("p_flags", "<u4")],
            *[(f"p_{n}", "<u8") for n in "offset vaddr paddr filesz memsz align".split()],
        ]
    ),
}
_SH_INFO = {False: 28, True: 44}
_NHDR = Struct("<III")


class Layout(NamedTuple):
    """Where one machine's ``struct elf_prstatus`` holds what is needed, in bytes."""

    arch: Arch
    machine: int
    wide: bool
    pr_pid: int
    pr_reg: int
    registers: tuple[int, ...]
    """For each DWARF register, its word in ``elf_gregset_t``."""

    @property
    def word(self) -> str:
        """Letter of an unsigned word, for struct and numpy."""
        return "Q" if self.wide else "I"


LAYOUTS = (
    # struct user_regs_struct: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss
    Layout(Arch.X86_64, 62, True, 32, 112, (10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16)),
    # ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss
    Layout(Arch.X86, 3, False, 24, 72, (6, 1, 2, 0, 15, 5, 3, 4, 12)),
    # x0-x30 sp pc pstate: struct user_pt_regs
    Layout(Arch.ARM64, 183, True, 32, 112, tuple(range(33))),
    # r0-r15 cpsr orig_r0: struct pt_regs
    Layout(Arch.ARM, 40, False, 24, 72, tuple(range(16))),
)


class Note(NamedTuple):
    """A note that lies within the file: ``desc`` is a view of its content, at ``offset`` of the file."""

    owner: str
    type: int
    desc: memoryview
    offset: int


class Core:
    """The bytes of one core. Every read checks its bounds; nothing but notes is copied."""

    def __init__(self, data: bytes | memoryview | mmap, limits: ReportLimits) -> None:
        """Read ELF header and program headers; raises Malformed or Unsupported."""
        view = memoryview(data)
        self.view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        self.size = len(self.view)
        self.limits = limits
        self.diagnostics: list[Diagnostic] = []
        ident = bytes(self.view[:16])
        if ident[:4] != b"\x7fELF" or len(ident) < 16:
            raise Malformed("ELF header", offset=0, expected="\\x7fELF", got=ident[:4])
        if ident[5] == 2:
            raise Unsupported("big-endian ELF core: none of the CPUs that are unwound writes one")
        if ident[4] not in {1, 2} or ident[5] != 1:
            raise Malformed("ELF class and byte order", offset=4, expected="1 or 2, then 1", got=ident[4:6].hex())
        wide = ident[4] == 2
        header = _EHDR[wide]
        if self.size < header.size:
            raise Malformed("ELF header", offset=0, expected=f"{header.size} bytes", got=f"{self.size} bytes")
        _, kind, machine, _, _, phoff, shoff, _, _, phentsize, phnum, _, _, _ = header.unpack_from(self.view)
        if kind != _ET_CORE:
            raise Malformed("ELF type", offset=16, expected="ET_CORE", got=kind)
        layout = next((x for x in LAYOUTS if (x.machine, x.wide) == (machine, wide)), None)
        if layout is None:
            raise Unsupported(
                f"ELF core of machine {machine} with {64 if wide else 32} bits: its registers aren't read"
            )
        self.layout = layout
        self.ehdr_size = header.size
        self.segments = self._program_headers(phoff, phnum, phentsize, shoff)
        loads = self.segments[self.segments["p_type"] == PT_LOAD]
        loads = loads[np.argsort(loads["p_vaddr"], kind="stable")]
        start = loads["p_vaddr"].astype(np.uint64)
        size = np.minimum(loads["p_memsz"].astype(np.uint64), ~start)
        # Mappings don't overlap: a header that says so is not the kernel's.
        covered = np.maximum.accumulate(start + size) if len(loads) else start
        kept = size > 0
        kept[1:] &= start[1:] >= covered[:-1]
        self.loads: NDArray[np.void] = loads[kept]
        """PT_LOAD headers by address, without overlaps."""
        self.start: NDArray[np.uint64] = start[kept]
        self.end: NDArray[np.uint64] = (start + size)[kept]
        if len(loads) - int(np.count_nonzero(loads["p_memsz"] == 0)) > len(self.loads):
            self.problem("malformed", "segments overlap; of two, the later one was dropped", {"segment": "PT_LOAD"})

    def problem(self, code: str, message: str, where: dict[str, str | int] | None = None) -> None:
        """Add a diagnostic."""
        self.diagnostics.append(Diagnostic(code=code, severity="warning", stage="read", message=message, where=where))

    def _program_headers(self, phoff: int, phnum: int, phentsize: int, shoff: int) -> NDArray[np.void]:
        """View the program headers; what the file's end cuts is missed with a diagnostic."""
        layout = _PHDR[self.layout.wide]
        size = layout.itemsize
        if phentsize != size:
            raise Malformed("program headers", offset=phoff, expected=f"entries of {size} bytes", got=phentsize)
        there = max(self.size - phoff, 0) // size
        if not there or not phnum:
            raise Malformed("program headers", offset=phoff, expected=f"{phnum} entries", got=0)
        if phnum == _PN_XNUM:
            phnum = self._many(phoff, shoff, size)
        if phnum > self.limits.max_regions:
            limit = self.limits.max_regions
            self.problem("limit_exceeded", f"{phnum} program headers, max_regions is {limit}", {"offset": phoff})
            phnum = limit
        if phnum > there:
            where: dict[str, str | int] = {"offset": phoff, "expected": phnum, "got": there}
            self.problem("truncated", f"the file ends after {there} of {phnum} program headers", where)
            phnum = there
        return np.frombuffer(self.view, layout, phnum, phoff)

    def _many(self, phoff: int, shoff: int, size: int) -> int:
        """Return how many program headers there are beyond 65,534: ``sh_info`` of section 0.

        The kernel writes that section at the file's end, which is what a cut file lacks; but what comes after the
        headers, the notes, then tells where they end.
        """
        at = shoff + _SH_INFO[self.layout.wide]
        if shoff and at + 4 <= self.size:
            return int.from_bytes(self.view[at : at + 4], "little")
        first = int(np.frombuffer(self.view, _PHDR[self.layout.wide], 1, phoff)["p_offset"][0])
        where: dict[str, str | int] = {"offset": shoff, "expected": "section header 0", "got": self.size}
        self.problem("truncated", "the file ends before the number of its program headers", where)
        return max(first - phoff, 0) // size

    def notes(self) -> Iterator[Note]:
        """Yield the notes of every PT_NOTE segment. No byte is read twice: segments that overlap are no writer's."""
        left = _NOTES_PER_THREAD * self.limits.max_threads
        done = 0
        segments = self.segments[self.segments["p_type"] == PT_NOTE]
        for offset, size in sorted(zip(segments["p_offset"].tolist(), segments["p_filesz"].tolist(), strict=True)):
            end = min(offset + size, self.size)
            at = offset
            if at < done:
                continue
            while at + _NHDR.size <= end:
                namesz, descsz, kind = _NHDR.unpack_from(self.view, at)
                name = at + _NHDR.size
                desc = name + (namesz + 3 & ~3)
                if desc + descsz > end:
                    break
                if not left:
                    self.problem("limit_exceeded", "more notes than max_threads threads have", {"offset": at})
                    return
                left -= 1
                owner = bytes(self.view[name : name + min(namesz, 32)]).partition(b"\0")[0].decode("ascii", "replace")
                yield Note(owner, kind, self.view[desc : desc + descsz], desc)
                at = desc + (descsz + 3 & ~3)
            done = max(done, end)
            if min(at, offset + size) < end or end < offset + size:
                cut = offset + size > self.size
                self.problem(
                    "truncated" if cut else "malformed",
                    f"the notes end early: {'the file ends' if cut else 'a note exceeds its segment'}",
                    {"segment": "PT_NOTE", "offset": at, "expected": offset + size, "got": end},
                )

    def memory(self) -> MemoryMap:
        """Map what the file holds of each segment.

        What a segment has beyond ``p_filesz`` was left out by the writer (code of files, pages that the core filter or
        MADV_DONTDUMP excludes), and nobody can say that it was zero.
        """
        loads = self.loads
        offset = loads["p_offset"].astype(np.uint64)
        wanted = np.minimum(loads["p_filesz"].astype(np.uint64), self.end - self.start)
        left = np.uint64(self.size) - np.minimum(offset, np.uint64(self.size))
        held = np.minimum(wanted, left)
        cut = held < wanted
        if cut.any():
            first = int(np.argmax(cut))
            self.problem(
                "truncated",
                f"{int(cut.sum())} of {int(np.count_nonzero(wanted))} segments with memory end outside the file",
                {"offset": int(offset[first]), "expected": int(wanted[first]), "got": int(held[first])},
            )
        kept = held > 0
        start = self.start[kept]
        buffer = np.frombuffer(self.view, np.uint8)
        return MemoryMap(start, start + held[kept], offset[kept].astype(np.int64), buffer)

    def regions(self, others: list[tuple[int, int, int]]) -> Regions | None:
        """Return the mappings with their access; None where none of them is said to hold code.

        ``others`` are (start, end, flags) of mappings without a segment.
        """
        flags = self.loads["p_flags"].astype(np.uint8)
        if others:
            more = np.array(others, np.uint64).T
            start, end = np.concatenate([self.start, more[0]]), np.concatenate([self.end, more[1]])
            flags = np.concatenate([flags, more[2].astype(np.uint8)])
            order = np.argsort(start, kind="stable")
            start, end, flags = start[order], end[order], flags[order]
            end[:-1] = np.minimum(end[:-1], start[1:])
        else:
            start, end = self.start, self.end
        if not (flags & PF_X).any():
            return None
        access = (flags & PF_R) >> 2 | flags & PF_W | (flags & PF_X) << 2
        return Regions(start, end, access.astype(np.uint8))

    def attempt(self, what: str, read: Callable[[], None]) -> None:
        """Run one note's reader; what it raises becomes a diagnostic, and the rest goes on."""
        try:
            read()
        except Malformed as e:
            self.problem("malformed", str(e), {"note": what, **e.where()})
