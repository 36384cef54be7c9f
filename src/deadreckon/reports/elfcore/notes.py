"""What the notes of a core say: threads with their registers, the signal, the process, the files mapped.

Sources: Linux ``include/uapi/linux/elf.h`` (NT_*), ``elfcore.h`` (elf_prstatus, elf_prpsinfo), ``auxvec.h``,
``asm-generic/siginfo.h``, ``fs/binfmt_elf.c`` (``fill_files_note``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from struct import Struct, iter_unpack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deadreckon.errors import Malformed
from deadreckon.model.crash import RawThread
from deadreckon.model.ids import Arch
from deadreckon.model.registers import WIDTH, Registers

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.reports.elfcore.core import Core, Note

__all__ = ["MappedFile", "Notes", "SigInfo", "read_notes"]

_CURSIG = Struct("<12xh")
_SIGINFO = {False: Struct("<iiiI"), True: Struct("<iii4xQ")}
_MAX_AUXV = 4096
_CPSR = 16
"""Word of ARM's ``elf_gregset_t`` with the status register, whose bit 5 says that the code is Thumb."""
_MAX_FILES_PER_MODULE = 16


class SigInfo(NamedTuple):
    """``siginfo_t``; of its union the first word, which is ``si_addr`` for the signals of a fault."""

    signo: int
    errno: int
    code: int
    address: int


class MappedFile(NamedTuple):
    """A mapping of a file: addresses, and its place in the file, in bytes."""

    start: int
    end: int
    offset: int
    path: str


@dataclass(slots=True)
class Notes:
    """What was read from all notes. ``signals`` (``pr_cursig``) has one row per thread, ``siginfo`` has some."""

    threads: list[RawThread] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    siginfo: dict[int, SigInfo] = field(default_factory=dict)
    pid: int | None = None
    name: str = ""
    """``pr_fname``: the main thread's name, cut to 15 characters."""
    arguments: str = ""
    """``pr_psargs``: the command line, cut to 80 characters."""
    auxv: dict[int, int] = field(default_factory=dict)
    files: list[MappedFile] = field(default_factory=list)
    address_mask: int | None = None
    others: set[str] = field(default_factory=set)
    """Owners of notes that aren't Linux's."""


def read_notes(core: Core) -> Notes:
    """Read every note that is known; the register sets beside the general one are passed over."""
    found = Notes()
    for note in core.notes():
        if note.owner not in {"CORE", "LINUX"}:
            if len(found.others) < 16:
                found.others.add(note.owner)
        elif known := _READERS.get((note.owner, note.type)):
            name, reader = known
            core.attempt(name, partial(reader, core, note, found))
    if len(found.threads) > core.limits.max_threads:
        limit = core.limits.max_threads
        core.problem("limit_exceeded", f"{len(found.threads)} threads, max_threads is {limit}", {"note": "NT_PRSTATUS"})
        del found.threads[limit:], found.signals[limit:]
    return found


def _needs(what: str, note: Note, size: int) -> None:
    if len(note.desc) < size:
        raise Malformed(what, offset=note.offset, expected=f"{size} bytes", got=f"{len(note.desc)} bytes")


def _prstatus(core: Core, note: Note, found: Notes) -> None:
    """Read ``struct elf_prstatus``: a thread, its registers and the signal it has."""
    layout = core.layout
    _needs("NT_PRSTATUS", note, layout.pr_pid + 4)
    (signal,) = _CURSIG.unpack_from(note.desc)
    thread = RawThread(int.from_bytes(note.desc[layout.pr_pid : layout.pr_pid + 4], "little"))
    found.threads.append(thread)
    found.signals.append(signal)
    words = max(layout.registers) + 1
    _needs("registers of NT_PRSTATUS", note, layout.pr_reg + words * layout.arch.word_size)
    values = np.frombuffer(note.desc, f"<u{layout.arch.word_size}", words, layout.pr_reg)
    count = len(layout.registers)
    row = np.zeros(WIDTH, np.uint64)
    row[:count] = values[list(layout.registers)]
    thread.registers = Registers(layout.arch, row, (1 << count) - 1)
    if layout.arch is Arch.ARM and len(note.desc) >= layout.pr_reg + (_CPSR + 1) * layout.arch.word_size:
        at = layout.pr_reg + _CPSR * layout.arch.word_size
        thread.registers.others["cpsr"] = int.from_bytes(note.desc[at : at + 4], "little")


