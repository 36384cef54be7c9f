"""A log into crashes: findings that tell of one death are joined, and given the stack that shows it best."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.crash import RawCrash, RawException, RawFrame, RawThread
from deadreckon.model.event import Diagnostic, Frame
from deadreckon.model.ids import Arch
from deadreckon.reports.textlog.findings import Finding, Kind
from deadreckon.reports.textlog.frames import Adjusted, TextFrame
from deadreckon.reports.textlog.lines import read_lines
from deadreckon.reports.textlog.modules import Images, declarations
from deadreckon.reports.textlog.own import in_app
from deadreckon.reports.textlog.rules import find
from deadreckon.reports.textlog.stacks import Stack, find_stacks, frames_lost

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

    from deadreckon.config import ReportLimits

__all__ = ["crashes_of", "frames_of", "read_log"]

MAX_CRASHES = 256
"""Crashes that one log is read for: a leak checker or a race detector may report thousands."""

_GO_ON = frozenset({"ThreadSanitizer", "LeakSanitizer", "UndefinedBehaviorSanitizer"})
"""Tools after whose reports a program goes on, unless it is told otherwise."""
_SECONDARY = re.compile(
    r"^\s*(?:(?:previously |last )?(?:freed|allocated|deallocated)\b.*(?:here|from|by .*):?$"
    r"|(?:(?:registered|created|destroyed|acquired|locked|unlocked|stored|first|last)\b|Mutex |Thread |Previous "
    r"|Location |Memory was|Uninitialized value|Address .* is located|As if |HINT|\[\d+\] |\s*#\d+ ).*)$"
    r"|(?:\bhere|was stored to memory at|created at|created by .*):?$"
    r"|^(?:Allocated|Freed|Last potentially|Second to last|Backtrace for thread|Workqueue) ?.*$",
)
"""Lines above stacks that don't show the death: where memory was allocated, a thread begun, a mutex taken."""
_KERNEL_SYMBOL = re.compile(r"\b([A-Za-z_][\w.]{0,250})\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}")
_SUMMARY = re.compile(r"SUMMARY: \w+Sanitizer: (.*)")
_LOCATED = re.compile(r"(0x[0-9a-f]{1,16} is (?:located|a wild).*|Address 0x[0-9a-f]{1,16} is .*)")
_REGISTER_ARCHES = (
    ("rax", re.compile(r"\brax *=? *(?:0x)?[0-9a-f]{16}\b"), Arch.X86_64),
    ("RIP: ", re.compile(r"\bRIP: [0-9a-f]{4}:"), Arch.X86_64),
    ("x0", re.compile(r"\bx0 *[=:]? *(?:0x)?[0-9a-f]{16}\b"), Arch.ARM64),
    ("eax", re.compile(r"\beax *=? *(?:0x)?[0-9a-f]{8}\b"), Arch.X86),
)
_ARCHES = re.compile(r":(x86_64h?|arm64e?|i386|armv7s?)\+0x[0-9a-f]+\)")


@dataclass(slots=True)
class _Death:
    """One death: findings that tell of it, and the lines that may."""

    findings: list[Finding]
    first: int
    end: int = 0
    stacks: list[Stack] = field(default_factory=list)

    @property
    def primary(self) -> Finding:
        """What it was: a tool's report, else the program's own message, else the signal."""
        for kind in (Kind.REPORT, Kind.MESSAGE):
            for finding in self.findings:
                if finding.kind is kind:
                    return finding
        # A shell, a fuzzer and a signal handler tell of the same signal; the one with the address says most.
        return min(self.findings, key=lambda f: (f.address is None, f.mechanism == "libfuzzer"))

    def secondary(self, stack: Stack) -> bool:
        """Whether a stack shows something else than the death."""
        told = any(f.line == stack.caption_line for f in self.findings)
        return not told and _SECONDARY.search(stack.caption) is not None


def read_log(data: bytes | memoryview | mmap, limits: ReportLimits, form: str) -> list[RawCrash]:
    """Read a log's crashes; ``form`` is the format's name, which they get.

    Raises Malformed where the log tells of no crash and shows no stack, LimitExceeded beyond ``max_bytes``.
    """
    if len(data) > limits.max_bytes:
        raise LimitExceeded("max_bytes", limits.max_bytes, len(data), "crash log")
    lines, problems = read_lines(data)
    found = crashes_of(lines, limits, form)
    if not found:
        raise Malformed("crash log", expected="an error or a stack", got=f"{len(lines)} lines with neither")
    found[0].diagnostics[:0] = problems
    return found


