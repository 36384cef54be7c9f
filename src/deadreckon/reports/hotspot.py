"""HotSpot's ``hs_err_pid.log``: the Java virtual machine's own crash, with native and Java frames on one stack.

::

    #  SIGSEGV (0xb) at pc=0x00007f2cbe2da214, pid=16054, tid=16055
    # Problematic frame:
    # V  [libjvm.so+0xeda214]  Unsafe_PutLong+0x124
    Native frames: (J=compiled Java code, j=interpreted, Vv=VM code, C=native code)
    V  [libjvm.so+0xeda214]  Unsafe_PutLong+0x124
    j  sun.misc.Unsafe.putAddress(JJ)V+5 jdk.unsupported@17.0.21.1
    J 2399 c1 Crash.inner(J)V (9 bytes) @ 0x00007fb52d597614 [0x00007fb52d597400+0x0000000000000214]
    v  ~StubRoutines::call_stub

Source: OpenJDK, ``share/utilities/vmError.cpp`` and ``os/*/os_*.cpp`` (JDK 8 to 21), and real crashes of JDK 17. There
is no build id: symbols are found by a library's name, where its file is named. Environment variables are not read.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.crash import MemoryMap, Module, RawCrash, RawException, RawFrame, RawThread
from deadreckon.model.event import Diagnostic, Frame
from deadreckon.model.ids import Arch
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.reports.reasons.linux import SIGNALS, signal_reason
from deadreckon.reports.textlog.lines import MAX_FRAMES, read_lines, too_deep
from deadreckon.reports.textlog.modules import mapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deadreckon.config import ReportLimits

__all__ = ["read"]


_HEADS = (
    "A fatal error has been detected by",
    "An unexpected error has been detected by",
    "There is insufficient memory",
)
_IDS = r"pid=(\d{1,10}), tid=(\d{1,20}|0x[0-9a-f]{1,16})"
_ERROR = re.compile(
    rf"([A-Z][A-Z_]+) \((0x[0-9a-f]{{1,16}})\) at pc=(0x[0-9a-f]{{1,16}})(?: \(.*\))?, {_IDS}", re.ASCII
)
_INTERNAL = re.compile(rf"([A-Z][A-Za-z ]* Error) \(([^()]*)\), {_IDS}", re.ASCII)
_SIGNAL = re.compile(r"siginfo: ?si_signo.*?si_code[:=] ?(-?\d{1,10})(?:.*?si_addr[:=] ?(0x[0-9a-f]{1,16}))?")
_ACCESS = re.compile(r"\b(reading|writing|executing|execution)\b[^,]{0,40}? address (0x[0-9a-f]{1,16})")
_THREAD = re.compile(r'Current (?:CompileTask|thread) ?\(0x[0-9a-f]{1,16}\): {1,8}(\w+)(?: "([^"]*)")?')
_ID = re.compile(r"\bid=(\d{1,20})")
_PLATFORM = re.compile(r"\b(linux|windows|bsd|solaris|aix)-(\w+)")
_TIME = re.compile(r"^[Tt]ime: \w{3} (\w{3} +\d{1,2} \d\d:\d\d:\d\d \d{4})(?: (\w+))?")
_ZONE = re.compile(r"^timezone: (\w+)")
_ELAPSED = re.compile(r"elapsed time: (\d+(?:\.\d+)?) seconds")

_NATIVE = re.compile(r"[CVA]  \[([^\]+]+)\+(0x[0-9a-f]+)\](?:  (.+))?")
_ADDRESS = re.compile(r"[CV]  (0x[0-9a-f]+)(?:  ?(.+))?")
_NAME = re.compile(r"(.+?)(?:\+(?:0x[0-9a-f]+|\d+))?(?:  \(([^():]+):(\d+)\))?")
_JAVA = re.compile(
    r"(?:j|J(?: \d+%?)?(?: (?:c1|c2|C1|C2|jvmci|aot\[\d+\]))?(?: %)?) +"
    r"([^\s(]+)\.([^\s.(]+)(\([^\s)]*\)[^\s+]*)(?:\+-?\d+)?(?: .*)?"
)
_COMPILED_AT = re.compile(r" @ (0x[0-9a-f]+)")
_STUB = re.compile(r"v  ~(.+?)(?: 0x[0-9a-f]+)?")
_MAPPED = re.compile(r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) [r-][w-][x-][ps] ([0-9a-f]+) [0-9a-f]+:[0-9a-f]+ \d+ +(/.*)")
_LISTED = re.compile(r"0x([0-9a-f]{1,16})(?: - 0x([0-9a-f]{1,16}))?\s+(\S.*)")
_REGISTER = re.compile(r"\b([A-Z][A-Z0-9]{1,2}) *= ?0x([0-9a-f]{1,16})\b")
_MEMORY = re.compile(
    r"(?:=>)?0x([0-9a-f]{1,16}): {1,3}"
    r"((?:[0-9a-f]{2} ){1,63}[0-9a-f]{2}|(?:[0-9a-f]{4,16} ){0,15}[0-9a-f]{4,16})(?: .*)?"
)
_LAST, _MOST = 1 << 24, 1 << 28
"""Bytes that the last library is taken to have, and any, where the log tells no end."""
_SYSTEMS = {"linux": "Linux", "windows": "Windows", "bsd": "macOS", "solaris": "Solaris", "aix": "AIX"}
_ACCESSES = {"reading": "read", "writing": "write", "executing": "execute", "execution": "execute"}
_NUMBERS = {name: number for number, name in SIGNALS.items()}


def read(data: memoryview, limits: ReportLimits) -> RawCrash:
    """Read a log, or what the virtual machine printed of it. Raises Malformed where it has no header, LimitExceeded."""
    if len(data) > limits.max_bytes:
        raise LimitExceeded("max_bytes", limits.max_bytes, len(data), "HotSpot log")
    lines, problems = read_lines(data)
    start = next((i for i, line in enumerate(lines) if line.startswith("# ") and any(h in line for h in _HEADS)), None)
    if start is None:
        raise Malformed("HotSpot log", expected="a fatal error of the Java Runtime Environment", got=lines[0][:60])
    crash = RawCrash("hs_err", level="fatal", diagnostics=problems)
    pc, problematic = _header(crash, lines, start)
    sections = _Sections(lines, start)
    crash.modules = _modules(sections.of("Dynamic libraries:"), limits)
    thread = _thread(crash, sections)
    thread.registers = _registers(crash.arch, sections.of("Registers:"), pc)
    crash.memory = _memory([*sections.of("Top of Stack:"), *sections.of("Instructions:")])
    found, lost = _frames(sections.of("Native frames:"), crash.modules, MAX_FRAMES)
    if not any(f.reported and f.reported.lang == "java" for f in found):
        # Where the native stack could not be walked through Java's frames, these have a list of their own.
        more, lost_more = _frames(sections.of("Java frames:"), crash.modules, MAX_FRAMES - len(found))
        found, lost = found + more, lost + lost_more
    thread.frames = found or _frames(iter([problematic]), crash.modules, 1)[0]
    crash.diagnostics += too_deep(lost)
    if thread.frames and thread.frames[0].instruction_addr is None and pc:
        thread.frames[0].instruction_addr = pc
    if not found and "Native frames:" not in sections.heads:
        message = "the log has no stack but the frame that crashed"
        crash.diagnostics.append(Diagnostic(code="truncated", severity="warning", stage="read", message=message))
    crash.threads.append(thread)
    for exception in crash.exceptions:
        exception.thread_id = thread.id
        _reason(exception, sections)
    return crash


class _Sections:
    """The lines below a heading, up to an empty one."""

    def __init__(self, lines: Sequence[str], start: int) -> None:
        self.lines = lines
        self.heads: dict[str, int] = {}
        for number in range(start, len(lines)):
            head = lines[number].partition("(")[0].strip()
            if head.endswith(":") and head not in self.heads and len(self.heads) < 1000:
                self.heads[head] = number

    def of(self, head: str) -> Iterator[str]:
        """Yield the lines of a section, nothing where there is none."""
        at = self.heads.get(head)
        for number in range(at + 1 if at is not None else len(self.lines), len(self.lines)):
            line = self.lines[number].rstrip()
            if not line:
                return
            yield line

    def first(self, pattern: re.Pattern[str], start: str) -> re.Match[str] | None:
        """Return the first line that begins so and matches."""
        return next((m for line in self.lines if line.startswith(start) and (m := pattern.search(line))), None)


def _header(crash: RawCrash, lines: Sequence[str], start: int) -> tuple[int, str]:
    """Read the lines behind ``#``; return where it crashed (0: not told), and the frame."""
    said = [line[1:].strip() for line in lines[start : start + 64] if line.startswith("#")]
    pc, frame = 0, ""
    for number, text in enumerate(said):
        if not crash.exceptions and (match := _ERROR.fullmatch(text)):
            code, pc = int(match[2], 16), int(match[3], 16)
            crash.pid = int(match[4])
            crash.exceptions.append(RawException(match[1], "", code, thread_id=int(match[5], 0)))
        elif not crash.exceptions and (match := _INTERNAL.fullmatch(text)):
            crash.pid = int(match[3])
            why = said[number + 1] if number + 1 < len(said) else ""
            crash.exceptions.append(RawException(match[1], why or match[2], thread_id=int(match[4], 0)))
            crash.attributes["raised_at"] = match[2]
        elif text.startswith(("JRE version: ", "Java VM: ")):
            name, _, value = text.partition(": ")
            crash.attributes[name.lower().replace(" ", "_")] = value
            if (match := _PLATFORM.search(value)) is not None:
                crash.os_name, crash.arch = _SYSTEMS[match[1]], Arch.parse(match[2])
        elif text == "Problematic frame:" and number + 1 < len(said):
            frame = said[number + 1]
    if not crash.exceptions:
        why = next((text for text in said[1:] if text), "")
        crash.exceptions.append(RawException("Out of Memory Error" if "memory" in said[0] else "Internal Error", why))
    return pc, frame


