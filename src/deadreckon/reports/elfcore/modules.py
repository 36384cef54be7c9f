"""The images of a process, from what a core has: files mapped (NT_FILE), else the dynamic linker's list; and the vdso.

Sources: gABI chapter 5 "Program Loading and Dynamic Linking"; ``link.h`` (``r_debug``, ``link_map``); Linux
``auxvec.h``.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import attrgetter
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.model.crash import Module
from deadreckon.model.ids import Arch, DebugId
from deadreckon.reports.elfcore.core import PF_W, PF_X, PT_DYNAMIC, PT_LOAD, PT_NOTE, PT_PHDR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deadreckon.model.crash import MemoryMap, RawCrash
    from deadreckon.reports.elfcore.core import Core
    from deadreckon.reports.elfcore.notes import Notes

__all__ = ["process_images"]

AT_PHDR, AT_PHNUM, AT_BASE, AT_ENTRY, AT_EXECFN, AT_SYSINFO_EHDR = 3, 5, 7, 9, 31, 33
DT_DEBUG = 21
_NT_GNU_BUILD_ID = 3
_NT_VERSION = 0
_MAX_SEGMENTS = 64
_MAX_NOTE_BYTES = 4096
_MAX_DYNAMIC = 1 << 16
_MAX_PATH = 4096
_MAX_SEARCH = 64 << 20
"""Bytes looked through for ``r_debug`` where the core lacks the program's headers."""
_MAX_CANDIDATES = 256
_MAX_VDSO = 1 << 16
"""Bytes; the largest there is, that of x86_64, has two pages."""
_PAGE = 4096
_WHOLE = 1 << 64
_NHDR = Struct("<III")
_PHDR = {False: Struct("<8I"), True: Struct("<IIQQQQQQ")}
_VDSO = {Arch.X86: "linux-gate.so.1"}


@dataclass(slots=True)
class Image:
    """What an ELF image in memory says of itself; addresses are absolute, 0 where it does not say."""

    start: int
    end: int = 0
    dynamic: tuple[int, int] = (0, 0)
    """Address and size of the dynamic section."""
    build_id: bytes = b""
    kernel: str = ""
    """The kernel's version, in the vdso."""
    loads: list[tuple[int, int, int]] = field(default_factory=list)
    """Start, end and flags (PF_*) of the pages that hold each PT_LOAD."""


@dataclass(slots=True)
class _Part:
    """Mappings of one file that may be one image; ``room`` is where the next file's mapping begins."""

    start: int
    end: int
    room: int
    offset: int
    image: Image | None


def process_images(core: Core, notes: Notes, crash: RawCrash) -> None:
    """Fill in modules, process name and kernel version."""
    reading = _Images(core, notes, crash)
    images = reading.of_files() if notes.files else reading.of_link_map()
    found = list(islice(images, core.limits.max_modules + 1))
    for vdso in reading.vdso():
        for module in found:
            # The kernel maps the linker's code and data apart, and the vdso may lie between: pyelftools' core_simple64.
            if module.image_addr < vdso.image_addr < module.end:
                module.image_size = vdso.image_addr - module.image_addr
        found.append(vdso)
    crash.modules = _placed(core, found)
    crash.regions = core.regions(reading.left_out())
    entry = notes.auxv.get(AT_ENTRY, 0)
    main = next((m for m in crash.modules if m.image_addr <= entry < m.end), None)
    name = main.code_file if main is not None else reading.text(notes.auxv.get(AT_EXECFN, 0))
    crash.process_name = name.rpartition("/")[2] or notes.name or None


def _placed(core: Core, found: list[Module]) -> list[Module]:
    """Sort modules by address, without those over an earlier one."""
    placed: list[Module] = []
    dropped: list[str] = []
    for module in sorted(found, key=attrgetter("image_addr")):
        if placed and module.image_addr < placed[-1].end:
            dropped.append(module.code_file)
        else:
            placed.append(module)
    if dropped:
        names = ", ".join(n[:100] for n in dropped[:8])
        core.problem("module_overlap", f"{len(dropped)} modules overlap an earlier one and were dropped: {names}")
    if len(placed) > core.limits.max_modules:
        limit = core.limits.max_modules
        core.problem("limit_exceeded", f"more modules than max_modules, {limit}")
        del placed[limit:]
    return placed


