"""Apple's crash reports as text, and what others print in their likeness.

Sources: Apple's Technical Note TN2151 and "Examining the fields in a crash report"; PLCrashReporter's and KSCrash's
text formatters. A report is read line by line; what a line is follows from its own form first and from the section it
stands in second, so that indentation, missing blank lines and missing sections cost nothing.

The same grammar covers the console's "First throw call stack", the logs of in-process reporters that print
``callStackSymbols`` above the image's UUID, and the heaviest stack of a CPU or disk writes report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.errors import Malformed
from deadreckon.model.crash import RawCrash, RawException, RawThread
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import Arch
from deadreckon.reports.apple import facts, listing
from deadreckon.reports.apple.documents import decode_text
from deadreckon.reports.apple.frames import frame_line, heaviest_line, hex_list, image_line
from deadreckon.reports.apple.listing import Images, Listed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

    from deadreckon.config import ReportLimits

__all__ = ["call_stack", "parse", "read"]

_MAX_LINE = 16_384
_MAX_LINES = 1_000_000
_MAX_BLOCK = 65_536
"""Characters of a section of many lines."""
_MAX_BACKTRACES = 16
_MAX_REGISTERS = 96

_ATTRIBUTES = {
    "Hardware Model": "machine_model",
    "Hardware model": "machine_model",
    "CrashReporter Key": "crash_reporter_key",
    "Anonymous UUID": "crash_reporter_key",
    "Path": "process_path",
    "Identifier": "app_identifier",
    "Beta": "beta",
    "Role": "role",
    "Parent Process": "parent_process",
    "Parent": "parent_process",
    "Responsible": "responsible_process",
    "Coalition": "coalition",
    "Exception Subtype": "exception_subtype",
    "Exception Codes": "exception_codes",
    "Exception Note": "exception_note",
    "Exception Message": "exception_message",
    "Termination Signal": "termination_signal",
    "Terminating Process": "terminating_process",
    "Highlighted by Thread": "highlighted_thread",
    "System Integrity Protection": "system_integrity_protection",
    "Event": "event",
    "Action taken": "action_taken",
    "CPU": "cpu",
    "Writes": "writes",
    "Wakeups": "wakeups",
    "Duration": "duration",
    "CrashDoctor Diagnosis": "diagnosis",
}
_BLOCKS = {
    "Application Specific Information": "application_specific_information",
    "Application Specific Signatures": "application_specific_signatures",
    "Kernel Triage": "kernel_triage",
    "VM Region Info": "vm_region_info",
    "Termination Reason": "termination_reason",
    "Termination Description": "termination_description",
    "Error Formulating Crash Report": "error_formulating_crash_report",
    "Dyld Error Message": "dyld_error_message",
    "Thread Exception State": "exception_state",
}
"""Sections that go on to the next blank line or header."""
_FIELDS = frozenset(
    (
        "Process|Command|PID|Version|Code Type|Architecture|Date/Time|Launch Time|Time Awake Since Boot|OS Version"
        "|Release Type|Report Version|Incident Identifier|Beta Identifier|Exception Type|Exception|Codes|Thread"
        "|Triggered by Thread|Crashed Thread|User ID|Framework Version|Baseband Version|UUID|CPU Type|Binary Image"
        "|Base Address|Slide Address|dSYM UUID"
    ).split("|")
)
"""Other header lines, by which a section without a blank line after it ends."""

_THREAD = re.compile(r"Thread (\d{1,9})( Crashed| Highlighted| Attributed)?:{1,2} *(.*)", re.ASCII)
_THREAD_NAME = re.compile(r"Thread (\d{1,9}) name: *(.*)", re.ASCII)
_STATE = re.compile(r"(?:Thread (\d{1,9})|Unknown thread) crashed with (.{0,80}?):?$", re.ASCII)
_BACKTRACE = re.compile(r"(?:Last Exception|Application Specific) Backtrace(?: (\d{1,9}))?:?(.*)", re.ASCII)
_REGISTER = re.compile(r"\b([a-z][a-z0-9]{1,7}): *(0x[0-9a-fA-F]{1,16})\b(?: +([A-Z(][^:]{0,80})$)?", re.ASCII)
_PROCESS = re.compile(r"(.*?) *\[(\d{1,10})\]$", re.ASCII)
_SIGNALLED = re.compile(r"Application received signal (SIG[A-Z0-9]+)", re.ASCII)
_ENDS = ("Handler crashed while reporting:", "External Modification Summary:", "Full Report")
_SAMPLED = "Powerstats for:"


@dataclass(slots=True)
class _Thread:
    number: int
    name: str = ""
    crashed: bool = False
    frames: list[Listed] = field(default_factory=list)


@dataclass(slots=True)
class _Report:
    """What was read so far. ``section`` says what a line that tells nothing of itself belongs to."""

    header: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, list[str]] = field(default_factory=dict)
    threads: dict[int, _Thread] = field(default_factory=dict)
    headless: list[list[Listed]] = field(default_factory=list)
    backtraces: list[list[Listed]] = field(default_factory=list)
    heaviest: list[Listed] = field(default_factory=list)
    images: Images = field(default_factory=Images)
    registers: dict[str, int] = field(default_factory=dict)
    syndrome: str = ""
    state: str = ""
    state_thread: int | None = None
    section: str = "header"
    frames: list[Listed] | None = None
    listed: int = 0
    """Frames so far."""
    block: str = ""
    room: dict[str, int] = field(default_factory=dict)
    """Characters that each block may still take."""
    others_images: bool = False
    """Whether the images that follow are another process's."""
    intro: list[str] = field(default_factory=list)
    cut: str = ""


