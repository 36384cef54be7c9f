"""Backtrace's submission API: errors, symbols and source maps, under a hosted or an own host's path.

Specification: Backtrace's "Error Reporting API": ``/<subdomain>/<token>/<format>``, or ``/api/post?<format>&token=``.
A malformed request gets 400, a token that is not known or of the wrong scope 403, an unknown subdomain or a missing
format 503.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deadreckon.errors import DeadreckonError, LimitExceeded
from deadreckon.ingest.model import Answer, File, Job, Operation, body_of, digest, json_answer, later
from deadreckon.reports import payload
from deadreckon.reports.backtrace.form import REPORT_FIELD
from deadreckon.wire import multipart

if TYPE_CHECKING:
    from deadreckon.ingest.model import Access, Grant, Profile, Request

__all__ = ["FORMATS", "SCOPES", "receipt", "receive"]

FORMATS = {"btt": "btt", "json": "backtrace-json", "minidump": "minidump", "plcrash": "plcrash"}
"""Formats of errors, and the readers' names of them."""
SCOPES = {"symbols": "symbol:post", "sourcemap": "symbol:post"} | dict.fromkeys(FORMATS, "error:post")
_OPERATIONS = {("GET", "get"): ("object", "get", "object:get"), ("POST", "query"): ("query", "post", "query:post")}
_TOKEN = re.compile(r"[0-9A-Za-z_.-]{8,256}")
_NOT_ATTRIBUTES = frozenset({"token", "format", "universe", "project"})
_STARTS = {"minidump": (b"MDMP", b"PMDM"), "plcrash": (b"plcrash",)}


def receipt(body: bytes | memoryview) -> str:
    """Return the ``_rxid`` of a submission, which names it in all that follows; made from the body's own digest."""
    hexed = digest(body)
    return f"01000000-{hexed[:4]}-{hexed[4:8]}-0000-{hexed[8:20]}"


def receive(request: Request, access: Access, profile: Profile) -> Job | Operation | Answer | None:
    """Return a request's job or answer, None for a path that is not Backtrace's."""
    parts = request.parts
    if parts[-1:] == ["post"] or (parts[:1] == ["api"] and len(parts) == 2):
        if parts[-1] != "post":
            return _operation(request, access, parts[1])
        # Clients put a path of their own choice before it.
        subdomain, known = (parts[0], parts[1:]) if len(parts) >= 3 else (None, [])
        token = request.query.get("token") or (known[0] if known else None)
        form = request.query.get("format") or next((f for f in request.query if f in SCOPES), None)
        return _submission(request, access, profile, subdomain, token, form)
    if len(parts) == 3 and _TOKEN.fullmatch(parts[1]):
        return _submission(request, access, profile, parts[0], parts[1], parts[2])
    if len(parts) == 2 and _TOKEN.fullmatch(parts[1]) and parts[0] != "api":
        return _submission(request, access, profile, parts[0], parts[1], None)
    return None


def _operation(request: Request, access: Access, name: str) -> Operation | Answer | None:
    known = _OPERATIONS.get((request.method, name))
    if known is None:
        return None
    grant = access.grant("backtrace", request.query.get("token") or "", None)
    if grant is None or known[2] not in grant.scopes:
        return _error(403, "invalid token")
    if grant.retry_after is not None:
        return later(_error(429, "rate limit reached"), grant)
    return Operation("backtrace", known[0], known[1], grant.project, parameters=dict(request.query))


def _submission(
    request: Request, access: Access, profile: Profile, subdomain: str | None, token: str | None, form: str | None
) -> Job | Answer:
    if request.method != "POST":
        return _error(400, "a submission is posted")
    if (subdomain is not None and not access.subdomain(subdomain)) or form not in SCOPES:
        return _error(503, "invalid subdomain or missing format")
    grant = access.grant("backtrace", token or "", None)
    if grant is None or SCOPES[form] not in grant.scopes:
        return _error(403, "invalid token")
    if grant.retry_after is not None:
        return later(_error(429, "rate limit reached"), grant)
    sent = profile.backtrace_symbols if form == "symbols" else profile.backtrace_sent
    try:
        body = body_of(request, sent, max(sent, profile.backtrace_decoded))
        boundary = multipart.boundary_of(request.header("content-type"))
        parsed = multipart.parse(body, boundary) if boundary is not None else None
        if parsed is not None and parsed.problem is not None:
            raise parsed.problem
        return _job(request, grant, form, body, parsed)
    except LimitExceeded as e:
        return _error(413, str(e))
    except DeadreckonError as e:
        return _error(400, f"malformed request: {e}")


def _job(request: Request, grant: Grant, form: str, body: bytes, parsed: multipart.Form | None) -> Job | Answer:
    """Make a job of a submission that is allowed. Raises Malformed, LimitExceeded."""
    attributes = {n: v for n, v in request.query.items() if n not in _NOT_ATTRIBUTES and n not in SCOPES}
    report: bytes | memoryview = body
    fields: dict[str, str] = {}
    if parsed is not None:
        part = parsed.first(REPORT_FIELD)
        if part is None:
            return _error(400, f"malformed request: {REPORT_FIELD} is missing")
        report = part.data
        fields = {p.name: p.text[:65_536] for p in parsed.parts if p.filename is None}
    if not len(report):
        return _error(400, "malformed request: nothing was uploaded")
    if ("_mod_sync" in fields or "_mod_sync" in attributes) and "sync:post" not in grant.scopes:
        return _error(403, "invalid token: it has no scope sync:post")
    rxid = receipt(body)
    answer = json_answer(200, {"response": "ok", "_rxid": rxid})
    attributes["_rxid"] = rxid
    if form in {"symbols", "sourcemap"}:
        attributes |= fields
        name = next((p.filename for p in parsed.parts if p.name == REPORT_FIELD), None) if parsed else None
        file = File(name or form, report, "symbols" if form == "symbols" else "sourcemap")
        return Job("backtrace", [file], answer, None, grant.project, None, attributes)
    event_id = None
    if form == "json":
        event_id = payload.event_id(payload.object_of(report, "report").get("uuid"))
    elif not bytes(report[:8]).startswith(_STARTS.get(form, (b"",))):
        return _error(400, f"malformed request: no {form}")
    kind, name = ("backtrace-form", "submission.form") if parsed is not None else (FORMATS[form], f"report.{form}")
    return Job("backtrace", [File(name, body)], answer, kind, grant.project, event_id, attributes)


def _error(status: int, message: str) -> Answer:
    return json_answer(status, {"response": "error", "error": {"code": status, "message": message}})
