"""A crash report inside another document: an attachment of an envelope, a file of a form, a text in a payload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deadreckon import reports
from deadreckon.config import ArchiveLimits
from deadreckon.errors import UnknownFormat

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash
    from deadreckon.model.event import Diagnostic

__all__ = ["overlay", "read_enclosed"]

_FORMS = frozenset({"sentry-envelope", "sentry-minidump", "backtrace-form"})
"""What holds reports itself, and is not looked for inside another."""
_OVERLAID = ("event_id", "level", "message", "title", "grouping", "release", "environment", "process_name")


def read_enclosed(
    data: bytes | memoryview, name: str | None, limits: ReportLimits, archives: ArchiveLimits | None = None
) -> list[RawCrash]:
    """Read a report that is a part of another document, also a compressed one.

    Raises UnknownFormat where it is none, else what its reader raises.
    """
    probe = reports.Probe(data, name)
    form = reports.detect(probe)
    if form is not None and form.name not in _FORMS:
        return reports.read(form, memoryview(data), limits)
    from deadreckon.wire import archive  # noqa: PLC0415  (most are not compressed)

    if form is None and archive.sniff(probe.head) is not None:
        problems: list[Diagnostic] = []
        for member in archive.unpack(data, archives or ArchiveLimits(), name=name or "file", problems=problems):
            inner = reports.detect(reports.Probe(member.data, member.name))
            if inner is not None and inner.name not in _FORMS:
                found = reports.read(inner, memoryview(member.data), limits)
                for crash in found:
                    crash.diagnostics[:0] = problems
                return found
    raise UnknownFormat(f"{name or 'the file'} is no crash report; it starts with {bytes(probe.head[:16])!r}")


def overlay(crash: RawCrash, told: RawCrash) -> None:
    """Add what a client says beside a crash report: its own words count, the report's stacks and modules stay."""
    for name in _OVERLAID:
        if (value := getattr(told, name)) is not None:
            setattr(crash, name, value)
    for name in ("os_name", "os_version", "os_build", "timestamp", "uptime_s", "pid"):
        if getattr(crash, name) is None:
            setattr(crash, name, getattr(told, name))
    for name in ("tags", "user", "request", "attributes"):
        setattr(crash, name, getattr(crash, name) | getattr(told, name))
    crash.mappings += told.mappings
    crash.diagnostics += told.diagnostics
