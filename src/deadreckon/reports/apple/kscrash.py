"""KSCrash's JSON reports, and those of the SDKs that grew out of it.

Source: KSCrash, ``KSCrashReportFields.h`` and "KSCrash Report Format". All numbers are decimal. The program that died
wrote the report itself: it may be cut off, and where the reporter died too it holds two, one inside the other.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from deadreckon.errors import Malformed
from deadreckon.model.crash import RawCrash, RawException, RawThread
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import Arch
from deadreckon.reports.apple import facts, listing
from deadreckon.reports.apple.documents import (
    as_address,
    as_dict,
    as_int,
    as_list,
    as_text,
    parse,
    parse_whole,
)
from deadreckon.reports.apple.listing import Image, Images, Listed
from deadreckon.wire.jsontext import plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from mmap import mmap

    from deadreckon.config import ReportLimits
    from deadreckon.model.registers import Registers

__all__ = ["read"]

_ATTRIBUTES = {
    "machine": "machine_model",
    "device_app_hash": "crash_reporter_key",
    "CFBundleExecutablePath": "process_path",
    "parent_process_name": "parent_process",
    "kernel_version": "kernel_version",
    "jailbroken": "jailbroken",
    "build_type": "build_type",
    "proc_translated": "translated",
}


def read(data: bytes | memoryview | mmap, limits: ReportLimits) -> RawCrash:
    """Read a report. Raises Malformed where there is no crash and no image in it, and LimitExceeded."""
    document = parse_whole(memoryview(data), "KSCrash report")
    whole = as_dict(document.value)
    outer, inner = _two_reports(whole)
    crash = _crash(outer, limits)
    if not (crash.threads or crash.exceptions or crash.modules):
        raise Malformed(
            "KSCrash report", expected="crash or binary_images", got=", ".join(list(whole)[:8]) or "nothing"
        )
    if document.problem is not None:
        crash.diagnostics.append(
            Diagnostic(
                code="malformed",
                severity="warning",
                stage="read",
                message=str(document.problem),
                where=document.problem.where() or None,
            )
        )
    if inner:
        _recrash(crash, inner)
    if whole.get("incomplete") or outer.get("incomplete"):
        message = "the reporter did not finish its report"
        crash.diagnostics.append(Diagnostic(code="truncated", severity="warning", stage="read", message=message))
    return crash


def _two_reports(whole: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the report of the program's crash, and that of the reporter's own where it crashed too.

    The reporter writes its own around the first one, as a ``minimal`` report; what reads it turns that inside out.
    """
    other = whole.get("recrash_report")
    if isinstance(other, str):  # It could not be parsed where it was put in.
        other = parse(other).value
    inner = as_dict(other)
    minimal = as_text(as_dict(whole.get("report")).get("type")) == "minimal"
    if minimal and (as_dict(inner.get("crash")) or inner.get("binary_images")):
        return inner, whole
    return whole, inner


def _crash(report: dict[str, Any], limits: ReportLimits) -> RawCrash:
    head, system, told = (as_dict(report.get(k)) for k in ("report", "system", "crash"))
    crash = RawCrash("kscrash")
    images = [
        i for item in as_list(report.get("binary_images"))[: limits.max_modules] if (i := _image(item)) is not None
    ]
    crash.arch = _arch(system, images)
    _describe(crash, head, system)
    threads = [as_dict(t) for t in as_list(told.get("threads"))[: limits.max_threads]]
    if not threads and isinstance(told.get("crashed_thread"), dict):
        threads = [told["crashed_thread"]]
    names = {image.base: image.file for image in images}
    left = listing.MAX_TOTAL_FRAMES
    stacks: list[list[Listed]] = []
    for thread in threads:
        stacks.append(_frames(thread, names)[:left])
        left -= len(stacks[-1])
    if crash.arch is Arch.ARM64:
        _strip_authentication(stacks, images)
    Images(images).place(crash, stacks, limits.max_modules)
    crashed = None
    for position, (thread, frames) in enumerate(zip(threads, stacks, strict=True)):
        index = as_int(thread.get("index"))
        name = as_text(thread.get("name"), 1024) or as_text(thread.get("dispatch_queue"), 1024) or None
        raw = RawThread(position if index is None else index, name, bool(thread.get("crashed")))
        raw.frames = listing.stack(frames, crash.arch, exact=True)
        if frames:  # A thread that could not be looked at has zeroes for registers.
            raw.registers = _registers(crash.arch, as_dict(thread.get("registers")))
        crash.threads.append(raw)
        crashed = raw.id if raw.crashed and crashed is None else crashed
    _exceptions(crash, as_dict(told.get("error")), crashed)
    if diagnosis := as_text(told.get("diagnosis")):
        crash.attributes["diagnosis"] = diagnosis
    if user := as_dict(report.get("user")):
        crash.attributes["user_info"] = plain(user, 8)
    return crash


