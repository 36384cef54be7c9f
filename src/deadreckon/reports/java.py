"""Java stack traces as text: what ``Throwable.printStackTrace`` writes, and loggers and Android's logcat after it.

Source: Java SE API, ``java.lang.Throwable.printStackTrace`` and ``StackTraceElement.toString``. An exception is a line
with its class and message, then a line for each frame; causes and suppressed exceptions follow, each with a word before
it::

    Exception in thread "main" a.b.Failure: message
        at a.b.C.method(C.java:12)
        at java.base/java.lang.Thread.run(Thread.java:829)
        Suppressed: a.b.Other
            at ...
    Caused by: a.b.Reason
        at ...
        ... 12 more

A log may hold many of them, and messages of several lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.model.crash import RawCrash, RawException, RawFrame
from deadreckon.model.event import Diagnostic, Frame
from deadreckon.reports.textlog.lines import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from mmap import mmap

    from deadreckon.config import ReportLimits

__all__ = ["Trace", "crash_of", "java_frame", "parse_frame", "read", "traces"]

_MAX_CRASHES = 1000
_MAX_FRAMES = 20_000
"""Of one crash; a StackOverflowError has 1,024, and a chain of causes a few times that."""
_MAX_EXCEPTIONS = 1000
_MAX_SAID = 64
"""Lines above the first frame that may belong to the exception: its message, and what Android says before it."""
_MAX_VALUE = 65_536

_FRAME = re.compile(r"\s*at\s+([^()]{1,4000})\(([^()]{1,1000})\)(?:\s+~?\[[^\]]{0,1000}\])?\s*")
_PLACE = re.compile(r"(.*?)(?::(\d{1,9}))?:?")
_NO_FILE = {None, "Unknown Source", "Native Method", "Native method"}
_LOADER = re.compile(r"^(?:[\w.@-]*/){1,2}(?=[^\s/]+$)")
_NAME = r"(?:[^\W\d][\w$-]*\.)*[^\W\d][\w$-]*(?:/0x[0-9a-f]+)?"
_THROWABLE = re.compile(
    rf'(?:Exception in thread "(?P<thread>[^"]{{0,1000}})" )?(?P<type>{_NAME})(?:: ?(?P<value>.*))?'
)
_LATER = re.compile(
    r"""
    .{0,2000}?(?:[:"=]\ *|\s)(?P<type>(?:[^\W\d][\w$]*\.)+[\w$]*(?:Exception|Error|Throwable)[\w$]*)
    (?::\ ?(?P<value>.*))?
    """,
    re.VERBOSE,
)
"""An exception behind something else, as loggers write it."""
_NEXT = re.compile(r"(\s*)(Caused by|Suppressed|Wrapped by): (.*)")
_MORE = re.compile(r"\s*\.\.\. (\d{1,9}) (?:more|common frames omitted)")
_FATAL = re.compile(r"(?:\*\*\* )?FATAL EXCEPTION(?: IN SYSTEM PROCESS)?: (.*)")
_DUMP = ("Full thread dump ", "Full Java thread dump ")
_STATE = "java.lang.Thread.State: "
"""The line between a thread's name and its frames in HotSpot's thread dumps (jstack)."""
_PROCESS = re.compile(r"Process: (\S{1,1000}), PID: (\d{1,9})")


@dataclass(slots=True)
class _Throwable:
    """An exception of a trace. ``role`` is the word before it: "" for the first."""

    type: str | None
    value: str = ""
    role: str = ""
    indent: int = 0
    frames: list[RawFrame] = field(default_factory=list)


@dataclass(slots=True)
class Trace:
    """An exception with its causes, and what the lines above say of the process."""

    throwables: list[_Throwable]
    thread: str | None = None
    uncaught: bool = False
    process: str | None = None
    pid: int | None = None
    cut: bool = False
    running: bool = False
    """It is a thread of HotSpot's thread dump, which says what that was doing, and of no exception."""

    @property
    def count(self) -> int:
        """How many frames there are."""
        return sum(len(t.frames) for t in self.throwables)


def read(data: bytes | memoryview | mmap, limits: ReportLimits) -> list[RawCrash]:
    """Read the crashes of a text.

    Raises Malformed where it has no frame of Java, Unsupported where it is a thread dump of HotSpot without a crash,
    LimitExceeded beyond a limit.
    """
    if len(data) > limits.max_bytes:
        raise LimitExceeded("max_bytes", limits.max_bytes, len(data), "Java stack trace")
    lines, problems = read_lines(data)
    found = [crash_of(trace) for trace in traces(lines)]
    if not found:
        if any(line.startswith(_DUMP) for line in lines):
            raise Unsupported("thread dump of HotSpot: nothing in it has crashed, and its threads are not read")
        raise Malformed("Java stack trace", expected="a frame", got=f"{len(lines)} lines without one")
    found[0].diagnostics[:0] = problems
    return found


def crash_of(trace: Trace) -> RawCrash:
    """Return a trace as a crash."""
    crash = RawCrash(
        "java",
        platform="java",
        level="fatal" if trace.uncaught else "error",
        process_name=trace.process,
        pid=trace.pid,
    )
    if trace.thread is not None:
        crash.attributes["thread"] = trace.thread
    if trace.process is not None:
        crash.os_name = "Android"
    # The root cause is last; what was suppressed on the way is no cause, and comes before.
    ordered = [t for t in trace.throwables if t.role == "suppressed"] + [
        t for t in trace.throwables if t.role != "suppressed"
    ]
    for throwable in ordered:
        mechanism = throwable.role or ("uncaught" if trace.uncaught else None)
        crash.exceptions.append(
            RawException(throwable.type, throwable.value, mechanism=mechanism, frames=throwable.frames)
        )
    if trace.cut:
        message = f"the trace has more than {_MAX_FRAMES} frames or {_MAX_EXCEPTIONS} exceptions"
        crash.diagnostics.append(Diagnostic(code="frame_limit", severity="warning", stage="read", message=message))
    return crash


# -- lines -------------------------------------------------------------------------------------------------------------


def traces(lines: Sequence[str]) -> list[Trace]:
    """Return the traces in the lines of a text, in their order; _MAX_CRASHES at most."""
    found: list[Trace] = []
    current: Trace | None = None
    said: list[str] = []
    for line in lines:
        frame = parse_frame(line)
        if frame is not None:
            begun = _begin(said) if current is None or said else current
            # Of two processes that write into one log, lines of the other stand between frames.
            if current is None or (begun is not current and (begun.running or begun.throwables[0].type is not None)):
                if len(found) >= _MAX_CRASHES:
                    break
                current = begun
                found.append(current)
            said = []
            if current.count < _MAX_FRAMES:
                current.throwables[-1].frames.append(RawFrame(None, reported=frame))
            else:
                current.cut = True
            continue
        following = _NEXT.fullmatch(line)
        if following is not None:
            if current is None:
                current = Trace([])
                found.append(current)
            said = _next(current, following)
            continue
        if current is not None and _MORE.fullmatch(line):
            said = []
            continue
        if current is not None and current.throwables and not current.throwables[-1].frames and len(said) < _MAX_SAID:
            # The message of a cause goes on.
            current.throwables[-1].value = f"{current.throwables[-1].value}\n{line}"[:_MAX_VALUE]
            continue
        if not line.strip():
            current = None
        said.append(line)
        del said[:-_MAX_SAID]
    return [t for t in found if t.count and not t.running]


def _next(trace: Trace, match: re.Match[str]) -> list[str]:
    indent, word, rest = len(match[1].expandtabs(8)), match[2], match[3]
    head = _THROWABLE.fullmatch(rest)
    role = "suppressed" if word == "Suppressed" else "cause"
    suppressed = next((t for t in reversed(trace.throwables) if t.role == "suppressed"), None)
    if role == "cause" and suppressed is not None and indent >= suppressed.indent > 0:
        role = "suppressed"  # What caused a suppressed exception is no cause of the first.
    if len(trace.throwables) < _MAX_EXCEPTIONS:
        kind, value = (head["type"], head["value"] or "") if head else (None, rest)
        trace.throwables.append(_Throwable(kind, value, role, indent))
    else:
        trace.cut = True
    return []


def _begin(said: Sequence[str]) -> Trace:
    """Make a trace of the lines above its first frame."""
    trace = Trace([])
    start = 0
    for number, line in enumerate(said):
        text = line.strip()
        if match := _FATAL.fullmatch(text):
            trace.thread, trace.uncaught, start = match[1] or None, True, number + 1
        elif match := _PROCESS.match(text):
            trace.process, trace.pid, start = match[1], int(match[2]), number + 1
        elif text.startswith(_STATE):
            trace.running, start = True, number + 1
        elif not text:
            start = number + 1
    heads = [(rank, at, match) for at in range(start, len(said)) for rank, match in _heads(said[at].strip())]
    if not heads:
        trace.throwables.append(_Throwable(None))
        return trace
    best = max(rank for rank, _, _ in heads)
    candidates = [(at, match) for rank, at, match in heads if rank == best]
    at, match = candidates[0 if best > _DOTTED else -1]
    if best == _THREAD:
        trace.thread, trace.uncaught = match["thread"], True
    value = "\n".join([match["value"] or "", *said[at + 1 :]]).strip()[:_MAX_VALUE]
    trace.throwables.append(_Throwable(match["type"], value))
    return trace


_LOGGED, _DOTTED, _NAMED, _THREAD = range(4)
"""How sure it is that a line tells of an exception; a message goes on below the surer ones."""


def _heads(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    match = _THROWABLE.fullmatch(text)
    if match is None:
        if (later := _LATER.fullmatch(text)) is not None:
            yield _LOGGED, later
        return
    name = match["type"]
    if match["thread"] is not None:
        yield _THREAD, match
    elif name.endswith(("Exception", "Error", "Throwable")):
        yield _NAMED, match
    elif "." in name:
        yield _DOTTED, match


# -- frames ------------------------------------------------------------------------------------------------------------


def parse_frame(line: str) -> Frame | None:
    """Return the frame that ``at class.method(file:line)`` is, None for any other line.

    Other languages have lines much like it: JavaScript's have a space before the bracket, .NET's have parameters or
    nothing in it.
    """
    match = _FRAME.fullmatch(line)
    if match is None or match[1][-1].isspace() or "," in match[2]:
        return None
    qualified = _LOADER.sub("", match[1].strip(), count=1)
    class_name, dot, method = qualified.rpartition(".")
    if not dot or not class_name or not method or " " in class_name:
        return None
    place = match[2].strip()
    where = _PLACE.fullmatch(place)
    if where is None:
        return None
    file, line_number = where[1] or None, int(where[2]) if where[2] else None
    if file in _NO_FILE:
        file = None
    elif " " in place and line_number is None:
        return None
    return java_frame(class_name, method, file, line_number)


def java_frame(class_name: str, method: str, file: str | None = None, line: int | None = None) -> Frame:
    """Return a frame of Java as a report gives it; line 0 is none."""
    return Frame(
        status="symbolicated", module=class_name, function=method, filename=file, lineno=line or None, lang="java"
    )
