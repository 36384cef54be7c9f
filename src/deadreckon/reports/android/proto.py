"""Tombstones as debuggerd writes them since Android 12: a protobuf message.

Source: AOSP ``system/core/debuggerd/proto/tombstone.proto``; field names and numbers are from there. In proto3 what is
missing has its default. Fields from 1000 on are device makers' own and not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deadreckon.errors import Malformed
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import Arch
from deadreckon.reports.android.dump import BacktraceFrame, Dump, MemoryMapping, Stack, ThreadDump
from deadreckon.wire.protobuf import Kind, Wire, many, one

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits

__all__ = ["read_proto"]

_ARCHES = (Arch.ARM, Arch.ARM64, Arch.X86, Arch.X86_64)
_MAX_FIELDS = 4 << 20
_MAX_PIECES = 256
_MAX_FRAMES = 200_000
"""Of all threads together; debuggerd gives a thread 256 at most."""


@dataclass(slots=True)
class _Register:
    name: str | None = one(1, Kind.TEXT)
    u64: int | None = one(2, Kind.UINT)


@dataclass(slots=True)
class _Frame:
    rel_pc: int | None = one(1, Kind.UINT)
    pc: int | None = one(2, Kind.UINT)
    function_name: str | None = one(4, Kind.TEXT)
    function_offset: int | None = one(5, Kind.UINT)
    file_name: str | None = one(6, Kind.TEXT)
    file_map_offset: int | None = one(7, Kind.UINT)
    build_id: str | None = one(8, Kind.TEXT)


@dataclass(slots=True)
class _MemoryDump:
    begin_address: int | None = one(3, Kind.UINT)
    memory: memoryview | None = one(4, Kind.BYTES)


@dataclass(slots=True)
class _Thread:
    id: int | None = one(1, Kind.INT)
    name: str | None = one(2, Kind.TEXT)
    registers: list[_Register] = many(3, _Register)
    current_backtrace: list[_Frame] = many(4, _Frame)
    memory_dump: list[_MemoryDump] = many(5, _MemoryDump)
    backtrace_note: list[str] = many(7, Kind.TEXT)
    unreadable_elf_files: list[str] = many(9, Kind.TEXT)


@dataclass(slots=True)
class _ThreadEntry:
    """An entry of a map field."""

    key: int | None = one(1, Kind.UINT)
    value: _Thread | None = one(2, _Thread)


@dataclass(slots=True)
class _Mapping:
    begin_address: int | None = one(1, Kind.UINT)
    end_address: int | None = one(2, Kind.UINT)
    offset: int | None = one(3, Kind.UINT)
    read: bool | None = one(4, Kind.BOOL)
    write: bool | None = one(5, Kind.BOOL)
    execute: bool | None = one(6, Kind.BOOL)
    mapping_name: str | None = one(7, Kind.TEXT)
    build_id: str | None = one(8, Kind.TEXT)


@dataclass(slots=True)
class _Signal:
    number: int | None = one(1, Kind.INT)
    name: str | None = one(2, Kind.TEXT)
    code: int | None = one(3, Kind.INT)
    code_name: str | None = one(4, Kind.TEXT)
    has_sender: bool | None = one(5, Kind.BOOL)
    sender_uid: int | None = one(6, Kind.INT)
    sender_pid: int | None = one(7, Kind.INT)
    has_fault_address: bool | None = one(8, Kind.BOOL)
    fault_address: int | None = one(9, Kind.UINT)


@dataclass(slots=True)
class _HeapObject:
    address: int | None = one(1, Kind.UINT)
    size: int | None = one(2, Kind.UINT)
    allocation_tid: int | None = one(3, Kind.UINT)
    allocation_backtrace: list[_Frame] = many(4, _Frame)
    deallocation_tid: int | None = one(5, Kind.UINT)
    deallocation_backtrace: list[_Frame] = many(6, _Frame)


@dataclass(slots=True)
class _MemoryError:
    heap: _HeapObject | None = one(3, _HeapObject)


@dataclass(slots=True)
class _Cause:
    human_readable: str | None = one(1, Kind.TEXT)
    memory_error: _MemoryError | None = one(2, _MemoryError)


@dataclass(slots=True)
class _CrashDetail:
    name: memoryview | None = one(1, Kind.BYTES)
    data: memoryview | None = one(2, Kind.BYTES)


@dataclass(slots=True)
class _Tombstone:
    arch: int | None = one(1, Kind.UINT)
    build_fingerprint: str | None = one(2, Kind.TEXT)
    revision: str | None = one(3, Kind.TEXT)
    timestamp: str | None = one(4, Kind.TEXT)
    pid: int | None = one(5, Kind.UINT)
    tid: int | None = one(6, Kind.UINT)
    uid: int | None = one(7, Kind.UINT)
    selinux_label: str | None = one(8, Kind.TEXT)
    command_line: list[str] = many(9, Kind.TEXT)
    signal_info: _Signal | None = one(10, _Signal)
    abort_message: str | None = one(14, Kind.TEXT)
    causes: list[_Cause] = many(15, _Cause)
    threads: list[_ThreadEntry] = many(16, _ThreadEntry)
    memory_mappings: list[_Mapping] = many(17, _Mapping)
    process_uptime: int | None = one(20, Kind.UINT)
    crash_details: list[_CrashDetail] = many(21, _CrashDetail)
    page_size: int | None = one(22, Kind.UINT)
    has_been_16kb_mode: bool | None = one(23, Kind.BOOL)
    guest_arch: int | None = one(24, Kind.UINT)
    guest_threads: list[_ThreadEntry] = many(25, _ThreadEntry)


def read_proto(data: memoryview, limits: ReportLimits) -> Dump:
    """Read a tombstone as far as it goes. Raises Malformed where nothing in it tells of a crash."""
    wire = Wire(data, max_fields=_MAX_FIELDS, max_text_bytes=limits.max_string_bytes)
    said = wire.read(_Tombstone)
    problems = wire.diagnostics("tombstone")
    if not said.threads and not said.guest_threads and said.signal_info is None and not said.memory_mappings:
        raise Malformed("tombstone", expected="threads, a signal or memory maps", got=f"{len(data)} bytes without")
    dump = Dump(
        arch=_ARCHES[said.arch or 0] if (said.arch or 0) < len(_ARCHES) else Arch.UNKNOWN,
        build_fingerprint=said.build_fingerprint,
        revision=said.revision,
        timestamp=said.timestamp,
        pid=said.pid,
        tid=said.tid,
        uid=said.uid,
        selinux_label=(said.selinux_label or "").rstrip("\0") or None,
        process_name=said.command_line[0] if said.command_line else None,
        command_line=said.command_line[:1024],
        process_uptime=said.process_uptime,
        page_size=said.page_size,
        abort_message=said.abort_message,
        diagnostics=problems,
    )
    if said.signal_info is not None:
        _signal(said.signal_info, dump)
    if said.has_been_16kb_mode:
        dump.details["has_been_16kb_mode"] = "true"
    for detail in said.crash_details[:64]:
        name, value = (bytes(part or b"")[:1024].decode("utf-8", "replace") for part in (detail.name, detail.data))
        dump.details[f"crash_detail.{name}"] = value
    _threads(said, dump, limits)
    dump.mappings = [_mapping(m) for m in said.memory_mappings[: limits.max_regions]]
    _causes(said.causes, dump)
    return dump


def _signal(signal: _Signal, dump: Dump) -> None:
    dump.signal_number = signal.number
    dump.signal = signal.name or (None if signal.number is None else f"signal {signal.number}")
    dump.code = signal.code_name or (None if signal.code is None else f"code {signal.code}")
    if signal.has_sender:
        dump.sender = f"from pid {signal.sender_pid or 0}, uid {signal.sender_uid or 0}"
    if signal.has_fault_address:
        dump.fault_address = signal.fault_address or 0


def _threads(said: _Tombstone, dump: Dump, limits: ReportLimits) -> None:
    """Take the threads: those of an emulated program where there is one, since that is the program."""
    entries = said.threads
    if said.guest_threads:
        dump.arch = _ARCHES[said.guest_arch or 0] if (said.guest_arch or 0) < len(_ARCHES) else Arch.UNKNOWN
        entries = said.guest_threads
    frames_left = _MAX_FRAMES
    for entry in entries[: limits.max_threads]:
        thread = entry.value or _Thread()
        number = thread.id if thread.id is not None else entry.key or 0
        registers = {r.name: r.u64 or 0 for r in thread.registers if r.name}
        frames = [_frame(f) for f in thread.current_backtrace[:frames_left]]
        frames_left -= len(frames)
        dump.threads.append(ThreadDump(number, thread.name, registers, frames))
        dump.memory += [(m.begin_address or 0, bytes(m.memory)) for m in thread.memory_dump[:_MAX_PIECES] if m.memory]
        if number == dump.tid:
            dump.notes += thread.backtrace_note[:16] + [f"unreadable: {f}" for f in thread.unreadable_elf_files[:16]]
    lost = len(entries) > limits.max_threads or frames_left <= 0
    if lost:
        message = (
            f"the tombstone has {len(entries)} threads; {limits.max_threads} threads and {_MAX_FRAMES} frames are read"
        )
        dump.diagnostics.append(Diagnostic(code="limit_exceeded", severity="warning", stage="read", message=message))


def _frame(frame: _Frame) -> BacktraceFrame:
    return BacktraceFrame(
        frame.rel_pc or 0,
        frame.pc or 0,
        frame.function_name or None,
        (frame.function_offset or 0) if frame.function_name else None,
        frame.file_name or None,
        frame.file_map_offset or 0,
        (frame.build_id or "").lower() or None,
    )


def _mapping(mapping: _Mapping) -> MemoryMapping:
    access = bool(mapping.read) | bool(mapping.write) << 1 | bool(mapping.execute) << 2
    return MemoryMapping(
        mapping.begin_address or 0,
        mapping.end_address or 0,
        mapping.offset or 0,
        access,
        mapping.mapping_name or "",
        (mapping.build_id or "").lower() or None,
    )


def _causes(causes: list[_Cause], dump: Dump) -> None:
    for cause in causes[:16]:
        if cause.human_readable:
            dump.causes.append(cause.human_readable)
        heap = cause.memory_error.heap if cause.memory_error else None
        if heap is None:
            continue
        for verb, thread, frames in (
            ("deallocated", heap.deallocation_tid, heap.deallocation_backtrace),
            ("allocated", heap.allocation_tid, heap.allocation_backtrace),
        ):
            if frames:
                dump.stacks.append(Stack(f"{verb} by thread {thread or 0}", [_frame(f) for f in frames[:1024]]))
