"""A report as it is submitted to Backtrace in a form: ``upload_file``, attachments, and attributes as its other fields.

Specification: Backtrace's "Error Reporting API", "Submit Error". The documents call attachments ``attachment.log``,
clients ``attachment_name``. Fields that begin with ``_mod_`` say what is to be done with the report.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deadreckon.model.event import Attachment, Diagnostic
from deadreckon.reports.backtrace.fields import integer
from deadreckon.reports.enclosed import read_enclosed
from deadreckon.wire import multipart

if TYPE_CHECKING:
    from deadreckon.config import ReportLimits
    from deadreckon.model.crash import RawCrash

__all__ = ["REPORT_FIELD", "is_attachment", "modify", "read"]

REPORT_FIELD = "upload_file"

_ATTACHMENT = re.compile(r"attachments?[._]")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_MAX_VALUE = 65_536


def is_attachment(name: str) -> bool:
    """Tell an attachment by its field's name."""
    return _ATTACHMENT.match(name) is not None


def read(data: bytes | memoryview, limits: ReportLimits) -> list[RawCrash]:
    """Read a form with a report. Raises Malformed, LimitExceeded, UnknownFormat where it holds none."""
    form = multipart.parse(data)
    report = form.first(REPORT_FIELD) or form.parts[0]
    crashes = read_enclosed(report.data, report.filename, limits)
    others = [p for p in form.parts if p is not report]
    files = [p for p in others if p.filename is not None or is_attachment(p.name)]
    fields = {p.name: p.text[:_MAX_VALUE] for p in others if p not in files}
    for crash in crashes:
        crash.attachments += [
            Attachment(name=p.filename or p.name, size=len(p.data), content_type=p.content_type) for p in files
        ]
        modify(crash, dict(list(fields.items())[: limits.max_annotations]))
        if form.problem is not None:
            crash.diagnostics.append(
                Diagnostic(code="malformed", severity="warning", stage="read", message=str(form.problem))
            )
    return crashes


def modify(crash: RawCrash, fields: dict[str, str]) -> None:
    """Add a submission's attributes to a report's own, and do what its modifiers say."""
    for name, value in fields.items():
        if not name.startswith("_mod_"):
            crash.attributes[name] = value
    fingerprint = fields.get("_mod_fingerprint", "").strip()
    if _FINGERPRINT.fullmatch(fingerprint):
        crash.grouping = [fingerprint.lower()]
    faulting = integer(fields.get("_mod_faulting_tid"))
    if faulting is not None and any(t.id == faulting for t in crash.threads):
        for thread in crash.threads:
            thread.crashed = thread.id == faulting