def _thread(crash: RawCrash, sections: _Sections) -> RawThread:
    """Read what else is told on lines of their own; return the thread."""
    told, known = (sections.first(pattern, "Current ") for pattern in (_THREAD, _ID))
    thread = RawThread(crash.exceptions[0].thread_id or 0, crashed=True)
    if told is not None:
        thread.name = told[2] or told[1]
    if known is not None:
        thread.id = int(known[1])
    if crash.arch is Arch.UNKNOWN and (match := sections.first(_PLATFORM, "vm_info: ")):
        crash.os_name, crash.arch = _SYSTEMS[match[1]], Arch.parse(match[2])
    crash.timestamp = _time(sections)
    for start in ("Time: ", "elapsed time: "):
        if crash.uptime_s is None and (match := sections.first(_ELAPSED, start)) is not None:
            crash.uptime_s = float(match[1])
    for start, name in (("Command Line: ", "cmdline"), ("Host: ", "host")):
        line = next((line for line in sections.lines if line.startswith(start)), "")
        if line:
            crash.attributes[name] = line.removeprefix(start).strip()
    return thread


def _time(sections: _Sections) -> float | None:
    """Return when it crashed; a time of another zone than UTC is none, for a zone's letters mean several."""
    match = sections.first(_TIME, "Time: ") or sections.first(_TIME, "time: ")
    zone = sections.first(_ZONE, "timezone: ")
    if match is None or (match[2] or (zone[1] if zone is not None else "")) not in {"UTC", "GMT"}:
        return None
    try:
        return datetime.strptime(f"{' '.join(match[1].split())} +0000", "%b %d %H:%M:%S %Y %z").timestamp()
    except ValueError:
        return None


