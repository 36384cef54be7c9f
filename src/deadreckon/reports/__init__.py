"""Crash inputs: bytes to a RawCrash. This is the registry: one ordered table, each reader imported when it matches."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from deadreckon.errors import UnknownFormat
from deadreckon.reports import sniff
from deadreckon.reports.probe import HEAD_BYTES, Probe
from deadreckon.telemetry import staged

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["FORMATS", "HEAD_BYTES", "Probe", "ReportFormat", "detect", "hinted", "read"]


@dataclass(frozen=True, slots=True)
class ReportFormat:
    """One kind of crash input.

    The module has ``read(data: memoryview, limits: ReportLimits)``, which returns a RawCrash, or a list of them where
    the format holds several.
    """

    name: str
    module: str
    sniff: Callable[[Probe], bool]
    suffix: str = ""
    """A file name's ending, where content of nobody's format must reach the reader for what it has to say of it."""
    log: bool = False
    """A text in which a crash stands among other lines: an attachment, where an archive has a report beside it."""


FORMATS: tuple[ReportFormat, ...] = (
    ReportFormat("minidump", "deadreckon.reports.minidump", sniff.minidump),
    ReportFormat("elfcore", "deadreckon.reports.elfcore", sniff.elfcore),
    ReportFormat("plcrash", "deadreckon.reports.plcrash", sniff.plcrash),
    ReportFormat("btt", "deadreckon.reports.btt", sniff.btt, ".btt"),
    ReportFormat("backtrace-json", "deadreckon.reports.backtrace", sniff.backtrace_json),
    ReportFormat("sentry-minidump", "deadreckon.reports.sentry.dump", sniff.sentry_minidump),
    ReportFormat("backtrace-form", "deadreckon.reports.backtrace.form", sniff.backtrace_form),
    ReportFormat("sentry-envelope", "deadreckon.reports.sentry.envelope", sniff.sentry_envelope),
    ReportFormat("rollbar", "deadreckon.reports.rollbar", sniff.rollbar),
    ReportFormat("posthog", "deadreckon.reports.posthog", sniff.posthog),
    ReportFormat("sentry-event", "deadreckon.reports.sentry.store", sniff.sentry_event),
    ReportFormat("apple-ips", "deadreckon.reports.apple.ips", sniff.apple_ips),
    ReportFormat("apple-panic", "deadreckon.reports.apple.kernel", sniff.apple_panic),
    ReportFormat("kscrash", "deadreckon.reports.apple.kscrash", sniff.kscrash),
    ReportFormat("metrickit", "deadreckon.reports.apple.metrickit", sniff.metrickit),
    ReportFormat("apple-crash", "deadreckon.reports.apple.text", sniff.apple_crash),
    ReportFormat("unreal", "deadreckon.reports.unreal", sniff.unreal),
    ReportFormat("casr", "deadreckon.reports.casr", sniff.casr),
    ReportFormat("microdump", "deadreckon.reports.microdump", sniff.microdump, log=True),
    ReportFormat("tombstone", "deadreckon.reports.android.tombstone", sniff.tombstone),
    ReportFormat("anr", "deadreckon.reports.android.anr", sniff.anr),
    ReportFormat("hs_err", "deadreckon.reports.hotspot", sniff.hs_err, log=True),
    ReportFormat("java", "deadreckon.reports.java", sniff.java, log=True),
    ReportFormat("sanitizer", "deadreckon.reports.sanitizer", sniff.sanitizer, log=True),
    ReportFormat("python", "deadreckon.reports.pythontrace", sniff.python, log=True),
    ReportFormat("go", "deadreckon.reports.gotrace", sniff.go, log=True),
    ReportFormat("rust", "deadreckon.reports.rusttrace", sniff.rust, log=True),
    ReportFormat("kernel", "deadreckon.reports.kernellog", sniff.kernel, log=True),
    ReportFormat("windbg", "deadreckon.reports.windbg", sniff.windbg, log=True),
    ReportFormat("gdb", "deadreckon.reports.gdbtrace", sniff.gdb, log=True),
    ReportFormat("terminate", "deadreckon.reports.terminate", sniff.terminate, log=True),
    ReportFormat("javascript", "deadreckon.reports.javascript", sniff.javascript),
)
"""Most specific first; every known input matches exactly one (tests/reports/test_registry.py)."""


def detect(probe: Probe, kind: str | None = None) -> ReportFormat | None:
    """Return the format named ``kind``, else the one whose content this is, else None.

    Raises UnknownFormat for a ``kind`` that is not in the table.
    """
    if kind:
        for form in FORMATS:
            if form.name == kind:
                return form
        raise UnknownFormat(f"no reader for kind {kind!r}; known: {', '.join(f.name for f in FORMATS)}")
    return next((form for form in FORMATS if form.sniff(probe)), None)


def hinted(name: str | None, kind: str | None = None) -> ReportFormat | None:
    """Return the format that ``kind``, else a file's name, says where content doesn't; None where they say nothing."""
    lowered = (name or "").lower()
    return next(
        (f for f in FORMATS if f.suffix and (kind == f.name or (not kind and lowered.endswith(f.suffix)))), None
    )


@staged("read")
def read(form: ReportFormat, data: bytes | memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read an input's crashes, at least one. Raises ReportError where its header can't be read."""
    found = cast("RawCrash | list[RawCrash]", importlib.import_module(form.module).read(data, limits))
    return found if isinstance(found, list) else [found]
