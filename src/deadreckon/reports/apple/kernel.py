"""Reports on the whole system: kernel panics, as text or in an ``.ips`` file, and stackshots.

Sources: XNU ``osfmk/kern/debug.c``, ``osfmk/arm/model_dep.c``, ``osfmk/i386/AT386/model_dep.c`` and
``libkern/c++/OSKext.cpp`` (the panic log), ``tools/lldbmacros/kcdata.py`` (the stackshot). The panicked thread is
read, and of a stackshot the process that it is about. Everybody else's stacks lie in address spaces of their own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from deadreckon.errors import Malformed
from deadreckon.model.crash import RawCrash, RawException, RawThread
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import Arch
from deadreckon.reports.apple import facts, listing
from deadreckon.reports.apple.documents import as_address, as_dict, as_int, as_list, as_text, decode_text
from deadreckon.reports.apple.listing import Image, Images, Listed

if TYPE_CHECKING:
    from mmap import mmap

    from deadreckon.config import ReportLimits

__all__ = ["is_panic", "panic", "read", "stackshot"]

_HEX = r"(0x[0-9a-fA-F]{1,16})"
_PANIC = re.compile(rf"panic\(cpu \d{{1,4}} caller {_HEX}\): ?(.*)")
_LR = re.compile(rf"lr: {_HEX}\s+fp: {_HEX}")
_RETURN = re.compile(rf"{_HEX} : {_HEX}\b *(.*)")
_SYMBOL = re.compile(r"(\S.{0,255}?) : (\S.{0,4095}?) \+ 0x([0-9a-fA-F]{1,16})$")
_THREAD = re.compile(rf"Panicked thread: {_HEX}, backtrace: {_HEX}, tid: (\d{{1,20}})")
_TASK = re.compile(r"Panicked task .{0,256}: pid (\d{1,10}): (.{1,256})")
_BSD = re.compile(r"BSD process name corresponding to current thread: (.{1,256})")
_EXTENSION = re.compile(rf"([\w.-]{{1,255}})\(([^()]{{0,63}})\)\[([0-9A-Fa-f-]{{36}})\]@{_HEX}(?:->{_HEX})?$")
_UUID = re.compile(r"Kernel UUID: ([0-9A-Fa-f-]{36})")
_TEXT_BASE = re.compile(rf"Kernel text base: +{_HEX}")
_OS_VERSION = re.compile(r"(?:Mac )?OS version: *\n?\s*([^\n]{1,256})")
_MODEL = re.compile(r"System model name: ([^\n(]{1,256})")
_UPTIME = re.compile(r"System uptime in nanoseconds: (\d{1,20})")
_EPOCH = re.compile(r"Calendar: 0x([0-9a-fA-F]{1,16})")
_MAX_TEXT = 4_000_000
_KERNEL_BIT = 1 << 63


def is_panic(body: dict[str, Any]) -> bool:
    """Tell a panic's JSON from a crash's."""
    told = as_text(body.get("panicString")) or as_text(body.get("string"))
    return "panicString" in body or told.startswith("panic(")


def read(data: bytes | memoryview | mmap, limits: ReportLimits) -> RawCrash:
    """Read a panic log's text. Raises Malformed where no panic is in it, and LimitExceeded."""
    text = decode_text(memoryview(data), "kernel panic")[:_MAX_TEXT]
    if _PANIC.search(text) is None:
        raise Malformed("kernel panic", expected="panic(cpu ... caller ...)", got=repr(text.lstrip()[:40]))
    crash = _panic(text, limits)
    crash.timestamp = _calendar(text)
    return crash


def panic(body: dict[str, Any], limits: ReportLimits) -> RawCrash:
    """Read the body of a panic's ``.ips``."""
    told = as_text(body.get("panicString") or body.get("string"), _MAX_TEXT)
    crash = _panic(told, limits)
    facts.operating_system(crash, as_text(body.get("build"), 256))
    if product := as_text(body.get("product"), 256):
        crash.attributes["machine_model"] = product
    crash.timestamp = facts.timestamp(as_text(body.get("date"), 64)) or _calendar(told)
    crash.event_id = facts.event_id(as_text(body.get("incident"), 64))
    if reporter := as_text(body.get("crashReporterKey"), 256):
        crash.attributes["crash_reporter_key"] = reporter
    return crash