def crashes_of(lines: Sequence[str], limits: ReportLimits, form: str) -> list[RawCrash]:
    """Return the crashes of a log's lines, none where there is neither an error nor a stack."""
    stacks = find_stacks(lines)
    deaths = _deaths(find(lines), stacks, len(lines))
    if not deaths and stacks:
        return [_of_stacks(lines, stacks, limits, form)]
    declared = declarations(lines)
    crashes = [_crash_of(lines, death, declared, limits, form) for death in deaths[:MAX_CRASHES]]
    if len(deaths) > MAX_CRASHES:
        message = f"{len(deaths) - MAX_CRASHES} more errors of the log were not read"
        crashes[0].diagnostics.append(
            Diagnostic(code="limit_exceeded", severity="warning", stage="read", message=message)
        )
    return crashes


# --- Which findings are one death -------------------------------------------------------------------------------------


def _deaths(findings: Sequence[Finding], stacks: Sequence[Stack], count: int) -> list[_Death]:
    """Join what tells of one death.

    A tool's report begins a death of its own, unless it is the first and follows what the program said; signals and
    messages belong to the death before them: a process that prints why it ends, dies by SIGABRT, and is mourned by a
    signal handler, its fuzzer and its shell has died once.
    """
    if not findings:
        return []
    deaths: list[_Death] = []
    for finding in findings:
        current = deaths[-1] if deaths else None
        reported = current is not None and any(f.kind is Kind.REPORT for f in current.findings)
        if current is None or (finding.kind is Kind.REPORT and reported and not _same(finding, current.primary)):
            deaths.append(_Death([finding], finding.line))
        else:
            current.findings.append(finding)
    for death, following in zip(deaths, [*deaths[1:], None], strict=True):
        death.end = following.first if following is not None else count
        death.stacks = [s for s in stacks if death.first <= s.first < death.end]
    if deaths and not deaths[0].stacks:  # Some print the stack before they say what it is.
        deaths[0].stacks = [s for s in stacks if s.first < deaths[0].first][-1:]
    return deaths


def _same(one: Finding, other: Finding) -> bool:
    """Whether a report is given twice: ClusterFuzz adds the unsymbolized one."""
    return (one.type, one.address, one.pid) == (other.type, other.address, other.pid) and one.pid is not None


def _own_stack(death: _Death) -> Stack | None:
    """Return the stack that shows a death: what a report is followed by, else the one with the most names."""
    primary = death.primary
    candidates = [s for s in death.stacks if not death.secondary(s)]
    if primary.kind is Kind.REPORT:
        following = [f.line for f in death.findings if f.line > primary.line and f.kind is not Kind.MESSAGE]
        own = [s for s in candidates if s.first > primary.line]
        near = [s for s in own if not following or s.first < following[0]]
        # GCC's UBSan and a fuzzer's: the report has no stack, the signal that it ends in has one.
        return near[0] if near else own[0] if own and primary.mechanism == "UndefinedBehaviorSanitizer" else None
    return max(candidates, key=lambda s: (round(s.score(), 1), -s.first), default=None)


# --- A death as a crash -----------------------------------------------------------------------------------------------


def _crash_of(
    lines: Sequence[str], death: _Death, declared: Sequence[str], limits: ReportLimits, form: str
) -> RawCrash:
    """Return a death as a crash: its exception, the crashed thread, and further stacks as threads named for them."""
    primary = death.primary
    images = Images.of(declared, (f for s in death.stacks for f in s.frames), limits.max_modules)
    own = _own_stack(death)
    if primary.mechanism == "kernel" and own is not None:
        _add_program_counter(own, lines[death.first : death.end])
    ended = primary.mechanism not in _GO_ON or any(f.kind is Kind.SIGNAL for f in death.findings)
    crash = RawCrash(form, level="fatal" if ended else "error")
    crash.pid = next((f.pid for f in death.findings if f.pid is not None), None)
    thread = next((f.thread for f in death.findings if f.thread is not None), 0)
    exact = _exact(primary, own, death)
    if own is None and primary.file is not None:
        crash.threads.append(RawThread(thread, crashed=True, frames=[_place_frame(primary)]))
    elif own is not None:
        crash.threads.append(RawThread(thread, _thread_name(own), True, frames=frames_of(own, images, exact=exact)))
    for stack in death.stacks:
        if stack is not own and death.secondary(stack):
            number = 1 + max((t.id for t in crash.threads), default=thread)
            frames = frames_of(stack, images, exact=exact)
            crash.threads.append(RawThread(number, stack.caption.strip(" :")[:200], frames=frames))
    crash.threads = crash.threads[: limits.max_threads]
    crash.modules = images.modules()
    crash.exceptions = _exceptions(death, own, crash.threads[0].id if crash.threads and own is not None else None)
    _describe(lines[death.first : death.end], crash, death)
    crash.diagnostics += frames_lost(death.stacks)
    if images.dropped:
        crash.diagnostics.append(
            Diagnostic(
                code="module_overlap",
                severity="info",
                stage="read",
                message=f"{images.dropped} modules overlap an earlier one: the log is of several processes",
            )
        )
    return crash