class _Images:
    """Reads images out of a core's memory."""

    def __init__(self, core: Core, notes: Notes, crash: RawCrash) -> None:
        self.core = core
        self.notes = notes
        self.crash = crash
        self.wide = core.layout.wide
        self.word = core.layout.arch.word_size
        self.text_left = min(core.size, _MAX_SEARCH)
        """Bytes of paths that may still be read: a list may name one text again and again."""
        self.notes_left = 4 * core.limits.max_modules
        """Notes that may still be read, of all images: their segments may be one and the same."""
        self.loads: list[tuple[int, int, int]] = []
        """PT_LOAD of all images of files, as ``Image`` has them."""

    # -- memory -------------------------------------------------------------------------------------------------------

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes, empty where the core doesn't hold all of them."""
        return self.crash.memory.read(address, size) or b""

    def words(self, address: int, count: int) -> tuple[int, ...]:
        """Return words, none where the core doesn't hold all of them."""
        data = self.read(address, count * self.word)
        return tuple(np.frombuffer(data, f"<u{self.word}").tolist())

    def text(self, address: int) -> str:
        """Return the string at an address, empty where there is none."""
        memory: MemoryMap = self.crash.memory
        i = int(np.searchsorted(memory.start, np.uint64(address), side="right")) - 1
        size = min(int(memory.end[i]) - address if i >= 0 else 0, _MAX_PATH, self.text_left)
        text = self.read(address, size).partition(b"\0")[0] if address and size > 0 else b""
        self.text_left -= len(text)
        return text.decode("utf-8", "replace")

    def segment(self, address: int) -> int:
        """Return the index of the core's segment that an address lies in, -1 for none."""
        i = int(np.searchsorted(self.core.start, np.uint64(address & _WHOLE - 1), side="right")) - 1
        return i if i >= 0 and address < int(self.core.end[i]) else -1

    def executable(self, start: int, end: int) -> bool:
        """Say whether any mapping between two addresses holds code."""
        first = int(np.searchsorted(self.core.end, np.uint64(start), side="right"))
        last = int(np.searchsorted(self.core.start, np.uint64(min(end, _WHOLE - 1)), side="left"))
        return bool((self.core.loads["p_flags"][first:last] & PF_X).any())

    # -- images -------------------------------------------------------------------------------------------------------

    def image(self, address: int) -> Image | None:
        """Read the ELF image whose header is at an address, None where there is none."""
        head = self.read(address, self.core.ehdr_size)
        if head[:6] != (b"\x7fELF\2\1" if self.wide else b"\x7fELF\1\1") or head[16] not in {2, 3}:
            return None
        at, width, number = (32, 8, 54) if self.wide else (28, 4, 42)
        phoff = int.from_bytes(head[at : at + width], "little")
        size, count = (int.from_bytes(head[n : n + 2], "little") for n in (number, number + 2))
        found = Image(address)
        if size == _PHDR[self.wide].size:
            self.describe(found, self.program_headers(address + phoff, count), bias=None)
        return found

    def program_headers(self, address: int, count: int) -> list[tuple[int, int, int, int]]:
        """Read (type, address, size in memory, flags) of an image's segments."""
        layout = _PHDR[self.wide]
        table = self.read(address, min(count, _MAX_SEGMENTS) * layout.size)
        vaddr, memsz, flags = (3, 6, 1) if self.wide else (2, 5, 6)
        return [(row[0], row[vaddr], row[memsz], row[flags]) for row in layout.iter_unpack(table)]

    def describe(self, image: Image, headers: list[tuple[int, int, int, int]], bias: int | None) -> None:
        """Fill in what program headers say; the first PT_LOAD is at the image's start where no ``bias`` is known."""
        loads = sorted(
            (vaddr & -_PAGE, vaddr + size + _PAGE - 1 & -_PAGE, flags)
            for kind, vaddr, size, flags in headers
            if kind == PT_LOAD
        )
        if not loads:
            return
        if bias is None:
            bias = image.start - loads[0][0]
        image.loads = [(bias + start, bias + end, flags) for start, end, flags in loads]
        image.start = bias + loads[0][0]
        image.end = min(bias + max(end for _, end, _ in loads), _WHOLE - 1)
        for kind, vaddr, size, _ in headers:
            if kind == PT_DYNAMIC:
                image.dynamic = (bias + vaddr, min(size, _MAX_DYNAMIC))
            elif kind == PT_NOTE:
                self.notes_of(image, bias + vaddr, min(size, _MAX_NOTE_BYTES))

    def notes_of(self, image: Image, address: int, size: int) -> None:
        """Look for the build id and the kernel's version in an image's notes."""
        data = self.read(address, size) if self.notes_left > 0 else b""
        at = 0
        while self.notes_left > 0:
            self.notes_left -= 1
            if at + _NHDR.size > len(data):
                return
            namesz, descsz, kind = _NHDR.unpack_from(data, at)
            name, desc = at + 12, at + 12 + (namesz + 3 & ~3)
            at = desc + (descsz + 3 & ~3)
            if desc + descsz > len(data):
                return
            owner, content = data[name : name + namesz], data[desc : desc + descsz]
            if (owner, kind) == (b"GNU\0", _NT_GNU_BUILD_ID) and 0 < descsz <= 64:
                image.build_id = image.build_id or content
            elif (owner, kind) == (b"Linux\0", _NT_VERSION) and descsz >= 4:
                patch, minor, major = content[0], content[1], int.from_bytes(content[2:4], "little")
                image.kernel = f"{major}.{minor}.{patch}"

    def module(self, path: str, start: int, end: int, image: Image | None) -> Module:
        """Make a module; its build id, where memory has it, names it."""
        module = Module(start, max(end - start, 0), path, debug_file=path, arch=self.crash.arch)
        if image is not None and any(image.build_id[:16]):
            module.code_id = image.build_id.hex()
            module.debug_id = str(DebugId.from_build_id(image.build_id))
        return module

    # -- sources of images --------------------------------------------------------------------------------------------

    def of_files(self) -> Iterator[Module]:
        """Join the mappings of each file into the image that they are parts of.

        A file may be mapped more than once, and data files are mapped too: an image has an ELF header in memory, or,
        where its first page was left out, code.
        """
        rows = sorted(self.notes.files)
        starts = [row.start for row in rows[1:]] + [_WHOLE - 1]
        following = dict(zip(rows, starts, strict=True))
        for path, group in groupby(rows, key=attrgetter("path")):
            parts: list[_Part] = []
            limit = -1
            for row in group:
                if row.start >= limit:
                    image = self.image(row.start)
                    limit = (image.end or row.end) if image is not None else _WHOLE
                    parts.append(_Part(row.start, row.end, following[row], row.offset, image))
                parts[-1].end = max(parts[-1].end, row.end)
                parts[-1].room = following[row]
            for part in parts:
                image = part.image
                if image is not None:
                    self.loads += image.loads
                    yield self.module(path, part.start, max(part.end, min(image.end, part.room)), image)
                # A header of another kind of file is read, and none of ours: only what is missing may be an image.
                elif not part.offset and not self.read(part.start, 1) and self.executable(part.start, part.end):
                    yield self.module(path, part.start, part.end, None)

    def of_link_map(self) -> Iterator[Module]:
        """List the program and what its dynamic linker has loaded.

        qemu and kernels before 3.7 write no NT_FILE, and leave out the headers that would say how large an image is:
        then it ends with its first writable segment.
        """
        main = self.main_image()
        linked = list(self.link_map(self.debug_map(main)))
        entry = self.notes.auxv.get(AT_ENTRY, 0)
        spans: list[tuple[int, int, str, Image | None]] = []
        if main is not None:
            name = self.text(self.notes.auxv.get(AT_EXECFN, 0)) or self.notes.name
            spans.append((main.start, max([entry, *(ld for _, name_, ld in linked if not name_)]), name, main))
        known = {0, self.notes.auxv.get(AT_SYSINFO_EHDR, 0), main.start if main is not None else 0}
        for bias, name, dynamic in linked:
            if name and bias not in known and self.segment(bias) >= 0:
                spans.append((bias, dynamic, name, self.image(bias)))
        spans.sort(key=lambda span: span[0])
        for number, (start, inside, name, image) in enumerate(spans):
            room = spans[number + 1][0] if number + 1 < len(spans) else _WHOLE - 1
            end = image.end if image is not None and image.end else self.extent(start, inside)
            if start < min(end, room):
                yield self.module(name, start, min(end, room), image)

    def left_out(self) -> list[tuple[int, int, int]]:
        """Return (start, end, flags) of mapped files that the core has no segment for, as their images tell them.

        The kernel lists what it leaves out as segments without content; gdb's gcore does not list it at all.
        """
        loads = sorted(self.loads)
        starts = [start for start, _, _ in loads]
        found = []
        for row in self.notes.files:
            i = bisect_right(starts, row.start) - 1
            if self.segment(row.start) < 0 and i >= 0 and row.start < loads[i][1]:
                found.append((row.start, row.end, loads[i][2]))
        return found

    def extent(self, start: int, inside: int) -> int:
        """Return where an image without headers ends: it has ``inside`` in it, and its data last."""
        i = self.segment(start)
        if i < 0:
            return start
        while i + 1 < len(self.core.start) and (
            int(self.core.start[i + 1]) <= inside
            or (self.core.start[i + 1] == self.core.end[i] and not self.core.loads["p_flags"][i] & PF_W)
        ):
            i += 1
        return int(self.core.end[i])

    def main_image(self) -> Image | None:
        """Read the program's image by AT_PHDR, without the ELF header where the core lacks it."""
        table = self.notes.auxv.get(AT_PHDR, 0)
        # Linkers put the table right behind the header.
        start = table - self.core.ehdr_size
        headers = self.program_headers(table, self.notes.auxv.get(AT_PHNUM, 0)) if table else []
        own = next((vaddr for kind, vaddr, _, _ in headers if kind == PT_PHDR), None)
        if own is None and (start <= 0 or start % _PAGE):
            return None
        found = Image(start)
        self.describe(found, headers, None if own is None else table - own)
        return found if self.segment(found.start) >= 0 else None

    def debug_map(self, main: Image | None) -> int:
        """Return the address of the first ``link_map``, 0 for none: by DT_DEBUG, which points to ``r_debug``."""
        if main is not None and main.dynamic[0]:
            tags = self.words(main.dynamic[0], main.dynamic[1] // self.word & ~1)
            return self.first_link(dict(zip(tags[::2], tags[1::2], strict=True)).get(DT_DEBUG, 0), None)
        # Without headers, the dynamic section is somewhere in the program's data; AT_BASE tells it from chance.
        left = _MAX_SEARCH
        memory = self.crash.memory
        interpreter = self.notes.auxv.get(AT_BASE, 0)
        if main is None or not interpreter:
            return 0
        first = int(np.searchsorted(memory.start, np.uint64(main.start), side="left"))
        candidates = 0
        for i in range(first, len(memory.start)):
            size = min(int(memory.end[i] - memory.start[i]), left) & ~(2 * self.word - 1)
            at = int(memory.offset[i])
            words = memory.buffer[at : at + size].view(f"<u{self.word}")
            for n in np.flatnonzero(words[:-1] == DT_DEBUG).tolist():
                if link := self.first_link(int(words[n + 1]), interpreter):
                    return link
                candidates += 1
                if candidates == _MAX_CANDIDATES:
                    return 0
            left -= size
            if left <= 0:
                break
        return 0

    def first_link(self, debug: int, interpreter: int | None) -> int:
        """Return ``r_map`` of a ``struct r_debug``, 0 where there is none, or none with this ``r_ldbase``."""
        fields = self.words(debug, 5) if debug else ()
        is_one = len(fields) == 5 and 0 < fields[0] & 0xFFFF_FFFF < 8 and interpreter in {None, fields[4]}
        return fields[1] if is_one else 0

    def link_map(self, link: int) -> Iterator[tuple[int, str, int]]:
        """Yield (l_addr, l_name, l_ld) of each loaded object; a list that runs in a circle ends."""
        seen: set[int] = set()
        while link and link not in seen and len(seen) < self.core.limits.max_modules:
            seen.add(link)
            fields = self.words(link, 4)
            if not fields:
                return
            bias, name, dynamic, link = fields
            yield bias, self.text(name), dynamic

    def vdso(self) -> Iterator[Module]:
        """Read the code that the kernel maps into every process."""
        start = self.notes.auxv.get(AT_SYSINFO_EHDR, 0)
        image = self.image(start) if start else None
        if image is not None:
            i = self.segment(start)
            end = max(image.end, int(self.core.end[i]))
            self.crash.os_version = image.kernel or None
            module = self.module(_VDSO.get(self.crash.arch, "linux-vdso.so.1"), start, end, image)
            module.contents = self.read(start, min(end - start, _MAX_VDSO)) or None
            yield module
