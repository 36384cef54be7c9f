"""Reports of CASR (``.casrep``): JSON with the text that a sanitizer, gdb or Python's interpreter gave, and its stack.

Source: CASR's ``libcasr::report::CrashReport``.
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.errors import LimitExceeded, Malformed
from deadreckon.model.crash import Module, RawCrash, RawException, RawThread
from deadreckon.model.ids import Arch
from deadreckon.model.registers import Registers
from deadreckon.reports import gotrace, pythontrace
from deadreckon.reports.textlog.modules import Images, mapped
from deadreckon.reports.textlog.reading import crashes_of, frames_of
from deadreckon.reports.textlog.stacks import find_stacks, frames_lost

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits

__all__ = ["read"]

_TEXTS = ("AsanReport", "UbsanReport", "MsanReport", "RustReport")
_MAP = re.compile(
    r"(?:([0-9a-f]{1,16})-([0-9a-f]{1,16}) [r-][w-][x-][ps] [0-9a-f]+ \S+ \d+"  # /proc/PID/maps
    r"|\s*0x([0-9a-f]{1,16})\s+0x([0-9a-f]{1,16})\s+0x[0-9a-f]+\s+0x[0-9a-f]+(?:\s+[rwxps-]{3,5})?)\s+(/.*)"  # gdb's
)
_MAX_LINES = 100_000


def read(data: memoryview, limits: ReportLimits) -> RawCrash:
    """Read a report. Raises Malformed where it is no JSON object of the kind."""
    if len(data) > min(limits.max_bytes, _MAX_BYTES):
        raise LimitExceeded("max_bytes", min(limits.max_bytes, _MAX_BYTES), len(data), "CASR report")
    try:
        report = msgspec.json.decode(bytes(data), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Malformed("CASR report", expected="a JSON object", got=str(e)) from e
    crash = _stack(report, limits)
    severity = report.get("CrashSeverity")
    if isinstance(severity, dict):
        kind, said = _text(severity, "ShortDescription"), _text(severity, "Description")
        if kind and not crash.exceptions:
            crash.exceptions.append(RawException(kind, said, mechanism="casr"))
        crash.attributes |= {k: v for k, v in (("severity", _text(severity, "Type")), ("severity_kind", kind)) if v}
    crash.format, crash.level = "casr", "fatal"
    crash.os_name, crash.os_version = _text(report, "OS") or None, _text(report, "OSRelease") or None
    if crash.arch is Arch.UNKNOWN:
        crash.arch = Arch.parse(_text(report, "Architecture"))
    crash.process_name = os.path.basename(_text(report, "ExecutablePath")) or None
    for name, key in (("cmdline", "ProcCmdline"), ("crash_line", "CrashLine"), ("uname", "Uname")):
        if text := _text(report, key):
            crash.attributes[name] = text[: limits.max_string_bytes]
    try:
        crash.timestamp = datetime.fromisoformat(_text(report, "Date")).timestamp()
    except (ValueError, OverflowError):
        pass
    if not crash.modules:
        crash.modules = _maps(_lines(report, "ProcMaps"), limits)
    _registers(crash, report.get("Registers"))
    return crash


_MAX_BYTES = 64 << 20


def _stack(report: dict[str, Any], limits: ReportLimits) -> RawCrash:
    """Read the tool's own text, which says most; else the list of frames that CASR took from it."""
    for key in _TEXTS:
        if (lines := _lines(report, key)) and (found := crashes_of(lines, limits, "casr")):
            return found[0]
    for key, read_text in (("PythonReport", pythontrace.read), ("GoReport", gotrace.read)):
        if lines := _lines(report, key):
            try:
                return read_text(memoryview("\n".join(lines).encode("utf-8", "replace")), limits)
            except Malformed:
                continue
    crash = RawCrash("casr")
    lines = _lines(report, "Stacktrace")
    stacks = find_stacks(lines)
    crash.diagnostics += frames_lost(stacks)
    images = Images.of((), (f for s in stacks for f in s.frames), limits.max_modules)
    crash.modules = images.modules()
    for number, stack in enumerate(stacks[:1]):
        crash.threads.append(RawThread(number, crashed=True, frames=frames_of(stack, images)))
    return crash


def _registers(crash: RawCrash, values: object) -> None:
    if not isinstance(values, dict) or not crash.threads or crash.arch is Arch.UNKNOWN:
        return
    known = {k: v for k, v in values.items() if isinstance(k, str) and type(v) is int and 0 <= v < 1 << 64}
    if known:
        crash.threads[0].registers = Registers.from_mapping(crash.arch, known)


def _maps(lines: list[str], limits: ReportLimits) -> list[Module]:
    """Read /proc/PID/maps or gdb's form of it: files, from their first mapping to their last."""
    spans: dict[str, tuple[int, int]] = {}
    for line in lines:
        if match := _MAP.match(line):
            start, end, path = int(match[1] or match[3], 16), int(match[2] or match[4], 16), match[5].strip()
            low, high = spans.get(path, (start, end))
            spans[path] = min(low, start), max(high, end)
    return mapped(spans, limits.max_modules)


def _lines(report: dict[str, Any], key: str) -> list[str]:
    found = report.get(key)
    return [line for line in found[:_MAX_LINES] if isinstance(line, str)] if isinstance(found, list) else []


def _text(report: dict[str, Any], key: str) -> str:
    found = report.get(key)
    return found if isinstance(found, str) else ""
