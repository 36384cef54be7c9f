"""RawCrash: what a report said, before anything was worked out.

Readers fill these; the unwinder and the symbolicator read them. Addresses are absolute unless named ``rva``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deadreckon.model.ids import Arch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deadreckon.model.event import Attachment, Diagnostic, Frame
    from deadreckon.model.registers import Registers

__all__ = ["MemoryMap", "Module", "RawCrash", "RawException", "RawFrame", "RawThread", "Regions"]


@dataclass(slots=True)
class Module:
    """An image that was mapped into the process. ``debug_id`` and ``code_id`` are canonical spellings (ids.py)."""

    image_addr: int
    image_size: int
    code_file: str = ""
    code_id: str | None = None
    debug_file: str | None = None
    debug_id: str | None = None
    arch: Arch = Arch.UNKNOWN
    image_vmaddr: int = 0
    version: str | None = None
    file_offset: int = 0
    """Where in ``code_file`` the image begins: libraries may be mapped out of an archive (Android's APK)."""
    relative: bool = False
    """The report has offsets into the image only: its addresses are made up, and no event shows them."""
    contents: bytes | None = None
    """The image's file, where the report itself has all of it: no disk has the code that Linux maps into processes."""

    @property
    def end(self) -> int:
        """The first address past the image."""
        return self.image_addr + self.image_size


_EMPTY = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint8))


@dataclass(slots=True)
class MemoryMap:
    """Captured memory: ``start``/``end`` (u64, sorted by start, not overlapping) and ``offset`` (i64) into ``buffer``.

    ``buffer`` is u8 over the report itself (usually a mapped file), so a kernel reads words without Python.
    """

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    offset: NDArray[np.int64]
    buffer: NDArray[np.uint8]

    @classmethod
    def empty(cls) -> MemoryMap:
        """Return a map that holds nothing."""
        return cls(*_EMPTY)

    @classmethod
    def from_ranges(cls, ranges: Sequence[tuple[int, int, int]], buffer: NDArray[np.uint8]) -> MemoryMap:
        """Build from (address, size, offset) triples in any order.

        A range outside the buffer is cut to what the buffer holds; where ranges overlap, the part of a later one
        that an earlier one (by address) covers is dropped.
        """
        kept: list[tuple[int, int, int]] = []
        limit = len(buffer)
        previous_end = 0
        for address, size, offset in sorted(ranges):
            if offset < 0 or offset >= limit or size <= 0 or address < 0:
                continue
            end = min(address + min(size, limit - offset), 0xFFFF_FFFF_FFFF_FFFF)
            start = max(address, previous_end)
            if start >= end:
                continue
            kept.append((start, end, offset + start - address))
            previous_end = end
        if not kept:
            found = cls.empty()
            found.buffer = buffer
            return found
        columns = list(zip(*kept, strict=True))
        return cls(
            np.array(columns[0], np.uint64),
            np.array(columns[1], np.uint64),
            np.array(columns[2], np.int64),
            buffer,
        )

    def read(self, address: int, size: int) -> bytes | None:
        """Return ``size`` bytes at ``address``, None where they are not wholly in one range."""
        if not 0 <= address <= 0xFFFF_FFFF_FFFF_FFFF:
            return None
        i = int(np.searchsorted(self.start, np.uint64(address), side="right")) - 1
        if i < 0 or address + size > int(self.end[i]):
            return None
        at = int(self.offset[i]) + address - int(self.start[i])
        return self.buffer[at : at + size].tobytes()


@dataclass(slots=True)
class Regions:
    """The process's mappings: ``start``/``end`` (u64, sorted) and ``access`` (u8: 1 read, 2 write, 4 execute)."""

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    access: NDArray[np.uint8]

    @classmethod
    def from_ranges(cls, ranges: Sequence[tuple[int, int, int]]) -> Regions:
        """Build from (start, end, access) triples in any order; empty and impossible ones are dropped."""
        kept = sorted(r for r in ranges if 0 <= r[0] < r[1] <= 0xFFFF_FFFF_FFFF_FFFF)
        columns = list(zip(*kept, strict=True)) or [(), (), ()]
        return cls(np.array(columns[0], np.uint64), np.array(columns[1], np.uint64), np.array(columns[2], np.uint8))


@dataclass(slots=True)
class RawFrame:
    """A frame that the report itself lists (nothing was unwound by us).

    ``is_return_address`` is data: formats differ in whether the address they print was already moved back into the
    call instruction. Frames of managed languages have no address. ``reported`` is what the report says of the frame;
    what our own look-up finds takes its place.
    """

    instruction_addr: int | None
    is_return_address: bool = False
    reported: Frame | None = None


@dataclass(slots=True)
class RawThread:
    """A thread: registers to unwind from, or ``frames`` (innermost first) where the report has them already."""

    id: int
    name: str | None = None
    crashed: bool = False
    registers: Registers | None = None
    frames: list[RawFrame] | None = None


@dataclass(slots=True)
class RawException:
    """Why the process stopped: ``type`` is a short name (SIGSEGV), ``code`` its number as the report has it.

    In a chain the root cause is last.
    """

    type: str | None
    value: str = ""
    code: int | None = None
    address: int | None = None
    mechanism: str | None = None
    thread_id: int | None = None
    frames: list[RawFrame] | None = None
    """The stack the exception itself carries, innermost first, where the format has one."""
    access: str | None = None
    """What was done at ``address``, where the report tells: read, write or execute."""
    address_hidden: bool = False
    """An access to memory failed in a way in which the processor tells no address: ``address`` only stands for one."""
    module: str | None = None
    """Where ``type`` is defined, in a managed language, where ``type`` doesn't say so itself."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else a client says of how it was caught: handled, synthetic, ids in a group of exceptions."""


@dataclass(slots=True)
class RawCrash:
    """Everything one report said. ``diagnostics`` says what could not be read."""

    format: str
    platform: str = "native"
    arch: Arch = Arch.UNKNOWN
    os_name: str | None = None
    os_version: str | None = None
    os_build: str | None = None
    timestamp: float | None = None
    event_id: str | None = None
    process_name: str | None = None
    pid: int | None = None
    uptime_s: float | None = None
    exceptions: list[RawException] = field(default_factory=list)
    threads: list[RawThread] = field(default_factory=list)
    modules: list[Module] = field(default_factory=list)
    unloaded_modules: list[Module] = field(default_factory=list)
    memory: MemoryMap = field(default_factory=MemoryMap.empty)
    regions: Regions | None = None
    address_mask: int | None = None
    """Bits of a code address that are no pointer-authentication code, where the report says so."""
    level: str | None = None
    """How bad it is, where the report says so; by default ``fatal`` where a thread crashed."""
    message: str | None = None
    title: str | None = None
    """What the client wants it to be called."""
    grouping: list[str] | None = None
    """The client's own fingerprint, verbatim: its parts, where it has several."""
    release: str | None = None
    environment: str | None = None
    mappings: list[str] = field(default_factory=list)
    """Debug ids of the ProGuard or R8 mappings by which Java frames were renamed, where the report names them."""
    tags: dict[str, str] = field(default_factory=dict)
    user: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    attachments: list[Attachment] = field(default_factory=list)
    """Files inside the report itself."""
    attributes: dict[str, Any] = field(default_factory=dict)
    payload: dict[str, Any] | bytes | memoryview | None = None
    """What an error tracker's client sent, as JSON or decoded: some fingerprints are computed from just that."""
    diagnostics: list[Diagnostic] = field(default_factory=list)
