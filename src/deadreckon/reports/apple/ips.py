"""Apple's ``.ips`` files: a JSON header on one line, then the report as a second JSON document or as text.

Source: Apple, "Interpreting the JSON format of a crash report". ``bug_type`` 309 (since iOS 15 and macOS 12) is JSON,
109 (before) is text; panics, stackshots and reports of used-up resources come under the same extension with the same
header. Users add to it: the translation of the report above it ("Translated Report"), the machine's data below it, or
they keep the second document only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from deadreckon.errors import Malformed, Unsupported
from deadreckon.model.crash import RawCrash, RawException, RawThread
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import Arch
from deadreckon.reports.apple import facts, kernel, listing, text
from deadreckon.reports.apple.documents import as_address, as_dict, as_int, as_list, as_text, decode_text, parse
from deadreckon.reports.apple.listing import Image, Images, Listed

if TYPE_CHECKING:
    from mmap import mmap

    from deadreckon.config import ReportLimits

__all__ = ["read"]

_BUG_TYPES = {
    "10": "panic",
    "110": "panic",
    "145": "disk writes",
    "142": "wakeups",
    "151": "panic",
    "202": "CPU usage",
    "206": "CPU usage",
    "210": "panic",
    "228": "hang",
    "288": "stackshot",
    "298": "jetsam",
    "308": "OS fault",
    "309": "crash",
    "385": "resource",
}
_ATTRIBUTES = {
    "modelCode": "machine_model",
    "crashReporterKey": "crash_reporter_key",
    "procPath": "process_path",
    "procRole": "role",
    "coalitionName": "coalition",
    "parentProc": "parent_process",
    "responsibleProc": "responsible_process",
    "vmRegionInfo": "vm_region_info",
    "vmregioninfo": "vm_region_info",
    "ktriageinfo": "kernel_triage",
    "sip": "system_integrity_protection",
    "translated": "translated",
    "isCorpse": "corpse",
    "exceptionNote": "exception_note",
}
_HEADER_LINE = re.compile(r"^[ \t]*(\{)", re.MULTILINE)
_NO_IMAGE = {"", "00000000-0000-0000-0000-000000000000"}


def read(data: bytes | memoryview | mmap, limits: ReportLimits) -> RawCrash:
    """Read an ``.ips`` file of either generation.

    Raises Malformed where neither a header nor a report can be read, Unsupported for kinds of reports without a stack
    (jetsam, usage statistics), and LimitExceeded.
    """
    source = decode_text(memoryview(data), "Apple .ips report")
    match = _HEADER_LINE.search(source)
    if match is None:
        raise Malformed("Apple .ips report", offset=0, expected="a JSON header", got=repr(source[:24]))
    head = parse(source, match.start(1))
    header, problems = as_dict(head.value), [head.problem]
    body: dict[str, Any] = {}
    if _is_body(header):
        header, body = {}, header
    else:
        rest = head.end + len(source[head.end :]) - len(source[head.end :].lstrip())
        if source[rest : rest + 1] == "{":
            document = parse(source, rest)
            body = as_dict(document.value)
            problems.append(document.problem)
        elif rest < len(source):
            return _text(source[rest:], header, limits)
    if not _is_body(body) and match.start() > 0:
        # The translation above it is whole when the end of the file is not.
        return _text(source[: match.start()], header, limits)
    crash = _report(header, body, limits)
    for problem in filter(None, problems):
        crash.diagnostics.append(
            Diagnostic(
                code="malformed", severity="warning", stage="read", message=str(problem), where=problem.where() or None
            )
        )
    return crash


def _is_body(value: dict[str, Any]) -> bool:
    keys = ("threads", "usedImages", "exception", "panicString", "processByPid", "procName", "lastExceptionBacktrace")
    return any(k in value for k in keys)


def _text(source: str, header: dict[str, Any], limits: ReportLimits) -> RawCrash:
    """Read a report of the first generation: text, of which the header repeats a part under names of its own."""
    crash = text.parse(source, limits)
    crash.format = "apple-ips"
    _from_header(crash, header)
    return crash


def _from_header(crash: RawCrash, header: dict[str, Any]) -> None:
    """Fill in what only the header says."""
    crash.event_id = crash.event_id or facts.event_id(as_text(header.get("incident_id")))
    crash.process_name = crash.process_name or as_text(header.get("name") or header.get("app_name")) or None
    if crash.timestamp is None:
        crash.timestamp = facts.timestamp(as_text(header.get("timestamp")))
    if crash.os_name is None:
        facts.operating_system(crash, as_text(header.get("os_version")))
    names = ("bundleID", "app_version", "build_version")
    if any(as_text(header.get(n)) for n in names) and "app_version" not in crash.attributes:
        facts.application(crash, *(as_text(header.get(n), 256) for n in names))
    if bug_type := as_text(header.get("bug_type")):
        crash.attributes["bug_type"] = bug_type


def _report(header: dict[str, Any], body: dict[str, Any], limits: ReportLimits) -> RawCrash:
    bug_type = as_text(header.get("bug_type") or body.get("bug_type"))
    if kernel.is_panic(body):
        crash = kernel.panic(body, limits)
    elif "processByPid" in body:
        crash = kernel.stackshot(body, limits)
    elif _is_body(body) or not body:
        crash = _crash(body, limits)
    else:
        kind = _BUG_TYPES.get(bug_type, "unknown kind")
        raise Unsupported(f"Apple report of bug type {bug_type or '?'} ({kind}): it holds no stack")
    crash.format = "apple-ips"
    _from_header(crash, header)
    if not body and not crash.threads:
        if not (crash.event_id or crash.process_name or bug_type):
            raise Malformed("Apple .ips report", expected="a header or a report", got="neither")
        crash.diagnostics.append(
            Diagnostic(code="truncated", severity="warning", stage="read", message="the report ends after its header")
        )
    return crash


def _crash(body: dict[str, Any], limits: ReportLimits) -> RawCrash:
    crash = RawCrash("apple-ips", arch=facts.code_type(as_text(body.get("cpuType"))))
    system = as_dict(body.get("osVersion"))
    facts.operating_system(crash, as_text(system.get("train")))
    crash.os_build = as_text(system.get("build")) or crash.os_build
    crash.event_id = facts.event_id(as_text(body.get("incident")))
    crash.process_name = as_text(body.get("procName")) or None
    crash.pid = as_int(body.get("pid"))
    crash.timestamp = facts.timestamp(as_text(body.get("captureTime")))
    launched = facts.timestamp(as_text(body.get("procLaunch")))
    if crash.timestamp is not None and launched is not None and crash.timestamp >= launched:
        crash.uptime_s = round(crash.timestamp - launched, 4)
    bundle = as_dict(body.get("bundleInfo"))
    names = ("CFBundleIdentifier", "CFBundleShortVersionString", "CFBundleVersion")
    facts.application(crash, *(as_text(bundle.get(n), 256) for n in names))
    _attributes(crash, body)
    images = [_image(item) for item in as_list(body.get("usedImages"))[: limits.max_modules]]
    if crash.arch is Arch.UNKNOWN:
        crash.arch = next((i.arch for i in images if i and i.arch is not Arch.UNKNOWN), Arch.UNKNOWN)
    threads = [as_dict(t) for t in as_list(body.get("threads"))[: limits.max_threads]]
    left = listing.MAX_TOTAL_FRAMES
    stacks = []
    for thread in threads:
        stacks.append(_frames(as_list(thread.get("frames"))[:left], images))
        left -= len(stacks[-1])
    last = _frames(body.get("lastExceptionBacktrace"), images)
    named = [i for i in images if i is not None and i.base and (i.file or i.uuid)]
    others = [text.call_stack(as_text(s)) for s in as_list(body.get("asiBacktraces"))[:16]]
    Images(named).place(crash, [*stacks, last, *others], limits.max_modules)
    crashed = _faulting(body, threads)
    for number, (thread, frames) in enumerate(zip(threads, stacks, strict=True)):
        raw = RawThread(number, as_text(thread.get("name")) or as_text(thread.get("queue")) or None, number == crashed)
        raw.frames = listing.stack(frames, crash.arch, exact=True)
        raw.registers = _registers(crash, as_dict(thread.get("threadState")))
        crash.threads.append(raw)
    _exceptions(crash, body, crashed, last or next((s for s in others if s), []))
    lost = sum(f.address is None for s in (*stacks, last) for f in s)
    if lost:
        crash.diagnostics.append(
            Diagnostic(
                code="malformed",
                severity="warning",
                stage="read",
                message=f"{lost} frames name no image of the report",
                where={"expected": f"imageIndex below {len(images)}", "frames": lost},
            )
        )
    return crash


def _attributes(crash: RawCrash, body: dict[str, Any]) -> None:
    for key, name in _ATTRIBUTES.items():
        value = body.get(key)
        if isinstance(value, str) and as_text(value):
            crash.attributes[name] = as_text(value)
        elif isinstance(value, bool | int) and value:
            crash.attributes[name] = True
    for name, key in (("parent_pid", "parentPid"), ("responsible_pid", "responsiblePid")):
        if (number := as_int(body.get(key))) is not None:
            crash.attributes[name] = number
    if reason := _termination(as_dict(body.get("termination"))):
        crash.attributes["termination_reason"] = reason
    told = _texts(body.get("asi"))
    if told:
        crash.attributes["application_specific_information"] = told


def _termination(termination: dict[str, Any]) -> str:
    """Return "TCC 0" or "SIGNAL 6 Abort trap: 6", and below it the details: as text reports have it."""
    space, indicator = as_text(termination.get("namespace")), as_text(termination.get("indicator"))
    code = as_int(termination.get("code"))
    first = " ".join(filter(None, (space, "" if code is None else str(code), indicator)))
    return "\n".join(filter(None, (first, _texts(termination.get("reasons")), _texts(termination.get("details")))))


def _texts(value: Any) -> str:
    """Return the texts in a value that maps images to lists of them, or lists them."""
    rows = value.values() if isinstance(value, dict) else [value]
    found = [as_text(t) for row in list(rows)[:256] for t in (as_list(row)[:256] or [row])]
    return "\n".join(filter(None, found))[:65_536]


def _image(item: Any) -> Image | None:
    """Read one of ``usedImages``; None for the entry that stands for "no image" and for what can't be used."""
    entry = as_dict(item)
    base = as_address(entry.get("base"))
    if base is None:
        return None
    uuid = as_text(entry.get("uuid"), 64)
    name, path = as_text(entry.get("name"), 4096), as_text(entry.get("path"), 4096)
    size = as_int(entry.get("size"))
    if uuid in _NO_IMAGE and not name and not path:
        # Of source "A": absolute addresses, or code that a program made at run time.
        return Image(base, 0)
    version = as_text(entry.get("CFBundleShortVersionString") or entry.get("CFBundleVersion"), 256) or None
    arch = Arch.parse(as_text(entry.get("arch"), 64))
    return Image(base, size if size and size > 0 else None, name, path, uuid, arch, version)