def _reason(exception: RawException, sections: _Sections) -> None:
    """Say what the signal or the exception was about."""
    if (match := sections.first(_SIGNAL, "siginfo:")) is not None and exception.type in _NUMBERS:
        flags = int(match[1]) & 0xFFFF_FFFF
        reason = signal_reason(_NUMBERS[exception.type], flags, int(match[2] or "0", 16))
        exception.value = reason.value if match[2] else reason.detail
        exception.address = reason.address if match[2] else None
        exception.address_hidden = reason.hidden
    elif (match := sections.first(_ACCESS, "siginfo:")) is not None:
        exception.access, exception.address = _ACCESSES[match[1]], int(match[2], 16)
        exception.value = f"{match[1]} address {match[2]}"


def _frames(lines: Iterator[str], modules: Sequence[Module], most: int) -> tuple[list[RawFrame], int]:
    """Read a stack, up to ``...<more frames>...`` or what is no frame; return it, and how many frames are left out."""
    bases = {m.code_file.replace("\\", "/").rpartition("/")[2]: m.image_addr for m in reversed(modules)}
    found: list[RawFrame] = []
    for line in lines:
        if len(found) == most:
            return found, 1 + sum(1 for _ in lines)
        frame = _frame(line.strip(), bases, first=not found)
        if frame is None:
            break
        found.append(frame)
    return found, 0