def _calendar(text: str) -> float | None:
    match = _EPOCH.search(text)
    return float(int(match[1], 16)) if match and 0 < int(match[1], 16) < 1 << 33 else None


def _panic(text: str, limits: ReportLimits) -> RawCrash:
    """Read a panic string: why, the panicked thread's return addresses, and the extensions they lead through."""
    crash = RawCrash("apple-panic", os_name="Darwin", process_name="kernel")
    head = _PANIC.search(text)
    value = head[2].strip() if head else text.strip().partition("\n")[0][:4096]
    crash.exceptions.append(RawException("panic", value, mechanism="panic"))
    frames, images = _backtrace(text, limits)
    arm = "ARM64" in text or _LR.search(text) is not None
    crash.arch = Arch.ARM64 if arm else Arch.X86_64
    match = _THREAD.search(text)
    raw = RawThread(_clamped(match[3]) if match else 0, crashed=True)
    raw.frames = listing.stack(frames, crash.arch, exact=False)
    uuid, base = _UUID.search(text), _TEXT_BASE.search(text)
    if base is not None:
        images.append(Image(int(base[1], 16), None, "kernel", uuid=uuid[1] if uuid else "", arch=crash.arch))
        own = sorted((i.base, i.base + (i.size or 0)) for i in images if i.size)
        for frame in frames:
            address = frame.address or 0
            if address >= images[-1].base and not any(first <= address < end for first, end in own):
                frame.base = images[-1].base
    Images(images).place(crash, [frames], limits.max_modules)
    raw.frames = listing.stack(frames, crash.arch, exact=False)
    if frames:
        crash.threads.append(raw)
        crash.exceptions[0].thread_id = raw.id
    else:
        message = "the panic has no backtrace"
        crash.diagnostics.append(Diagnostic(code="truncated", severity="info", stage="read", message=message))
    _surroundings(crash, text)
    return crash


def _clamped(digits: str) -> int:
    return min(int(digits), (1 << 63) - 1)


def _surroundings(crash: RawCrash, text: str) -> None:
    if (match := _OS_VERSION.search(text)) is not None:
        crash.os_build = match[1].strip()
    if (match := _MODEL.search(text)) is not None:
        crash.attributes["machine_model"] = match[1].strip()
    if (match := _UPTIME.search(text)) is not None:
        crash.uptime_s = int(match[1]) / 1e9
    if (match := _TASK.search(text)) is not None:
        crash.pid = _clamped(match[1])
        crash.attributes["panicked_task"] = match[2].strip()
    elif (match := _BSD.search(text)) is not None:
        crash.attributes["panicked_task"] = match[1].strip()


def _backtrace(text: str, limits: ReportLimits) -> tuple[list[Listed], list[Image]]:
    """Read the panicked thread's lines; other threads' backtraces come before it or have another heading."""
    start = max(text.find("Panicked thread:"), text.find("Backtrace (CPU"), 0)
    frames: list[Listed] = []
    images: list[Image] = []
    for line in text[start:].split("\n"):
        stripped = line.strip()[:8192]
        if stripped.startswith(("last loaded kext", "last started kext", "loaded kexts", "** Stackshot")):
            break
        if (match := _EXTENSION.search(stripped)) is not None:
            _extension(images, match, limits)
        elif images:
            continue
        elif (match := _LR.search(stripped)) is not None:
            frames.append(Listed(int(match[1], 16)))
        elif (match := _RETURN.match(stripped)) is not None:
            frame = Listed(int(match[2], 16))
            if (symbol := _SYMBOL.match(match[3].strip("[] "))) is not None:
                frame.image, frame.function, frame.offset = symbol[1], symbol[2], int(symbol[3], 16)
            frames.append(frame)
        if len(frames) >= listing.MAX_FRAMES:
            break
    # The chain of frame pointers ends with a null return address.
    while frames and not frames[-1].address:
        frames.pop()
    return frames, images


