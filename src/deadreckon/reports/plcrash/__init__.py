"""PLCrashReporter's reports (iOS, tvOS, macOS), of every version, into a RawCrash.

A file is ``plcrash``, a version byte (always 1: the schema grows by fields) and one protobuf message. A dying process
wrote it, and stopped at a size limit: it may be cut anywhere, and lack what comes last, which is some of the images,
the exception and the signal. Specifications: PLCrashReporter's ``PLCrashReport.proto`` and ``PLCrashReport.m``.

Frames are those that the writer listed. A thread's first has the program counter itself; all others, and all of an
NSException's, have return addresses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon.errors import LimitExceeded, Malformed, Unsupported
from deadreckon.model.crash import RawCrash, RawException, RawFrame, RawThread
from deadreckon.model.event import Diagnostic, Frame
from deadreckon.model.registers import REGISTER_SETS, Registers
from deadreckon.reports.plcrash.facts import describe, stopped, text
from deadreckon.reports.plcrash.images import Images
from deadreckon.reports.plcrash.schema import CrashReport
from deadreckon.wire.protobuf import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from deadreckon.config import ReportLimits
    from deadreckon.reports.plcrash.schema import StackFrame, Symbol, Thread

__all__ = ["read"]

_MAGIC, _VERSION = b"plcrash", 1
_MAX_BYTES = 16 << 20
"""Sixteen times what writers allow themselves by default."""
_MAX_FRAMES = 100_000
_WRITER_FRAMES = 512
"""At how many frames of a stack the writer stops."""
_REQUIRED = ("system_info", "application_info", "threads", "binary_images", "signal")
_MANGLED = ("_Z", "_R", "_T", "$s", "$S", "$e", "-[_Tt", "+[_Tt")


def read(data: bytes | memoryview, limits: ReportLimits) -> RawCrash:
    """Read a report, as far as it goes.

    Raises Malformed where there is no header or no crash after it, Unsupported for another version, and LimitExceeded
    for a file larger than 16 MiB or ``max_bytes``.
    """
    view = memoryview(data)
    head = bytes(view[:8])
    if len(head) < 8 or head[:7] != _MAGIC:
        raise Malformed("PLCrashReporter file", offset=0, expected="'plcrash' and a version", got=repr(head))
    if head[7] != _VERSION:
        raise Unsupported(f"PLCrashReporter file of version {head[7]}: only version {_VERSION} is known")
    most = min(_MAX_BYTES, limits.max_bytes)
    if len(view) > most:
        raise LimitExceeded("max_bytes", most, len(view), "PLCrashReporter file")
    wire = Wire(view, len(head), max_text_bytes=limits.max_string_bytes)
    report = wire.read(CrashReport)
    if not (report.threads or report.binary_images or report.signal or report.exception):
        got = f"{len(view)} bytes without" + (f" ({wire.problems[0]})" if wire.problems else "")
        raise Malformed("PLCrashReporter file", offset=len(head), expected="threads, images or a signal", got=got)
    return _Reading(report, limits, wire.diagnostics("PLCrashReporter file")).crash()


class _Reading:
    """A report on its way into a RawCrash."""

    def __init__(self, report: CrashReport, limits: ReportLimits, diagnostics: list[Diagnostic]) -> None:
        self.report = report
        self.limits = limits
        self.diagnostics = diagnostics
        self.images = Images(report, limits.max_modules)
        self.frames = 0
        self.frames_lost = 0

    def crash(self) -> RawCrash:
        """Put the crash together."""
        report, images = self.report, self.images
        crash = RawCrash(
            "plcrash",
            arch=images.arch,
            modules=images.modules,
            address_mask=images.address_mask,
            diagnostics=self.diagnostics,
        )
        describe(crash, report, self.limits.max_string_bytes)
        crash.threads = [self._thread(*numbered) for numbered in enumerate(report.threads[: self.limits.max_threads])]
        crash.exceptions = self._exceptions(crash)
        self._tell()
        return crash

    def _thread(self, number: int, thread: Thread) -> RawThread:
        if thread.thread_number is not None:
            number = thread.thread_number
        frames = self._frames(thread.frames, exact=1)
        if len(frames) >= _WRITER_FRAMES:
            what = f"thread {number} has {len(frames)} frames, where the writer stops; the rest is missing"
            self._note("frame_limit", what, "info")
        return RawThread(number, crashed=bool(thread.crashed), registers=self._registers(thread), frames=frames or None)

    def _frames(self, frames: Sequence[StackFrame], exact: int) -> list[RawFrame]:
        """Return a stack's frames; all but the first ``exact`` have return addresses."""
        listed: list[RawFrame] = []
        for place, frame in enumerate(frames[: max(0, _MAX_FRAMES - self.frames)]):
            if frame.pc is None:
                self.frames_lost += 1
            else:
                said = _reported(frame.symbol) if frame.symbol is not None else None
                listed.append(RawFrame(self.images.code_address(frame.pc), place >= exact, said))
        self.frames += len(frames)
        return listed

    def _registers(self, thread: Thread) -> Registers | None:
        values = {r.name.rstrip("\0"): r.value for r in thread.registers if r.name and r.value is not None}
        if not values or self.images.arch not in REGISTER_SETS:
            return None
        return Registers.from_mapping(self.images.arch, values, keep_others=True)

    def _exceptions(self, crash: RawCrash) -> list[RawException]:
        """Return what stopped the process, then the NSException that led to it."""
        thread = next((t.id for t in crash.threads if t.crashed), None)
        found = []
        if self.report.signal is not None:
            found.append(stopped(self.report.signal, crash))
        if (uncaught := self.report.exception) is not None:
            name, why = text(uncaught.name) or "NSException", text(uncaught.reason) or ""
            frames = self._frames(uncaught.frames, exact=0) or None
            found.append(RawException(name, why, mechanism="nsexception", frames=frames))
        for exception in found:
            exception.thread_id = thread
        return found

    def _tell(self) -> None:
        """Say what is missing, and what was left out."""
        report, images, limits = self.report, self.images, self.limits
        missing = [name for name in _REQUIRED if not getattr(report, name)]
        if missing:
            self._note("malformed", f"no {', no '.join(missing)}")
        for names, code, what in (
            (images.overlapping, "module_overlap", "overlap an earlier one"),
            (images.damaged, "malformed", "have no possible address"),
        ):
            if names:
                listed = ", ".join(n[:100] for n in names[:8])
                self._note(code, f"{len(names)} images {what} and were dropped: {listed}")
        if self.frames_lost:
            self._note("malformed", f"{self.frames_lost} frames have no pc and were dropped")
        for count, most, what in (
            (len(report.binary_images), limits.max_modules, "images"),
            (len(report.threads), limits.max_threads, "threads"),
            (self.frames, _MAX_FRAMES, "frames"),
            (len(report.custom_data or b""), limits.max_string_bytes, "bytes of custom_data"),
        ):
            if count > most:
                self._note("limit_exceeded", f"{count} {what}; the first {most} were kept")

    def _note(self, code: str, message: str, severity: Literal["info", "warning"] = "warning") -> None:
        message = f"PLCrashReporter file: {message}"
        self.diagnostics.append(Diagnostic(code=code, severity=severity, stage="read", message=message))


def _reported(symbol: Symbol) -> Frame | None:
    """Return what the dying process took for the function, as its symbol table names it and as people do."""
    raw = text(symbol.name)
    if raw is None:
        return None
    plain = raw[1:] if len(raw) > 1 and raw[0] == "_" else raw
    return Frame(
        status="symbolicated",
        function=None if plain.startswith(_MANGLED) else plain,
        raw_function=raw,
        symbol_addr=None if symbol.start_address is None else hex(symbol.start_address),
    )