def _frame(line: str, bases: dict[str, int], *, first: bool) -> RawFrame | None:
    if (match := _NATIVE.fullmatch(line)) is not None:
        offset, base = int(match[2], 16), bases.get(match[1])
        reported = _reported(match[3])
        reported.package = match[1]
        if base is None:
            reported.rva = hex(offset)
        return RawFrame(base + offset if base is not None else None, is_return_address=not first, reported=reported)
    if (match := _ADDRESS.fullmatch(line)) is not None:
        return RawFrame(int(match[1], 16) & ((1 << 64) - 1), is_return_address=not first, reported=_reported(match[2]))
    if (match := _JAVA.fullmatch(line)) is not None:
        at = _COMPILED_AT.search(line)
        details: dict[str, object] = {"signature": match[3], "compiled": line[0] == "J"}
        if at is not None:
            details["compiled_at"] = at[1]
        name = match[1].replace("/", ".")
        return RawFrame(
            None,
            reported=Frame(status="symbolicated", module=name, function=match[2], lang="java", details=details),
        )
    if (match := _STUB.fullmatch(line)) is not None:
        return RawFrame(None, reported=Frame(status="symbolicated", function=match[1], in_app=False))
    return None


def _reported(said: str | None) -> Frame:
    match = _NAME.fullmatch(said.strip()) if said else None
    if match is None:
        return Frame(status="missing_symbol")
    frame = Frame(status="symbolicated", function=match[1])
    if match[2]:
        frame.filename, frame.lineno = match[2], int(match[3]) or None
    return frame


def _modules(lines: Iterator[str], limits: ReportLimits) -> list[Module]:
    """Read the mappings, of Linux as /proc/PID/maps has them, elsewhere one a library."""
    spans: dict[str, tuple[int, int]] = {}
    for line in lines:
        if (match := _MAPPED.match(line)) is not None:
            start, end, offset, path = int(match[1], 16), int(match[2], 16), int(match[3], 16), match[4]
            # The JDK's own archive of classes and other data are mapped from the middle on only.
            if path in spans or not offset:
                low, high = spans.get(path, (start, end))
                spans[path] = min(low, start), max(high, end)
        elif (match := _LISTED.fullmatch(line)) is not None:
            start = int(match[1], 16)
            spans.setdefault(match[3].strip(), (start, int(match[2], 16) if match[2] else start))
    rows = sorted(spans.items(), key=lambda item: item[1])
    ends = [start for _, (start, _) in rows[1:]] + [start + _LAST for _, (start, _) in rows[-1:]]
    for (path, (start, end)), following in zip(rows, ends, strict=True):
        if end <= start:  # macOS tells where each begins only.
            spans[path] = start, min(following, start + _MOST)
    return mapped(spans, limits.max_modules)


def _registers(arch: Arch, lines: Iterator[str], pc: int) -> Registers | None:
    if arch not in REGISTER_SETS:
        return None
    values: dict[str, int] = {}
    for line in lines:
        for name, value in _REGISTER.findall(line):
            known = f"x{name[1:]}" if arch is Arch.ARM64 and name[0] == "R" else name.lower()
            values.setdefault(known, int(value, 16))
    if values and pc:
        # Of ARM64, older versions do not print it.
        values.setdefault(REGISTER_SETS[arch].names[REGISTER_SETS[arch].pc], pc)
    registers = Registers.from_mapping(arch, values)
    return registers if registers.valid else None


def _memory(lines: Sequence[str]) -> MemoryMap:
    """Read dumps of memory: words are printed as numbers, bytes in their order."""
    pieces: list[bytes] = []
    ranges = []
    at = 0
    for line in lines:
        match = _MEMORY.fullmatch(line)
        if match is None:
            continue
        content = b"".join(bytes.fromhex(word)[::-1] for word in match[2].split() if len(word) % 2 == 0)
        ranges.append((int(match[1], 16), len(content), at))
        pieces.append(content)
        at += len(content)
    return MemoryMap.from_ranges(ranges, np.frombuffer(b"".join(pieces), np.uint8))
