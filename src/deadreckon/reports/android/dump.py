"""What a tombstone says, whichever way it was written, and a RawCrash made of it.

Source: AOSP ``system/core/debuggerd/proto/tombstone.proto``, whose names these are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from deadreckon.model.crash import MemoryMap, RawCrash, RawException, RawFrame, RawThread, Regions
from deadreckon.model.event import Diagnostic, Frame
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.reports.android.images import Images
from deadreckon.reports.java import java_frame

__all__ = [
    "BacktraceFrame",
    "Dump",
    "MemoryMapping",
    "SanitizerError",
    "Stack",
    "ThreadDump",
    "crash_of",
    "platform_of",
    "raw_frame",
    "unix_time",
]

_FINGERPRINT = re.compile(r"[^/\s]+/[^/\s]+/[^/:\s]+:([^/\s]+)/([^/\s]+)/\S+")
"""``brand/product/device:release/id/incremental:type/tags``, as android.os.Build documents it."""
_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.\d{1,12})?\s*([+-]\d\d):?(\d\d)")
_JAVA = re.compile(r"(?:[^\W\d][\w$-]*\.)+(?:[^\W\d][\w$-]*|<init>|<clinit>)")
_MANAGED = (".jar", ".dex", ".vdex", ".odex", ".oat", ".apk", ".art")
_JIT = ("<anonymous:", "[anon:dalvik", "[anon_shmem:dalvik", "/memfd:jit-", "/dev/ashmem/dalvik", "/memfd:/jit-")


@dataclass(slots=True)
class BacktraceFrame:
    """A frame: ``rel_pc`` counts as the file was linked, ``pc`` is the address where the report has it."""

    rel_pc: int
    pc: int | None = None
    function_name: str | None = None
    function_offset: int | None = None
    file_name: str | None = None
    file_map_offset: int = 0
    build_id: str | None = None


@dataclass(slots=True)
class MemoryMapping:
    """A mapping of the process; ``end`` is exclusive, ``access`` 1 read, 2 write, 4 execute."""

    begin: int
    end: int
    offset: int
    access: int
    mapping_name: str
    build_id: str | None = None


@dataclass(slots=True)
class ThreadDump:
    """A thread with its registers and stack, innermost first."""

    id: int
    name: str | None = None
    registers: dict[str, int] = field(default_factory=dict)
    frames: list[BacktraceFrame] = field(default_factory=list)


@dataclass(slots=True)
class Stack:
    """A stack that is no thread's own: where memory was allocated or freed, where a sanitizer found an error."""

    caption: str
    frames: list[BacktraceFrame] = field(default_factory=list)


@dataclass(slots=True)
class SanitizerError:
    """What HWASan or another sanitizer wrote as the reason for the abort."""

    mechanism: str
    type: str
    value: str
    address: int | None = None
    frames: list[BacktraceFrame] = field(default_factory=list)


@dataclass(slots=True)
class Dump:
    """A tombstone. ``tid`` is the thread that crashed."""

    arch: Arch = Arch.UNKNOWN
    build_fingerprint: str | None = None
    revision: str | None = None
    timestamp: str | None = None
    pid: int | None = None
    tid: int | None = None
    uid: int | None = None
    selinux_label: str | None = None
    process_name: str | None = None
    command_line: list[str] = field(default_factory=list)
    process_uptime: int | None = None
    page_size: int | None = None
    signal: str | None = None
    signal_number: int | None = None
    code: str | None = None
    sender: str | None = None
    fault_address: int | None = None
    access: str | None = None
    abort_message: str | None = None
    causes: list[str] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)
    threads: list[ThreadDump] = field(default_factory=list)
    mappings: list[MemoryMapping] = field(default_factory=list)
    memory: list[tuple[int, bytes | bytearray]] = field(default_factory=list)
    """What is at some addresses: near those that registers hold."""
    stacks: list[Stack] = field(default_factory=list)
    error: SanitizerError | None = None
    notes: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)


def crash_of(dump: Dump, max_modules: int, form: str = "tombstone") -> RawCrash:
    """Return a tombstone as a crash."""
    images = Images(dump.mappings, dump.arch, max_modules)
    crash = RawCrash(
        form,
        arch=dump.arch,
        os_name="Android",
        timestamp=unix_time(dump.timestamp),
        process_name=dump.process_name,
        pid=dump.pid,
        uptime_s=None if dump.process_uptime is None else float(dump.process_uptime),
        message=dump.abort_message,
        memory=_memory(dump.memory),
        regions=Regions.from_ranges([(m.begin, m.end, m.access) for m in dump.mappings]) if dump.mappings else None,
        diagnostics=dump.diagnostics,
    )
    crash.os_version, crash.os_build = platform_of(dump.build_fingerprint)
    crashed = next((t for t in dump.threads if t.id == dump.tid), None) if dump.tid is not None else None
    if crashed is None and dump.threads and (dump.signal or dump.tid is None):
        crashed = dump.threads[0]
    for thread in dump.threads:
        crash.threads.append(
            RawThread(
                thread.id,
                thread.name or None,
                crashed=thread is crashed,
                registers=_registers(dump.arch, thread.registers),
                frames=[raw_frame(f, images) for f in thread.frames],
            )
        )
    # Where the crashed thread is not the first, people still look for it there.
    crash.threads.sort(key=lambda t: not t.crashed)
    _exceptions(dump, crash, images, crashed.id if crashed else dump.tid)
    crash.modules = images.modules
    crash.attributes = _attributes(dump)
    if images.left_out:
        message = f"{images.left_out} images beyond report.max_modules were left out"
        crash.diagnostics.append(Diagnostic(code="limit_exceeded", severity="warning", stage="read", message=message))
    return crash