def read(data: bytes | memoryview | mmap, limits: ReportLimits) -> RawCrash:
    """Read a text report. Raises Malformed where nothing of one is in it, and LimitExceeded."""
    return parse(decode_text(memoryview(data), "Apple crash report"), limits)


def parse(text: str, limits: ReportLimits) -> RawCrash:
    """Read a report's text; lines end in LF. Raises Malformed."""
    report = _Report()
    for number, line in enumerate(_lines(text)):
        if line.startswith(_ENDS) and (report.threads or report.images.listed):
            break
        if number == _MAX_LINES:
            report.cut = f"only the first {_MAX_LINES} lines were read"
            break
        _take(report, line, limits)
    crash = _crash(report, limits)
    if report.cut:
        crash.diagnostics.append(
            Diagnostic(code="limit_exceeded", severity="warning", stage="read", message=report.cut)
        )
    if not (crash.threads or crash.exceptions or crash.modules or crash.event_id or crash.attributes):
        raise Malformed("Apple crash report", expected="a header, a thread or an image", got=repr(text.lstrip()[:40]))
    return crash


def call_stack(text: str) -> list[Listed]:
    """Read the lines of a stack without anything else; lines of other kinds are left out."""
    found = [frame for line in _lines(text) if (frame := frame_line(line)) is not None]
    return found or hex_list(text)