def _siginfo(core: Core, note: Note, found: Notes) -> None:
    """Read ``siginfo_t``, which belongs to the thread before it."""
    layout = _SIGINFO[core.layout.wide]
    _needs("NT_SIGINFO", note, layout.size)
    found.siginfo.setdefault(max(len(found.threads) - 1, 0), SigInfo(*layout.unpack_from(note.desc)))


def _prpsinfo(core: Core, note: Note, found: Notes) -> None:
    """Read ``struct elf_prpsinfo``, whose last fields are ``pr_fname[16]`` and ``pr_psargs[80]``.

    Before ``pr_pid`` stand user and group, which take 16 or 32 bits on 32-bit CPUs: 124 or 128 bytes in all.
    """
    _needs("NT_PRPSINFO", note, 136 if core.layout.wide else 124)
    data = bytes(note.desc[:136])
    pid = 24 if core.layout.wide else 16 if len(data) >= 128 else 12
    name = pid + 16
    found.pid = int.from_bytes(data[pid : pid + 4], "little")
    found.name = _text(data[name : name + 16])
    found.arguments = _text(data[name + 16 : name + 96]).rstrip(" ")


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _auxv(core: Core, note: Note, found: Notes) -> None:
    """Read the auxiliary vector: pairs of words that AT_NULL ends."""
    pair = 2 * core.layout.arch.word_size
    data = note.desc[: min(len(note.desc), _MAX_AUXV) // pair * pair]
    for key, value in iter_unpack(f"<2{core.layout.word}", data):
        if not key:
            break
        found.auxv.setdefault(key, value)


def _files(core: Core, note: Note, found: Notes) -> None:
    """Read NT_FILE: count and page size, three words for each mapping, then the paths with a NUL after each."""
    size = core.layout.arch.word_size
    _needs("NT_FILE", note, 2 * size)
    count, page = (int.from_bytes(note.desc[at : at + size], "little") for at in (0, size))
    end = (2 + 3 * count) * size
    _needs("NT_FILE", note, end)
    limit = _MAX_FILES_PER_MODULE * core.limits.max_modules
    if count > limit:
        core.problem("limit_exceeded", f"NT_FILE has {count} mappings, the limit is {limit}", {"note": "NT_FILE"})
    rows = np.frombuffer(note.desc, f"<u{size}", 3 * count, 2 * size).reshape(count, 3)[:limit].tolist()
    paths = bytes(note.desc[end:]).split(b"\0", len(rows))
    known: dict[bytes, str] = {}
    for (start, stop, pages), raw in zip(rows, paths, strict=False):
        if raw not in known:
            path = raw[: core.limits.max_string_bytes].decode("utf-8", "replace")
            known[raw] = path.removesuffix(" (deleted)")
        if start < stop:
            found.files.append(MappedFile(start, stop, pages * page, known[raw]))
    if len(paths) < len(rows):
        raise Malformed("paths of NT_FILE", offset=note.offset + end, expected=len(rows), got=len(paths))


def _pac_mask(_core: Core, note: Note, found: Notes) -> None:
    """Read ``struct user_pac_mask``: the bits of data and of code pointers that hold authentication codes.

    Bits above them (a tag, the sign) are no part of a user's address either.
    """
    _needs("NT_ARM_PAC_MASK", note, 16)
    mask = int.from_bytes(note.desc[8:16], "little")
    lowest = (mask & -mask).bit_length() - 1
    if lowest >= 32 and found.address_mask is None:
        found.address_mask = (1 << lowest) - 1


_READERS: dict[tuple[str, int], tuple[str, Callable[[Core, Note, Notes], None]]] = {
    ("CORE", 1): ("NT_PRSTATUS", _prstatus),
    ("CORE", 3): ("NT_PRPSINFO", _prpsinfo),
    ("CORE", 6): ("NT_AUXV", _auxv),
    ("CORE", 0x53494749): ("NT_SIGINFO", _siginfo),
    ("CORE", 0x46494C45): ("NT_FILE", _files),
    ("LINUX", 0x406): ("NT_ARM_PAC_MASK", _pac_mask),
}