def _memory(pieces: list[tuple[int, bytes | bytearray]]) -> MemoryMap:
    ranges = []
    total = 0
    for address, data in pieces:
        ranges.append((address, len(data), total))
        total += len(data)
    return MemoryMap.from_ranges(ranges, np.frombuffer(b"".join(data for _, data in pieces), np.uint8))


def _exceptions(dump: Dump, crash: RawCrash, images: Images, thread: int | None) -> None:
    if dump.signal is not None:
        address, tag = _untagged(dump.arch, dump.fault_address)
        detail = " ".join(part for part in (dump.code, dump.sender) if part)
        value = detail if address is None else f"{detail} at {address:#x}".strip()
        crash.exceptions.append(
            RawException(dump.signal, value, dump.signal_number, address, "tombstone", thread, access=dump.access)
        )
        if tag:
            dump.details["fault_address_tag"] = hex(tag)
    if dump.error is not None:
        found = dump.error
        frames = [raw_frame(f, images) for f in found.frames]
        crash.exceptions.append(
            RawException(found.type, found.value, None, found.address, found.mechanism, thread, frames=frames)
        )
    free = 1 + max((t.id for t in crash.threads), default=0)
    for number, stack in enumerate(dump.stacks, free):
        frames = [raw_frame(f, images) for f in stack.frames]
        crash.threads.append(RawThread(number, stack.caption[:200] or None, frames=frames))


def raw_frame(frame: BacktraceFrame, images: Images) -> RawFrame:
    """Place a frame in the images, with what the report says of it.

    A frame of Java has no place: no debug file knows more of its code than the report.
    """
    name = frame.function_name or None
    reported = Frame(status="symbolicated" if name else "missing_symbol")
    managed = name is not None and _JAVA.fullmatch(name) is not None and _is_managed(frame.file_name or "")
    if name is not None and managed:
        class_name, _, method = name.rpartition(".")
        reported = java_frame(class_name, method)
    elif name is not None and name.startswith(("_Z", "_R")):
        reported.raw_function = name
    else:
        reported.function = name
    reported.package = frame.file_name
    reported.rva = hex(frame.rel_pc)
    reported.instruction_addr = None if frame.pc is None else hex(frame.pc)
    if name is not None and frame.function_offset is not None and frame.pc is not None:
        reported.symbol_addr = hex(max(frame.pc - frame.function_offset, 0))
    address = None if managed else images.place(frame)
    return RawFrame(address, is_return_address=False, reported=reported)


def _is_managed(file_name: str) -> bool:
    path = file_name.partition("!")[0] if file_name.endswith(_MANAGED) else file_name
    return path.removesuffix(" (deleted)").endswith(_MANAGED) or path.startswith(_JIT) or "dalvik-" in path


def _registers(arch: Arch, values: dict[str, int]) -> Registers | None:
    if not values or arch not in REGISTER_SETS:
        return None
    return Registers.from_mapping(arch, values, keep_others=True)


def _untagged(arch: Arch, address: int | None) -> tuple[int | None, int]:
    """Take ARM64's pointer tag off an address: the top byte, where what is below it is an address of a process."""
    if arch is Arch.ARM64 and address is not None and address >> 56 and not address >> 48 & 0xFF:
        return address & 0x00FF_FFFF_FFFF_FFFF, address >> 56
    return address, 0


def platform_of(fingerprint: str | None) -> tuple[str | None, str | None]:
    """Return Android's version and build out of a build fingerprint."""
    match = _FINGERPRINT.fullmatch(fingerprint or "")
    return (match[1], match[2]) if match else (None, None)


def _attributes(dump: Dump) -> dict[str, object]:
    said = {
        "build_fingerprint": dump.build_fingerprint,
        "revision": dump.revision,
        "cmdline": dump.command_line,
        "uid": dump.uid,
        "selinux_label": dump.selinux_label,
        "cause": "; ".join(dump.causes),
        "page_size": dump.page_size,
        "notes": dump.notes,
        **dump.details,
    }
    return {name: value for name, value in said.items() if value not in (None, "", [])}


def unix_time(text: str | None) -> float | None:
    """Read a time as debuggerd and ART write it, with its time zone; None where there is none."""
    match = _TIMESTAMP.search(text or "")
    if match is None:
        return None
    try:
        return datetime.fromisoformat(f"{match[1]}T{match[2]}{match[3]}:{match[4]}").timestamp()
    except (ValueError, OverflowError):
        return None