def _lines(text: str) -> Iterator[str]:
    """Yield lines without indentation; one by one, for a report may have a million of them."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start : min(end, start + _MAX_LINE)].strip()
        start = end + 1


def _take(report: _Report, line: str, limits: ReportLimits) -> None:
    if not line:
        if report.section in {"block", "state", "hex", "heaviest"}:
            report.section = "header"
        return
    if _heading(report, line, limits):
        return
    if report.section == "images" and line.startswith("0x") and (image := image_line(line)) is not None:
        if len(report.images.listed) < limits.max_modules and not report.others_images:
            report.images.listed.append(image)
        return
    if report.section == "state" and (pairs := _REGISTER.findall(line)):
        for name, value, words in pairs:
            if len(report.registers) < _MAX_REGISTERS:
                report.registers[name] = int(value, 16)
            if name == "esr" and words:
                report.syndrome = f"{value} {words.strip()}"
        return
    if report.section == "heaviest" and (frame := heaviest_line(line)) is not None:
        _keep(report, report.heaviest, [frame])
        return
    if report.section == "hex" and report.frames is not None:
        _keep(report, report.frames, hex_list(line))
        if ")" in line:
            report.section = "header"
        return
    if line[0].isdigit() and (frame := frame_line(line)) is not None:
        _append(report, frame, first=line.startswith("0") and not line[1:2].isdigit())
        return
    _field(report, line)


def _heading(report: _Report, line: str, limits: ReportLimits) -> bool:
    """Begin another section, where a line does that."""
    if line.startswith(("Thread ", "thread ", "Unknown thread")):
        if (match := _STATE.match(line)) is not None:
            report.section = "state"
            report.state = match[2]
            report.state_thread = int(match[1]) if match[1] else None
            return True
        if (match := _THREAD_NAME.match(line)) is not None:
            thread = _thread(report, int(match[1]), limits)
            if thread is not None:
                thread.name = _name(match[2])
            return True
        if (match := _THREAD.match(line)) is not None:
            thread = _thread(report, int(match[1]), limits)
            report.section = "frames"
            report.frames = thread.frames if thread is not None else []
            if thread is not None:
                thread.crashed |= match[2] is not None
                thread.name = thread.name or _name(match[3])
            return True
    if (match := _BACKTRACE.match(line)) is not None:
        return _begin_backtrace(report, match[2])
    if line.endswith(("First throw call stack:", "Call stack at first throw:")):
        return _begin_backtrace(report, "")
    if line.startswith("Binary Images:"):
        report.section = "images"
        return True
    if line.startswith(_SAMPLED):
        # Below the heaviest stack, every process that was sampled has a section with its images.
        target = report.header.get("Command", "")
        report.others_images = not line.removeprefix(_SAMPLED).strip().startswith(f"{target} [")
        report.section = "header"
        return True
    if line.startswith("Heaviest stack for the target process:"):
        report.section = "heaviest"
        return True
    return False


def _begin_backtrace(report: _Report, rest: str) -> bool:
    report.frames = hex_list(rest)
    if len(report.backtraces) < _MAX_BACKTRACES:
        report.backtraces.append(report.frames)
    report.section = "frames"
    return True


def _thread(report: _Report, number: int, limits: ReportLimits) -> _Thread | None:
    if number not in report.threads and len(report.threads) >= limits.max_threads:
        return None
    return report.threads.setdefault(number, _Thread(number))


def _name(text: str) -> str:
    """Return a thread's own name, else its dispatch queue's: ``name  Dispatch queue: label``."""
    name, _, queue = text.partition("Dispatch queue:")
    return (name.strip() or queue.strip())[:1024]


def _append(report: _Report, frame: Listed, *, first: bool) -> None:
    if report.section != "frames" or report.frames is None or (first and report.frames and not report.threads):
        report.frames = []
        if len(report.headless) < _MAX_BACKTRACES:
            report.headless.append(report.frames)
        report.section = "frames"
    _keep(report, report.frames, [frame])


def _keep(report: _Report, frames: list[Listed], more: list[Listed]) -> None:
    if len(frames) < listing.MAX_FRAMES and report.listed < listing.MAX_TOTAL_FRAMES:
        report.listed += len(more)
        frames += more


def _add_text(report: _Report, text: str) -> None:
    left = report.room.get(report.block, _MAX_BLOCK)
    if text and left > 0:
        report.room[report.block] = left - len(text) - 1
        report.blocks.setdefault(report.block, []).append(text[:left])


def _field(report: _Report, line: str) -> None:
    """Read ``Key: value``; the rest of a block; or the addresses of a backtrace in parentheses."""
    key, colon, value = line.partition(":")
    key, value = key.strip(), value.strip()
    if colon and (key in _BLOCKS or key in _ATTRIBUTES or key in _FIELDS):
        if key in _BLOCKS:
            report.section, report.block = "block", _BLOCKS[key]
            _add_text(report, value)
        else:
            report.section = "header"
            # Below the threads some reports list every process; the first one is meant.
            report.header.setdefault(key, value)
        return
    if report.section == "frames" and report.frames is not None and not report.frames and (found := hex_list(line)):
        _keep(report, report.frames, found)
        if "(" in line and ")" not in line:
            report.section = "hex"
        return
    if report.section == "block":
        _add_text(report, line)
    elif not report.threads and len(report.intro) < 200:
        report.intro.append(line)


def _crash(report: _Report, limits: ReportLimits) -> RawCrash:
    header = report.header
    crash = RawCrash("apple-crash", arch=_arch(report))
    facts.operating_system(crash, header.get("OS Version", ""))
    crash.event_id = facts.event_id(header.get("Incident Identifier", ""))
    crash.timestamp = facts.timestamp(header.get("Date/Time", ""))
    launched = facts.timestamp(header.get("Launch Time", ""))
    if crash.timestamp is not None and launched is not None and crash.timestamp >= launched:
        crash.uptime_s = round(crash.timestamp - launched, 4)
    process = header.get("Process") or header.get("Command") or ""
    match = _PROCESS.match(process)
    crash.process_name = (match[1] if match else process) or None
    crash.pid = int(match[2]) if match else int(header["PID"]) if header.get("PID", "").isdecimal() else None
    crash.release = header.get("Version") or None
    crash.attributes.update({name: header[key] for key, name in _ATTRIBUTES.items() if header.get(key)})
    crash.attributes.update({k: "\n".join(v) for k, v in report.blocks.items()})
    for name in ("parent_process", "responsible_process"):
        if (match := _PROCESS.match(str(crash.attributes.get(name, "")))) is not None:
            crash.attributes |= {name: match[1], name.replace("process", "pid"): int(match[2])}
    if report.syndrome:
        crash.attributes["esr"] = report.syndrome
    _images(report)
    stacks = [*(t.frames for t in report.threads.values()), *report.backtraces, *report.headless, report.heaviest]
    report.images.place(crash, stacks, limits.max_modules)
    if crash.arch is Arch.UNKNOWN:
        main = next((m for m in crash.modules if m.code_file == crash.attributes.get("process_path")), None)
        crash.arch = next((m.arch for m in (*filter(None, [main]), *crash.modules) if m.arch), Arch.UNKNOWN)
    _threads(report, crash)
    _exceptions(report, crash)
    if not crash.threads and not any(e.frames for e in crash.exceptions):
        crash.diagnostics.append(
            Diagnostic(code="truncated", severity="warning", stage="read", message="the report has no stack")
        )
    return crash


def _arch(report: _Report) -> Arch:
    for key in ("Code Type", "CPU Type", "Architecture"):
        if (found := facts.code_type(report.header.get(key, ""))) is not Arch.UNKNOWN:
            return found
    state = report.state.upper()
    if state.startswith("ARM"):
        return Arch.ARM64 if "64" in state else Arch.ARM
    if state.startswith("X86"):
        return Arch.X86_64 if "64" in state else Arch.X86
    return Arch.UNKNOWN


def _images(report: _Report) -> None:
    """Add the image that a reporter names in a footer, below a stack of ``callStackSymbols``."""
    header = report.header
    base = header.get("Base Address", "")
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,16}", base) or report.images.listed:
        return
    name = header.get("Binary Image", "")
    uuid = header.get("dSYM UUID", "")
    arch = facts.code_type(header.get("CPU Type", ""))
    report.images.listed.append(listing.Image(int(base, 16), None, name, uuid=uuid, arch=arch))


def _threads(report: _Report, crash: RawCrash) -> None:
    triggered = re.match(
        r"\d{1,9}", report.header.get("Crashed Thread") or report.header.get("Triggered by Thread") or ""
    )
    crashed = next((t.number for t in report.threads.values() if t.crashed), None)
    if crashed is None and triggered is not None and int(triggered[0]) in report.threads:
        crashed = int(triggered[0])
    state_of = report.state_thread if report.state_thread in report.threads else crashed
    for number, thread in sorted(report.threads.items()):
        raw = RawThread(number, thread.name or None, number == crashed)
        raw.frames = listing.stack(thread.frames, crash.arch, exact=True)
        if number == state_of and report.registers:
            raw.registers = facts.registers(crash.arch, report.registers)
        crash.threads.append(raw)
    if report.heaviest and not crash.threads:
        frames = listing.stack(report.heaviest[::-1], crash.arch, exact=True)
        crash.threads.append(RawThread(0, "heaviest stack", frames=frames))
    elif report.headless and not crash.threads:
        # What callStackSymbols and backtrace(3) print are return addresses, the first one too.
        for number, listed in enumerate(report.headless):
            frames = listing.stack(listed, crash.arch, exact=False)
            crash.threads.append(RawThread(number, crashed=number == 0, frames=frames))


_FAULTS = frozenset({"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP"})


def _words(kind: str, codes: str) -> str:
    """Return what ``Exception Codes`` says in words, "" where these are numbers with a meaning of their own.

    "KERN_INVALID_ADDRESS at 0x10"; "SEGV_MAPERR at 0x88", PLCrashReporter's; "#0 at 0x18b4c6000", its own too, where
    the code has no name and the address, but for a fault, is where the thread was; "0x8badf00d" of a kind of its own.
    """
    if codes.startswith("#"):
        return codes.partition(" ")[2] if kind in _FAULTS else ""
    numbers = re.fullmatch(r"(?:0x[0-9a-fA-F]+(?: at |[,\s]*))+", codes) is not None
    return "" if numbers and kind.startswith(("EXC_", "SIG")) else codes


def _exceptions(report: _Report, crash: RawCrash) -> None:
    header = report.header
    intro = "\n".join(report.intro)
    kind, _, signal = (header.get("Exception Type") or header.get("Exception", "")).partition("(")
    kind, signal = kind.strip(), signal.strip(" )")
    if signal.startswith("0x"):  # Mac OS X 10.4 has the exception's number there.
        signal = ""
    if not kind and (match := _SIGNALLED.search(intro)) is not None:
        kind = match[1]
    thread = next((t.id for t in crash.threads if t.crashed), None)
    if kind:
        if signal:
            crash.attributes["signal"] = signal
        words = header.get("Exception Codes") or header.get("Codes", "")
        codes = [int(c, 16) for c in re.findall(r"\b0x[0-9a-fA-F]{1,16}\b", words)]
        detail = header.get("Exception Subtype") or _words(kind, words)
        crash.exceptions.append(
            facts.exception(kind, crash.arch, signal=signal, detail=detail, codes=codes, thread=thread)
        )
    told = str(crash.attributes.get("application_specific_information", ""))
    found = facts.uncaught(told) or facts.uncaught(intro)
    frames = next((b for b in report.backtraces if b), [])
    if found is not None or frames:
        name, reason = found or (None, "")
        raw = listing.stack(frames, crash.arch, exact=False) or None
        crash.exceptions.append(RawException(name, reason, mechanism="nsexception", thread_id=thread, frames=raw))
    else:
        crash.message = facts.message(crash)
