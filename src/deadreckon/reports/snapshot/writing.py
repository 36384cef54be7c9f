"""A crash as a snapshot."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec

from deadreckon.errors import LimitExceeded
from deadreckon.model.event import OsInfo, ProcessInfo
from deadreckon.model.ids import Arch
from deadreckon.reports.snapshot.document import (
    ACCESS,
    MAX_MEMORY,
    SCHEMA,
    ExceptionEntry,
    MemoryEntry,
    ModuleEntry,
    Origin,
    RegionEntry,
    Report,
    ThreadEntry,
)
from deadreckon.wire.snapshot import write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

    from deadreckon.model.crash import Module, RawCrash, RawThread, Regions

__all__ = ["dump"]


def dump(
    file: BinaryIO,
    crash: RawCrash,
    memory: Sequence[tuple[int, bytes]],
    *,
    origin: Origin,
    attachments: Iterable[tuple[str, bytes]] = (),
) -> None:
    """Write a crash with the memory given, (address, bytes) by address, and files to travel along.

    Frames that the report itself lists are not written: a snapshot is of what can be unwound. ``file`` must be able
    to seek. Raises LimitExceeded beyond MAX_MEMORY.
    """
    held = sum(len(data) for _, data in memory)
    if held > MAX_MEMORY:
        raise LimitExceeded("snapshot.max_memory", MAX_MEMORY, held)
    report = Report(
        schema=SCHEMA,
        event_id=crash.event_id or (origin.sha256 or "")[:32] or None,
        origin=origin,
        timestamp=_rfc3339(crash.timestamp),
        platform=crash.platform,
        arch=str(crash.arch),
        level=crash.level,
        message=crash.message,
        release=crash.release,
        environment=crash.environment,
        os=OsInfo(name=crash.os_name, version=crash.os_version, build=crash.os_build),
        process=ProcessInfo(name=crash.process_name, pid=crash.pid, uptime_s=crash.uptime_s),
        address_mask=_hex(crash.address_mask),
        exceptions=[
            ExceptionEntry(
                type=e.type,
                value=e.value,
                code=_hex(e.code),
                address=_hex(e.address),
                access=e.access,
                address_hidden=e.address_hidden,
                mechanism=e.mechanism,
                thread_id=e.thread_id,
            )
            for e in crash.exceptions
        ],
        threads=[
            ThreadEntry(
                id=t.id, name=t.name, crashed=t.crashed, registers=t.registers.as_hex() if t.registers else None
            )
            for t in crash.threads
        ],
        modules=[_told(m) for m in crash.modules],
        unloaded_modules=[_told(m) for m in crash.unloaded_modules],
        memory=_ranges(memory),
        regions=_regions(crash.regions),
        attributes=crash.attributes,
        tags=crash.tags,
        diagnostics=crash.diagnostics,
    )
    text = msgspec.json.format(msgspec.json.encode(report), indent=1)
    content = b"".join(data for _, data in memory)
    images = [(_member(m), m.contents) for m in crash.modules if m.contents is not None]
    named = ((f"attachments/{name}", data) for name, data in attachments)
    write(file, [("report.json", text), ("memory.bin", content), *images, *named])


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


def _rfc3339(seconds: float | None) -> str | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def _thread(thread: RawThread) -> ThreadEntry:
    registers = None if thread.registers is None else thread.registers.as_hex()
    return ThreadEntry(id=thread.id, name=thread.name, crashed=thread.crashed, registers=registers)


def _ranges(memory: Sequence[tuple[int, bytes]]) -> list[MemoryEntry]:
    offsets = accumulate((len(data) for _, data in memory), initial=0)
    return [MemoryEntry(hex(start), len(data), at) for (start, data), at in zip(memory, offsets, strict=False)]


def _told(module: Module) -> ModuleEntry:
    return ModuleEntry(
        image_addr=hex(module.image_addr),
        image_size=module.image_size,
        image_vmaddr=_hex(module.image_vmaddr or None),
        code_file=module.code_file,
        code_id=module.code_id,
        debug_file=module.debug_file,
        debug_id=module.debug_id,
        arch=str(module.arch) if module.arch != Arch.UNKNOWN else None,
        version=module.version,
        file_offset=module.file_offset,
        contents=None if module.contents is None else _member(module),
    )


def _member(module: Module) -> str:
    return f"images/{module.image_addr:x}"


def _regions(regions: Regions | None) -> list[RegionEntry] | None:
    """Return the mappings, with neighbours of one access as one."""
    if regions is None:
        return None
    joined: list[list[int]] = []
    for start, end, access in zip(*(c.tolist() for c in (regions.start, regions.end, regions.access)), strict=True):
        if joined and joined[-1][1:] == [start, access]:
            joined[-1][1] = end
        else:
            joined.append([start, end, access])
    return [
        RegionEntry(hex(start), hex(end), "".join(c if access >> bit & 1 else "-" for bit, c in enumerate(ACCESS)))
        for start, end, access in joined
    ]