def _add_program_counter(own: Stack, lines: Sequence[str]) -> None:
    """Put the function that an oops stopped in above its callers: x86 lists only these as the call trace."""
    for line in lines:
        word = next((w for w in ("RIP: ", "PC is at", "pc : ") if w in line), None)
        match = _KERNEL_SYMBOL.search(line, line.index(word)) if word else None
        if match:
            if own.frames[0].function != match[1]:
                own.frames.insert(0, TextFrame("kernel", Adjusted.CALLERS_RETURN, function=match[1]))
            return


def _exceptions(death: _Death, own: Stack | None, thread: int | None) -> list[RawException]:
    primary = death.primary
    chain = [primary]
    if primary.kind is Kind.REPORT:
        # What the program said before, or a tool about the report itself, is the cause of it.
        chain += [f for f in death.findings if f.kind is Kind.MESSAGE][:1]
    address = primary.address
    if primary.verdict and address is None:
        address = next((f.address for f in death.findings if f.address is not None), None)
    if primary.mechanism == "gdb" and primary.type in {"SIGTRAP", "SIGILL"} and own is not None:
        address = own.frames[0].address  # For these si_addr is the instruction.
    found = []
    for finding in chain:
        at = address if finding is primary else finding.address
        exception = RawException(finding.type, finding.value, None, at, finding.mechanism, thread)
        access = finding.attributes.get("access", "").lower()
        exception.access = access if access in {"read", "write"} else None
        found.append(exception)
    return found


def _exact(primary: Finding, own: Stack | None, death: _Death) -> bool:
    """Whether the frames of an undecided form are a sanitizer's, whose addresses are ready to look up."""
    before = [f for f in death.findings if own is None or f.line <= own.first]
    nearest = before[-1] if before else primary
    return nearest.mechanism.endswith("Sanitizer") or nearest.mechanism == "libfuzzer"


def _thread_name(stack: Stack) -> str | None:
    match = re.search(r"thread T\d+ \(([^)]{1,64})\)$", stack.caption)
    return match[1] if match else None


def _describe(lines: Sequence[str], crash: RawCrash, death: _Death) -> None:
    """Add what the lines of a death say beside findings and stacks."""
    primary = death.primary
    crash_type = primary.crash_type
    for finding in death.findings:
        if finding.verdict or (primary.type, finding.type) == ("fatal error", "fuzz target exited"):
            crash_type = finding.crash_type
        if finding.kind is Kind.SIGNAL and finding is not primary:
            crash.attributes.setdefault("signal", finding.type)
        if finding.mechanism.endswith("Sanitizer"):
            crash.attributes.setdefault("sanitizer", finding.mechanism)
    crash.attributes |= {**primary.attributes, "crash_type": crash_type}
    if primary.file is not None:
        crash.attributes["file"] = primary.file
        if primary.lineno is not None:
            crash.attributes["line"] = str(primary.lineno)
    for line in lines:
        if "SUMMARY: " in line and (match := _SUMMARY.search(line)):
            crash.attributes.setdefault("summary", match[1][:1000])
        elif " is " in line and (match := _LOCATED.search(line)):
            crash.attributes.setdefault("location", match[1][:1000])
        if crash.arch is Arch.UNKNOWN:
            crash.arch = _arch(line)
    if primary.mechanism in {"kernel", "KASAN", "KMSAN", "KCSAN", "KFENCE"}:
        crash.os_name = "Linux"