def _extension(images: list[Image], match: re.Match[str], limits: ReportLimits) -> None:
    base = int(match[4], 16)
    if len(images) < limits.max_modules and all(i.base != base for i in images[-64:]):
        end = int(match[5], 16) if match[5] else 0
        images.append(Image(base, end - base + 1 if end > base else None, match[1], uuid=match[3], version=match[2]))


def stackshot(body: dict[str, Any], limits: ReportLimits) -> RawCrash:
    """Read the stacks of the process that a stackshot is about: the frontmost one, else the one it names.

    Raises Malformed where that process is not in it.
    """
    crash = RawCrash("apple-ips", level="warning", message=as_text(body.get("reason")) or None)
    facts.operating_system(crash, as_text(body.get("build"), 256))
    crash.timestamp = facts.timestamp(as_text(body.get("date"), 64))
    crash.event_id = facts.event_id(as_text(body.get("incident"), 64))
    processes = as_dict(body.get("processByPid"))
    front = [*as_list(body.get("frontmostPids")), body.get("pid")]
    pid = next((str(p) for p in map(as_int, front) if str(p) in processes), None)
    if pid is None and len(processes) == 1:
        pid = next(iter(processes))
    process = as_dict(processes.get(pid)) if pid is not None else {}
    if not process:
        raise Malformed("stackshot", expected="the frontmost process", got=f"{len(processes)} others")
    crash.pid = as_int(pid)
    crash.process_name = as_text(process.get("procname"), 256) or None
    images = [_stackshot_image(entry) for entry in as_list(body.get("binaryImages"))[: limits.max_modules]]
    threads = list(as_dict(process.get("threadById")).items())[: limits.max_threads]
    stacks = [
        [f for k in ("kernelFrames", "userFrames") for f in _pairs(as_dict(t).get(k), images)] for _, t in threads
    ]
    used = {f.base for frames in stacks for f in frames}
    crash.arch = Arch.ARM64 if not any(0x7FF8_0000_0000 <= (b or 0) < _KERNEL_BIT for b in used) else Arch.X86_64
    named = [i for i in images if i is not None and i.base in used]
    Images(named).place(crash, stacks, limits.max_modules)
    for (tid, thread), frames in zip(threads, stacks, strict=True):
        raw = RawThread(as_int(tid) or 0, as_text(as_dict(thread).get("name"), 1024) or None)
        # In the kernel all are return addresses; a process's first one is where it called the kernel.
        kernel = sum((f.address or 0) >= _KERNEL_BIT for f in frames)
        raw.frames = listing.stack(frames[:kernel], crash.arch, exact=False)
        raw.frames += listing.stack(frames[kernel:], crash.arch, exact=True)
        crash.threads.append(raw)
    crash.attributes["processes"] = len(processes)
    return crash


def _stackshot_image(entry: Any) -> Image | None:
    """Read ``[uuid, base, kind]``; the entry without an identifier stands for absolute addresses."""
    parts = as_list(entry)
    base = as_address(parts[1]) if len(parts) > 1 else None
    return None if base is None else Image(base, None, "", uuid=as_text(parts[0], 64))


def _pairs(value: Any, images: list[Image | None]) -> list[Listed]:
    """Read frames, each an image's index and the offset in it."""
    found = []
    for item in as_list(value)[: listing.MAX_FRAMES]:
        pair = as_list(item)
        index, offset = (as_int(pair[0]), as_address(pair[1])) if len(pair) > 1 else (None, None)
        image = images[index] if index is not None and 0 <= index < len(images) else None
        if image is not None and offset is not None:
            known = bool(image.uuid.strip("0-"))
            found.append(Listed(image.base + offset & 0xFFFF_FFFF_FFFF_FFFF, base=image.base if known else None))
    return found