def _frames(value: Any, images: list[Image | None]) -> list[Listed]:
    """Read a stack: ``address = usedImages[imageIndex].base + imageOffset``."""
    found = []
    entries = [as_dict(f) for f in as_list(value)[: listing.MAX_FRAMES]]
    for entry in entries:
        index, offset = as_int(entry.get("imageIndex")), as_address(entry.get("imageOffset"))
        image = images[index] if index is not None and 0 <= index < len(images) else None
        frame = Listed(None, function=as_text(entry.get("symbol"), 16_384) or None)
        frame.offset = as_int(entry.get("symbolLocation")) if frame.function else None
        if image is not None and offset is not None:
            frame.address = image.base + offset & 0xFFFF_FFFF_FFFF_FFFF
            frame.image = image.file
            frame.base = image.base if image.uuid else None
        file = as_text(entry.get("sourceFile"), 4096)
        line = as_int(entry.get("sourceLine"))
        if file and not file.endswith("<compiler-generated>"):
            frame.file = file
            frame.line = line if line is not None and 0 < line < 1 << 31 else None
        frame.inline = bool(entry.get("inline"))
        found.append(frame)
    for at, frame in enumerate(found):
        below = found[at + 1] if at + 1 < len(found) else None
        # Where the frame that it was inlined into is missing, it has to stand for itself.
        frame.inline = frame.inline and below is not None and below.address == frame.address
    return found