def _describe(crash: RawCrash, head: dict[str, Any], system: dict[str, Any]) -> None:
    crash.event_id = facts.event_id(as_text(head.get("id")))
    crash.timestamp = _time(head.get("timestamp"))
    crash.process_name = as_text(head.get("process_name") or system.get("process_name"), 1024) or None
    crash.pid = as_int(system.get("process_id"))
    name, version = as_text(system.get("system_name"), 64), as_text(system.get("system_version"), 64)
    facts.operating_system(crash, f"{name} {version}")
    crash.os_build = as_text(system.get("os_version"), 64) or crash.os_build
    started = _time(system.get("app_start_time"))
    if started is not None and crash.timestamp is not None and crash.timestamp >= started:
        crash.uptime_s = round(crash.timestamp - started, 4)
    identifier, short, build = (
        as_text(system.get(k), 256) for k in ("CFBundleIdentifier", "CFBundleShortVersionString", "CFBundleVersion")
    )
    facts.application(crash, identifier, short, build)
    for key, attribute in _ATTRIBUTES.items():
        value = system.get(key)
        if isinstance(value, str) and as_text(value):
            crash.attributes[attribute] = as_text(value)
        elif isinstance(value, bool):
            crash.attributes[attribute] = value
    if (parent := as_int(system.get("parent_process_id"))) is not None:
        crash.attributes["parent_pid"] = parent


def _time(value: Any) -> float | None:
    """Read a time: RFC 3339, or a number of seconds, or of microseconds (since version 3.2)."""
    if isinstance(value, str):
        return facts.timestamp(value)
    number = as_int(value)
    if number is None or number <= 0:
        return None
    return number / 1e6 if number > 1e14 else float(number)


def _arch(system: dict[str, Any], images: list[Image]) -> Arch:
    for found in (
        facts.code_type(as_text(system.get("cpu_arch"), 64)),
        next((i.arch for i in images if i.arch is not Arch.UNKNOWN), Arch.UNKNOWN),
        facts.cpu_arch(as_int(system.get("binary_cpu_type"))),
        facts.cpu_arch(as_int(system.get("cpu_type"))),
    ):
        if found is not Arch.UNKNOWN:
            return found
    return Arch.UNKNOWN


def _image(item: Any) -> Image | None:
    entry = as_dict(item)
    base, size = as_address(entry.get("image_addr")), as_int(entry.get("image_size"))
    if not base:
        return None
    return Image(
        base,
        size if size and size > 0 else None,
        path=as_text(entry.get("name"), 4096),
        uuid=as_text(entry.get("uuid"), 64),
        arch=facts.cpu_arch(as_int(entry.get("cpu_type"))),
        vmaddr=as_address(entry.get("image_vmaddr")) or 0,
    )


def _frames(thread: Mapping[str, Any], names: Mapping[int, str]) -> list[Listed]:
    found = []
    for item in as_list(as_dict(thread.get("backtrace")).get("contents"))[: listing.MAX_FRAMES]:
        entry = as_dict(item)
        address = as_address(entry.get("instruction_addr"))
        if address is None:
            continue
        base, start = as_address(entry.get("object_addr")) or None, as_address(entry.get("symbol_addr"))
        symbol = as_text(entry.get("symbol_name"), 16_384)
        frame = Listed(address, names.get(base or 0) or as_text(entry.get("object_name"), 4096), base)
        if symbol and symbol != "<redacted>":
            frame.function = symbol
            frame.offset = address - start if start and start <= address else None
        found.append(frame)
    return found


