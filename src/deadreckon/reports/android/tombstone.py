"""Tombstones of Android's debuggerd, in either form, and native backtraces in logs, into RawCrashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.reports import java
from deadreckon.reports.android.dump import crash_of
from deadreckon.reports.android.proto import read_proto
from deadreckon.reports.android.text import read_text
from deadreckon.reports.textlog.lines import read_lines

if TYPE_CHECKING:
    from mmap import mmap

    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["read"]

_CONTROL = frozenset(range(0x20)) - frozenset(b"\t\n\r\x1b")
_TELLING_BYTES = 512
_FIRST_TAGS = (b"\x08", b"\x12")
"""Fields 1 and 2 of the message: debuggerd writes them in order."""
_FATAL = "FATAL EXCEPTION"


def read(data: bytes | memoryview | mmap, limits: ReportLimits) -> list[RawCrash]:
    """Read a tombstone, or all crashes of a log. Raises Malformed where there is none, LimitExceeded beyond a limit."""
    if len(data) > limits.max_bytes:
        raise LimitExceeded("max_bytes", limits.max_bytes, len(data), "tombstone")
    if _is_text(bytes(data[:_TELLING_BYTES])):
        return _log(data, limits)
    return [crash_of(read_proto(memoryview(data), limits), limits.max_modules)]


def _is_text(start: bytes) -> bool:
    if start[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return True
    return start[:1] not in _FIRST_TAGS and sum(byte in _CONTROL for byte in start) * 8 <= len(start)


def _log(data: bytes | memoryview | mmap, limits: ReportLimits) -> list[RawCrash]:
    """Read a text: its native crashes, then the exceptions of Java that ended a process of the same log."""
    lines, problems = read_lines(data)
    found = [crash_of(dump, limits.max_modules) for dump in read_text(lines, limits)]
    if any(_FATAL in line for line in lines):
        found += [java.crash_of(trace) for trace in java.traces(lines) if trace.uncaught]
    if not found:
        raise Malformed("tombstone", expected="a frame, a thread or a signal", got=f"{len(lines)} lines without")
    found[0].diagnostics[:0] = problems
    return found
