"""A running process as a small ELF core: its threads stopped for a moment, their registers and what they may unwind.

Linux only. Registers come by ``ptrace`` (PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_GETREGSET with NT_PRSTATUS), which
leaves no trace: threads go on where they were, and a signal that arrived meanwhile is delivered. Memory comes from
/proc/PID/mem. Sources: ptrace(2), proc(5), core(5), Linux ``elfcore.h``; gABI chapter 5 for program headers.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.errors import SourceUnavailable
from deadreckon.model.crash import Module, RawCrash
from deadreckon.model.ids import Arch
from deadreckon.model.registers import WIDTH, Registers
from deadreckon.reports.elfcore.core import LAYOUTS, PF_W, PF_X, PT_LOAD, PT_NOTE
from deadreckon.unwind.reach import Space, reach
from deadreckon.unwind.walk import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.reports.elfcore.core import Layout

__all__ = ["core_of"]

_SEIZE, _INTERRUPT, _GETREGSET, _DETACH = 0x4206, 0x4207, 0x4204, 17
_NT_PRSTATUS, _NT_PRPSINFO, _NT_AUXV, _NT_FILE = 1, 3, 6, 0x46494C45
_WALL = 0x40000000
_EVENT_STOP = 128
_STOP_SECONDS = 2.0
_ROUNDS = 16
"""How often threads are looked for again, that others had started before they were stopped."""
_MAX_THREADS = 16_384
_PAGE = 4096
_PF_R = 4
_REGISTER_BYTES = {Arch.X86_64: 216, Arch.X86: 68, Arch.ARM64: 272, Arch.ARM: 72}
"""Size of ``elf_gregset_t``, by which a 32-bit program on a 64-bit machine tells itself."""


class _Mapping(NamedTuple):
    start: int
    end: int
    access: int
    offset: int
    path: str


@dataclass(slots=True)
class _Stopped:
    """A thread under our control: its registers as the kernel lays them out, and the signal to deliver on leaving."""

    tid: int
    registers: bytes
    signal: int = 0


def core_of(pid: int, limit: int) -> bytes:
    """Return an ELF core of a running process with at most ``limit`` bytes of stacks.

    Raises SourceUnavailable where there is no such process, where it may not be traced, or a thread can't be stopped.
    """
    if not sys.platform.startswith("linux"):
        raise SourceUnavailable("a running process can be read on Linux only; elsewhere, make a core of it")
    with _stopped(pid) as threads:
        layout = next((x for x in LAYOUTS if _REGISTER_BYTES[x.arch] == len(threads[0].registers)), None)
        if layout is None:
            raise SourceUnavailable(f"process {pid}: registers of {len(threads[0].registers)} bytes aren't known")
        try:
            return _Process(pid, layout).core(threads, limit)
        except OSError as e:
            raise SourceUnavailable(f"process {pid}: {e.filename or 'memory'}: {e.strerror}") from e


# -- threads ----------------------------------------------------------------------------------------------------------


@contextmanager
def _stopped(pid: int) -> Iterator[list[_Stopped]]:
    """Stop every thread of a process, the main one first, until the block is left."""
    threads: dict[int, _Stopped] = {}
    with ExitStack() as undo:
        for _ in range(_ROUNDS):
            fresh = [tid for tid in _tids(pid) if tid not in threads]
            if not fresh:
                break
            for tid in sorted(fresh, key=lambda t: t != pid):
                if len(threads) == _MAX_THREADS:
                    raise SourceUnavailable(f"process {pid} has more than {_MAX_THREADS} threads")
                stopped = _stop(tid, undo)
                if stopped is not None:
                    threads[tid] = stopped
        if not threads:
            raise SourceUnavailable(f"process {pid} has ended")
        yield list(threads.values())


def _tids(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError as e:
        raise SourceUnavailable(f"process {pid}: {e.strerror}") from e


def _stop(tid: int, undo: ExitStack) -> _Stopped | None:
    """Stop one thread and read its registers; None where it has ended meanwhile."""
    try:
        _ptrace(_SEIZE, tid, 0, 0)
    except ProcessLookupError:
        return None
    except OSError as e:
        hint = (
            "; the setting kernel.yama.ptrace_scope or its owner forbids it" if isinstance(e, PermissionError) else ""
        )
        raise SourceUnavailable(f"thread {tid} can't be traced: {e.strerror}{hint}") from e
    found = _Stopped(tid, b"")
    undo.callback(_leave, found)
    try:
        _ptrace(_INTERRUPT, tid, 0, 0)
        deadline = time.monotonic() + _STOP_SECONDS
        while True:
            waited, status = os.waitpid(tid, os.WNOHANG | _WALL)
            if waited:
                break
            if time.monotonic() > deadline:
                raise SourceUnavailable(f"thread {tid} doesn't stop: it is deep in the kernel")
            time.sleep(0.001)
        if not os.WIFSTOPPED(status):
            return None
        # Stopped by a signal on its way rather than by us: it is delivered when the thread goes on.
        found.signal = 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status)
        found.registers = _registers(tid)
    except (ProcessLookupError, ChildProcessError):
        return None
    return found


def _leave(thread: _Stopped) -> None:
    try:
        _ptrace(_DETACH, thread.tid, 0, thread.signal)
    except OSError:
        pass  # It has ended, or never stopped; the kernel lets go of it when we end.


def _registers(tid: int) -> bytes:
    room = ctypes.create_string_buffer(1024)
    vector = (ctypes.c_size_t * 2)(ctypes.addressof(room), len(room))
    _ptrace(_GETREGSET, tid, _NT_PRSTATUS, ctypes.addressof(vector))
    return room.raw[: vector[1]]


def _ptrace(request: int, tid: int, address: int, data: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    call = library.ptrace
    call.restype, call.argtypes = ctypes.c_long, (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    ctypes.set_errno(0)
    if call(request, tid, address, data) == -1 and (number := ctypes.get_errno()):
        raise OSError(number, os.strerror(number))


# -- the core ---------------------------------------------------------------------------------------------------------


class _Process:
    """What /proc tells of a stopped process, and the core made of it."""

    def __init__(self, pid: int, layout: Layout) -> None:
        self._pid = pid
        self._layout = layout
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
            self._mappings = [_mapping(line) for line in file]

    def core(self, threads: list[_Stopped], limit: int) -> bytes:
        mappings = [m for m in self._mappings if m.access & _PF_R]
        columns = np.array([(m.start, m.end) for m in mappings], np.uint64).reshape(-1, 2)
        code = np.array([(m.start, m.end) for m in mappings if m.access & PF_X], np.uint64).reshape(-1, 2)
        memory = os.open(f"/proc/{self._pid}/mem", os.O_RDONLY)
        try:
            space = Space(
                columns[:, 0], columns[:, 1], code[:, 0], code[:, 1], lambda at, size: _read(memory, at, size)
            )
            rows = [self._row(t.registers) for t in threads]
            images = [Module(m.start, m.end - m.start) for m in mappings if m.access & PF_X]
            mask = ARCHITECTURES[self._layout.arch].address_mask(RawCrash("elfcore", modules=images))
            taken = reach(self._layout.arch, rows, space, mask, limit)
            # Headers of images name the build, and the vdso is in no file.
            heads = [(m.start, _PAGE) for m in mappings if m.path.startswith("/") and not m.offset]
            heads += [(m.start, m.end - m.start) for m in mappings if m.path == "[vdso]"]
            taken += [(start, _read(memory, start, size)) for start, size in heads]
        finally:
            os.close(memory)
        return self._elf(self._notes(threads), taken)

    def _row(self, registers: bytes) -> Registers:
        layout = self._layout
        words = np.frombuffer(registers, f"<u{layout.arch.word_size}")
        row = np.zeros(WIDTH, np.uint64)
        row[: len(layout.registers)] = words[list(layout.registers)]
        return Registers(layout.arch, row, (1 << len(layout.registers)) - 1)

    def _notes(self, threads: list[_Stopped]) -> bytes:
        layout = self._layout
        size = layout.arch.word_size
        notes = []
        for thread in threads:
            status = bytearray(layout.pr_reg + len(thread.registers) + size)
            struct.pack_into("<i", status, layout.pr_pid, thread.tid)
            status[layout.pr_reg : layout.pr_reg + len(thread.registers)] = thread.registers
            notes.append((_NT_PRSTATUS, bytes(status)))
        name, arguments = self._file("comm").strip(), self._file("cmdline").replace(b"\0", b" ").strip()
        # elf_prpsinfo: flags and ids, which nobody reads but for the process's, name and arguments.
        ids = struct.pack(
            "<16xQi12x" if layout.wide else "<12xi12x", *((0, self._pid) if layout.wide else (self._pid,))
        )
        notes.append((_NT_PRPSINFO, ids + name[:15].ljust(16, b"\0") + arguments[:79].ljust(80, b"\0")))
        notes.append((_NT_AUXV, self._file("auxv")))
        files = [m for m in self._mappings if m.path.startswith("/")]
        table = [len(files), _PAGE, *(v for m in files for v in (m.start, m.end, m.offset // _PAGE))]
        names = b"".join(os.fsencode(m.path) + b"\0" for m in files)
        notes.append((_NT_FILE, struct.pack(f"<{len(table)}{layout.word}", *table) + names))
        return b"".join(
            struct.pack("<III", 5, len(data), kind) + b"CORE\0\0\0\0" + data + bytes(-len(data) % 4)
            for kind, data in notes
        )

    def _file(self, name: str) -> bytes:
        with open(f"/proc/{self._pid}/{name}", "rb") as file:
            return file.read(1 << 20)

    def _elf(self, notes: bytes, taken: list[tuple[int, bytes]]) -> bytes:
        """Lay out headers, notes and memory; each mapping is divided into the parts taken and those between them."""
        wide = self._layout.wide
        held = _joined(taken, {m.start for m in self._mappings})
        segments: list[tuple[int, int, int, bytes]] = []
        for m in self._mappings:
            at = m.start
            for start, data in held:
                if m.start <= start < m.end:
                    segments += [(at, start, m.access, b""), (start, start + len(data), m.access, data)]
                    at = start + len(data)
            segments.append((at, m.end, m.access, b""))
        segments = [s for s in segments if s[0] < s[1]]
        ehsize, phentsize = (64, 56) if wide else (52, 32)
        offset = ehsize + (len(segments) + 1) * phentsize
        table = [self._phdr(PT_NOTE, 0, offset, 0, len(notes), 0)]
        offset += len(notes)
        for start, end, access, data in segments:
            table.append(self._phdr(PT_LOAD, access, offset, start, len(data), end - start))
            offset += len(data)
        ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]).ljust(12, b"\0")
        sizes = (0, ehsize, phentsize, len(table), 0, 0, 0)
        header = struct.pack(
            "<16sHHIQQQIHHHHHH" if wide else "<16sHHIIIIIHHHHHH",
            *(ident, 4, self._layout.machine, 1, 0, ehsize, 0, *sizes),
        )
        return b"".join((header, *table, notes, *(data for *_, data in segments)))

    def _phdr(self, kind: int, flags: int, offset: int, vaddr: int, filesz: int, memsz: int) -> bytes:
        if self._layout.wide:
            return struct.pack("<IIQQQQQQ", kind, flags, offset, vaddr, 0, filesz, memsz, 1)
        return struct.pack("<8I", kind, offset, vaddr, 0, filesz, memsz, flags, 1)


def _mapping(line: str) -> _Mapping:
    span, perms, offset, _, _, *path = line.rstrip("\n").split(maxsplit=5)
    start, _, end = span.partition("-")
    access = sum(bit for letter, bit in zip("rwx", (_PF_R, PF_W, PF_X), strict=True) if letter in perms)
    return _Mapping(int(start, 16), int(end, 16), access, int(offset, 16), path[0] if path else "")


def _read(memory: int, at: int, size: int) -> bytes:
    """Return bytes from an address on, fewer where a page can't be had ([vvar], a file cut short, a guard page)."""
    try:
        return os.pread(memory, size, at) if 0 <= at < 1 << 63 else b""
    except OSError:
        return b""


def _joined(pieces: list[tuple[int, bytes]], borders: set[int]) -> list[tuple[int, bytes]]:
    """Sort pieces of memory and join those that touch or overlap, but not across a mapping's border."""
    kept: list[tuple[int, bytearray]] = []
    for start, data in sorted(pieces):
        end = kept[-1][0] + len(kept[-1][1]) if kept else -1
        if start > end or (start == end and start in borders):
            kept.append((start, bytearray(data)))
        else:
            kept[-1][1].extend(data[end - start :])
    return [(start, bytes(data)) for start, data in kept if data]
