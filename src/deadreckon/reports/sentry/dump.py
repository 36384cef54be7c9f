"""A minidump and what a Sentry client says beside it: as an item of an envelope, or as files and fields of a form.

Specification: Sentry's "Minidumps". The dump is ``upload_file_minidump``, as Breakpad's and Crashpad's uploaders name
it. The event's data is JSON in ``sentry``, in several fields ``sentry__1``, ``sentry__2`` where uploaders limit the
length of one, or a field for each value: ``sentry[user][id]``. Other fields are its ``extra``, other files attachments.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from deadreckon.errors import ReportError
from deadreckon.model.event import Attachment, Diagnostic
from deadreckon.reports.enclosed import overlay, read_enclosed
from deadreckon.reports.payload import mapping, object_of
from deadreckon.reports.sentry.event import crash_of
from deadreckon.reports.sentry.packed import is_packed, unpacked
from deadreckon.wire import multipart

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash
    from deadreckon.wire.multipart import Form

__all__ = ["DUMP_FIELD", "event_data", "read", "with_dump"]

DUMP_FIELD = "upload_file_minidump"
_MAX_DEPTH = 16
_PATH = re.compile(r"\[([^\[\]]{0,256})\]")
_CHUNK = re.compile(r"sentry__(\d{1,4})")


def read(data: bytes | memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read a form with a minidump. Raises Malformed, LimitExceeded, UnknownFormat where it holds none."""
    form = multipart.parse(data)
    dump = form.first(DUMP_FIELD) or next((p for p in form.parts if bytes(p.data[:4]) == b"MDMP"), form.parts[0])
    crashes = read_enclosed(dump.data, dump.filename, limits)
    problems = [Diagnostic(code="malformed", severity="warning", stage="read", message=str(form.problem))]
    problems = problems if form.problem else []
    try:
        told = event_data(form)
        event = crash_of(told, limits, "sentry-event") if told else None
    except ReportError as e:
        event = None
        problems.append(Diagnostic(code=e.code, severity="warning", stage="read", message=str(e)))
    files = [p for p in form.parts if p is not dump and p.filename is not None]
    packed = [p.data for p in files if is_packed(p.name) or is_packed(p.filename or "")]
    found = with_dump(crashes, event, packed, limits)
    for crash in found:
        crash.diagnostics += problems
        crash.attachments += [
            Attachment(name=p.filename or p.name, size=len(p.data), content_type=p.content_type)
            for p in files
            if not is_packed(p.name) and not is_packed(p.filename or "")
        ]
    return found


def with_dump(
    crashes: list[RawCrash], event: RawCrash | None, packed: list[memoryview], limits: ReportLimits
) -> list[RawCrash]:
    """Return a dump's crashes with what the client says: in an event of its own, or in files of MessagePack."""
    breadcrumbs: list[Any] = []
    for value in (v for data in packed for v in unpacked(data)):
        if type(value) is dict and event is None and "message" not in value and "event_id" in value:
            event = crash_of(value, limits, "sentry-event")
        elif type(value) is dict:
            breadcrumbs.append(value)
    for crash in crashes:
        if event is not None:
            level = event.level if event.level != "error" else None
            overlay(crash, event)
            crash.level = level
        if breadcrumbs:
            crash.attributes.setdefault("breadcrumbs", breadcrumbs)
    return crashes


def event_data(form: Form) -> dict[str, Any]:
    """Return the event that a form's fields spell; fields of no event are its ``extra``. Raises Malformed."""
    told: dict[str, Any] = {}
    chunks: dict[int, str] = {}
    extra: dict[str, Any] = {}
    for part in form.parts:
        if part.filename is not None or part.name == DUMP_FIELD:
            continue
        if part.name == "sentry":
            told |= object_of(part.data, "sentry field")
        elif match := _CHUNK.fullmatch(part.name):
            chunks[int(match[1])] = part.text
        elif part.name.startswith("sentry["):
            _put(told, _PATH.findall(part.name[6:])[:_MAX_DEPTH], part.text)
        elif part.name:
            extra[part.name] = part.text[:65_536]
    if chunks:
        told |= object_of("".join(chunks[n] for n in sorted(chunks)).encode(), "sentry__1 and the like")
    if extra:
        told["extra"] = mapping(told.get("extra")) | extra
    return told


def _put(into: dict[str, Any], path: list[str], value: str) -> None:
    """Put a value at ``[a][b][]``, the last of which appends."""
    at: Any = into
    afterwards: list[str | None] = [*path[1:], None]
    for name, after in zip(path, afterwards, strict=False):
        if type(at) is list:
            if after is None:
                at.append(value)
            return
        if after is None:
            at[name] = value
            return
        inner = at.setdefault(name, [] if after == "" else {})
        if type(inner) not in {dict, list}:
            return
        at = inner
