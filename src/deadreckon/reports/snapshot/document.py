"""``report.json`` of a snapshot, as types; see docs/snapshot.md for what each member means."""

from __future__ import annotations

from typing import Any

import msgspec

from deadreckon.model.event import Diagnostic, OsInfo, ProcessInfo  # noqa: TC001  (msgspec reads annotations)

__all__ = [
    "ACCESS",
    "MAX_MEMORY",
    "SCHEMA",
    "ExceptionEntry",
    "MemoryEntry",
    "ModuleEntry",
    "Origin",
    "RegionEntry",
    "Report",
    "ThreadEntry",
]

SCHEMA = "deadreckon.snapshot/1"
MAX_MEMORY = 256 << 20
"""Bytes of memory in one snapshot: it is stacks, not heaps."""
ACCESS = "rwx"
"""Letters of a mapping's access, by bit."""

Address = str


class Origin(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What the snapshot was made from."""

    format: str
    name: str | None = None
    size: int | None = None
    sha256: str | None = None


class ThreadEntry(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A thread; registers by name, as an event shows them."""

    id: int
    name: str | None = None
    crashed: bool = False
    registers: dict[str, Address] | None = None


class ExceptionEntry(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Why the process stopped."""

    type: str | None = None
    value: str = ""
    code: Address | None = None
    address: Address | None = None
    access: str | None = None
    address_hidden: bool = False
    mechanism: str | None = None
    thread_id: int | None = None


class ModuleEntry(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An image that was mapped into the process."""

    image_addr: Address
    image_size: int
    image_vmaddr: Address | None = None
    code_file: str = ""
    code_id: str | None = None
    debug_file: str | None = None
    debug_id: str | None = None
    arch: str | None = None
    version: str | None = None
    file_offset: int = 0
    contents: str | None = None
    """The member that has the image's file."""


class MemoryEntry(msgspec.Struct):
    """Captured memory."""

    start: Address
    size: int
    offset: int
    """Where in ``memory.bin`` the range begins."""


class RegionEntry(msgspec.Struct):
    """A mapping of the process; ``access`` is three letters of ``rwx-``."""

    start: Address
    end: Address
    access: str


class Report(msgspec.Struct, omit_defaults=True, kw_only=True):
    """``report.json`` as it is written. It is read member by member."""

    schema: str
    event_id: str | None = None
    origin: Origin | None = None
    timestamp: str | None = None
    platform: str = "native"
    arch: str
    level: str | None = None
    message: str | None = None
    release: str | None = None
    environment: str | None = None
    os: OsInfo
    process: ProcessInfo
    address_mask: Address | None = None
    exceptions: list[ExceptionEntry]
    threads: list[ThreadEntry]
    modules: list[ModuleEntry]
    unloaded_modules: list[ModuleEntry] = []
    memory: list[MemoryEntry]
    regions: list[RegionEntry] | None = None
    attributes: dict[str, Any] = {}
    tags: dict[str, str] = {}
    diagnostics: list[Diagnostic] = []