def _faulting(body: dict[str, Any], threads: list[dict[str, Any]]) -> int | None:
    index = as_int(body.get("faultingThread"))
    if index is not None and 0 <= index < len(threads):
        return index
    return next((i for i, t in enumerate(threads) if t.get("triggered")), None)


def _registers(crash: RawCrash, state: dict[str, Any]) -> Any:
    """Read ``threadState``; what explains a fault goes into the attributes."""
    if not state:
        return None
    values: dict[str, int] = {}
    for number, entry in enumerate(as_list(state.get("x") or state.get("r"))[:31]):
        if (value := as_address(as_dict(entry).get("value"))) is not None:
            values[f"{'x' if crash.arch is Arch.ARM64 else 'r'}{number}"] = value
    for name, entry in list(state.items())[:64]:
        if (value := as_address(as_dict(entry).get("value"))) is not None:
            values[name] = value
            words = as_text(as_dict(entry).get("description"), 256)
            if name == "esr" and words:
                crash.attributes[name] = f"{value:#x} {words}"
    return facts.registers(crash.arch, values)


def _exceptions(crash: RawCrash, body: dict[str, Any], thread: int | None, last: list[Listed]) -> None:
    told = as_dict(body.get("exception"))
    kind = as_text(told.get("type"), 256) or as_text(told.get("signal"), 256)
    if kind:
        words = as_text(told.get("codes"), 1024)
        raw = [c for c in map(as_int, as_list(told.get("rawCodes"))[:4]) if c is not None]
        codes = raw or [int(c, 16) for c in re.findall(r"\b0x[0-9a-fA-F]{1,16}\b", words)]
        crash.exceptions.append(
            facts.exception(
                kind,
                crash.arch,
                signal=as_text(told.get("signal"), 256),
                detail=as_text(told.get("subtype"), 4096),
                codes=codes,
                thread=thread,
            )
        )
        if words:
            crash.attributes["exception_codes"] = words
        if signal := as_text(told.get("signal"), 256):
            crash.attributes["signal"] = signal
        if message := as_text(told.get("message")):
            crash.attributes["exception_message"] = message
    information = str(crash.attributes.get("application_specific_information", ""))
    cause = as_dict(body.get("exceptionReason"))
    name = as_text(cause.get("name") or cause.get("class"), 256)
    found = (name, as_text(cause.get("composed_message"))) if name else facts.uncaught(information)
    if found is not None or last:
        frames = listing.stack(last, crash.arch, exact=False) or None
        crash.exceptions.append(
            RawException(
                found[0] if found else None,
                found[1] if found else "",
                mechanism="nsexception",
                thread_id=thread,
                frames=frames,
            )
        )
    else:
        crash.message = facts.message(crash)