def _arch(line: str) -> Arch:
    if "+0x" in line and (match := _ARCHES.search(line)):
        return Arch.parse(match[1])
    for word, pattern, arch in _REGISTER_ARCHES:
        if word in line and pattern.search(line):
            return arch
    return Arch.UNKNOWN


def _of_stacks(lines: Sequence[str], stacks: list[Stack], limits: ReportLimits, form: str) -> RawCrash:
    """Return stacks of which nothing says why: every one is a thread."""
    images = Images.of(declarations(lines), (f for s in stacks for f in s.frames), limits.max_modules)
    crash = RawCrash(form, modules=images.modules(), diagnostics=frames_lost(stacks))
    for number, stack in enumerate(stacks[: limits.max_threads]):
        crash.threads.append(
            RawThread(number, stack.caption.strip(" :")[:200] or None, frames=frames_of(stack, images))
        )
    for line in lines:
        if (arch := _arch(line)) is not Arch.UNKNOWN:
            crash.arch = arch
            break
    return crash


# --- Frames -----------------------------------------------------------------------------------------------------------


def frames_of(stack: Stack, images: Images, *, exact: bool = False) -> list[RawFrame]:
    """Return a stack's frames. ``exact``: of a form that may be a sanitizer's or Chromium's, they are a sanitizer's."""
    frames = [f for f in stack.frames if not (f.form == "kernel" and f.signal)]
    raw_addresses = not exact and any(f.form == "chromium" for f in frames)
    found: list[RawFrame] = []
    interrupted = bool(frames) and frames[0].adjusted is Adjusted.CALLERS_RETURN
    before: TextFrame | None = None
    for at, frame in enumerate(frames):
        if frame.signal:
            interrupted = True
            continue
        looked_up = frame.adjusted is Adjusted.LOOKED_UP or frame.form == "chromium"
        is_return = not interrupted and (raw_addresses or not looked_up)
        following = frames[at + 1] if at + 1 < len(frames) else None
        inlined = frame.inline or (following is not None and _one_place(frame, following))
        # gdb shows inlined calls without an address, and doesn't say whether the next frame is the same place or a
        # caller: what it knows of it itself is kept.
        address = None if before is not None and _hidden(before, frame) else images.place(frame)
        found.append(RawFrame(address, is_return, _reported(frame, address, inline=inlined)))
        interrupted = frame.function in _TRAMPOLINES
        before = frame
    return found


_TRAMPOLINES = frozenset({"__restore_rt", "__kernel_rt_sigreturn", "__kernel_sigreturn", "_sigtramp", "__restore"})


def _one_place(frame: TextFrame, other: TextFrame) -> bool:
    """Whether two frames are a call and what it was inlined into; recursion has the same names at one address too."""
    if frame.address is None or frame.address != other.address or frame.function is None:
        return False
    return (frame.function, frame.line, frame.column) != (other.function, other.line, other.column)


def _hidden(above: TextFrame, frame: TextFrame) -> bool:
    return above.form == "gdb" and above.address is None and frame.file is not None


def _reported(frame: TextFrame, address: int | None, *, inline: bool) -> Frame:
    path = frame.file
    name = path.replace("\\", "/").rsplit("/", 1)[-1] if path else None
    mangled = frame.function is not None and frame.function.startswith(("_Z", "__Z", "_R", "?", "$s", "_$s"))
    return Frame(
        status="symbolicated" if frame.function else "missing_symbol",
        instruction_addr=hex(frame.address) if address is None and frame.address is not None else None,
        rva=hex(frame.offset) if address is None and frame.offset is not None else None,
        package=frame.module,
        function=None if mangled and address is not None else frame.function,  # The look-up makes it readable.
        raw_function=frame.function if mangled else None,
        filename=name,
        abs_path=path if path != name else None,
        lineno=frame.line,
        colno=frame.column,
        inline=inline,
        in_app=in_app(frame.function, path),
    )


def _place_frame(finding: Finding) -> RawFrame:
    """Return the place that a finding names, where the log has no stack."""
    return RawFrame(
        None,
        reported=_reported(
            TextFrame("", Adjusted.LOOKED_UP, function=finding.function, file=finding.file, line=finding.lineno,
                      column=finding.column),
            None,
            inline=False,
        ),
    )  # fmt: skip