def _strip_authentication(stacks: list[list[Listed]], images: list[Image]) -> None:
    """Take pointer-authentication codes off return addresses that lead into an image only without them.

    Old versions left them in on arm64e. macOS signs with 47 address bits, iOS with fewer.
    """
    ranges = sorted((i.base, i.base + i.size) for i in images if i.size)
    bases = [base for base, _ in ranges]

    def inside(address: int) -> bool:
        at = bisect_right(bases, address) - 1
        return at >= 0 and address < ranges[at][1]

    for frame in (f for frames in stacks for f in frames):
        address = frame.address or 0
        if address >> 36 and not inside(address):
            for bits in (47, 36):
                if inside(address & (1 << bits) - 1):
                    frame.address, frame.offset = address & (1 << bits) - 1, None
                    break


def _registers(arch: Arch, told: dict[str, Any]) -> Registers | None:
    both = [*as_dict(told.get("basic")).items(), *as_dict(told.get("exception")).items()]
    values = {as_text(n, 32): v for n, item in both[:128] if (v := as_address(item)) is not None}
    return facts.registers(arch, values) if values else None


def _exceptions(crash: RawCrash, error: dict[str, Any], thread: int | None) -> None:
    """Read ``crash.error``: the signal or Mach exception first, then the exception in the program that led to it."""
    mach, signal = as_dict(error.get("mach")), as_dict(error.get("signal"))
    kind = as_text(error.get("type"), 64)
    address = as_address(error.get("address"))
    mach_type, signo = as_int(mach.get("exception")), as_int(signal.get("signal"))
    name = as_text(signal.get("name"), 64) or facts.signal_name(signo)
    if mach_type:
        codes = [c for c in (as_int(mach.get("code")), as_int(mach.get("subcode"))) if c is not None]
        words = as_text(mach.get("code_name"), 256)
        found = facts.exception(
            as_text(mach.get("exception_name"), 64) or mach_type,
            crash.arch,
            signal=name,
            detail=words,
            codes=codes[:1],
            thread=thread,
        )
        if found.type == "EXC_BAD_ACCESS" and address is not None:
            found.address = address
            found.value = f"{found.value} at {address:#x}"
        crash.exceptions.append(found)
    elif name:
        detail = as_text(signal.get("code_name"), 256)
        found = facts.exception(name, crash.arch, detail=detail, thread=thread)
        if detail and address:
            found.address, found.value = address, f"{detail} at {address:#x}"
        crash.exceptions.append(found)
    cause = _cause(error, kind, thread)
    if cause is not None:
        crash.exceptions.append(cause)
    elif kind and not crash.exceptions:
        crash.exceptions.append(
            RawException(kind, as_text(error.get("reason")), address=address, mechanism=kind, thread_id=thread)
        )
    if thread is None and kind == "user":
        crash.level = "error"


def _cause(error: dict[str, Any], kind: str, thread: int | None) -> RawException | None:
    """Return the exception of a language: Objective-C's, C++'s, or one that the program reported itself."""
    for key in ("nsexception", "cpp_exception", "user_reported"):
        told = as_dict(error.get(key))
        name = as_text(told.get("name"), 1024)
        if name or (told and kind in {key, "user"}):
            reason = as_text(told.get("reason")) or as_text(error.get("reason"))
            return RawException(name or None, reason, mechanism=key.replace("_", "-"), thread_id=thread)
    if kind == "deadlock":
        return RawException("Deadlock", as_text(error.get("reason")), mechanism=kind, thread_id=thread)
    return None


def _recrash(crash: RawCrash, report: dict[str, Any]) -> None:
    """Say of the reporter's own crash why and where it was, in few words."""
    told = as_dict(report.get("crash"))
    error = as_dict(told.get("error"))
    mach, signal = as_dict(error.get("mach")), as_dict(error.get("signal"))
    thread = as_dict(told.get("crashed_thread"))
    why = [as_text(mach.get("exception_name")), as_text(mach.get("code_name")), as_text(signal.get("name"))]
    frames = [
        {"instruction_addr": hex(f.address or 0), "package": f.image, "function": f.function}
        for f in _frames(thread, {})[:64]
    ]
    crash.attributes["recrash"] = {
        "reason": " ".join(filter(None, why)),
        "thread": as_int(thread.get("index")),
        "diagnosis": as_text(told.get("diagnosis")),
        "frames": frames,
    }
