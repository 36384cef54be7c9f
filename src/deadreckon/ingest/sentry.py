"""Sentry's ingestion: the store, envelope and minidump endpoints of a project.

Specification: Sentry's "Store Endpoint", "Envelopes", "Minidumps", "Rate Limiting" and "Authentication". A key is in
the header ``X-Sentry-Auth``, in the query as ``sentry_key``, or in the ``dsn`` of an envelope's header. Errors are JSON
with ``detail`` and ``causes``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from deadreckon.errors import DeadreckonError, LimitExceeded
from deadreckon.ingest.model import Answer, File, Job, body_of, digest, json_answer, later
from deadreckon.reports import payload
from deadreckon.reports.sentry import dump, envelope
from deadreckon.wire import encoding, multipart

if TYPE_CHECKING:
    from collections.abc import Callable

    from deadreckon.ingest.model import Access, Grant, Profile, Request

__all__ = ["SCOPE", "Dsn", "auth_fields", "parse_dsn", "receive"]

SCOPE = "event:write"
"""What a key of a DSN allows: to send."""
_PAIR = re.compile(r"(sentry_\w{1,32})\s*=\s*([^\s,]*)")
_DSN = re.compile(r"(https?)://([^:@/\s]+)(?::([^@/\s]*))?@([^/\s]+)((?:/[^/\s]+)*)/([0-9A-Za-z_-]+)/?")
_TELLING = frozenset({"event", "transaction", "attachment", "unreal_report"})


class Dsn(NamedTuple):
    """The parts of ``{protocol}://{public_key}:{secret_key}@{host}{path}/{project_id}``."""

    protocol: str
    public_key: str
    secret_key: str | None
    host: str
    path: str
    project: str


def parse_dsn(text: str) -> Dsn | None:
    """Take a DSN apart, None where it is none."""
    match = _DSN.fullmatch(text.strip()[:4096])
    return Dsn(match[1], match[2], match[3] or None, match[4], match[5], match[6]) if match else None


def auth_fields(header: str) -> dict[str, str]:
    """Return the fields of an ``X-Sentry-Auth`` header, also of one that is folded over lines."""
    scheme, _, rest = header.strip()[:16_384].partition(" ")
    if scheme.lower() != "sentry":
        return {}
    return {name: unquote(value) for name, value in _PAIR.findall(rest)}


def receive(request: Request, access: Access, profile: Profile) -> Job | Answer | None:
    """Return a request's job or answer, None for a path that is not Sentry's."""
    parts = request.parts
    if len(parts) != 3 or parts[0] != "api" or parts[2] not in _ENDPOINTS:
        return None
    if request.method != "POST":
        return _error(405, "method not allowed", Allow="POST")
    fields = auth_fields(request.header("x-sentry-auth")) or auth_fields(request.header("authorization"))
    key = fields.get("sentry_key") or request.query.get("sentry_key")
    return _ENDPOINTS[parts[2]](request, access, profile, parts[1], key)


def _refusal(access: Access, key: str | None, project: str) -> Answer | Grant:
    if not key:
        return _error(401, "missing authorization information")
    grant = access.grant("sentry", key, project)
    if grant is None or SCOPE not in grant.scopes:
        return _error(403, "event submission rejected with_reason: ProjectId")
    if grant.retry_after is not None:
        answer = later(_error(429, "Sentry dropped data due to a quota or internal rate limit being reached."), grant)
        answer.headers["X-Sentry-Rate-Limits"] = f"{answer.headers['Retry-After']}:default;error:key"
        return answer
    return grant


def _store(request: Request, access: Access, profile: Profile, project: str, key: str | None) -> Job | Answer:
    refused = _refusal(access, key, project)
    if isinstance(refused, Answer):
        return refused
    try:
        body = body_of(request, profile.sentry_store_sent, profile.sentry_store_decoded)
        if body.lstrip()[:1] != b"{":
            body = encoding.recognised(body, profile.sentry_store_decoded)
        if not body.strip():
            return _error(400, "empty request body")
        told = payload.object_of(body, "event")
    except LimitExceeded as e:
        return _too_large(e)
    except DeadreckonError as e:
        return _error(400, "failed to parse event", str(e))
    found = payload.event_id(told.get("event_id")) or digest(body)[:32]
    return Job("sentry", [File("event.json", body)], json_answer(200, {"id": found}), "sentry-event", project, found)


def _envelope(request: Request, access: Access, profile: Profile, project: str, key: str | None) -> Job | Answer:
    try:
        body = body_of(request, profile.sentry_envelope_sent, profile.sentry_envelope_decoded)
        if not body.strip():
            return _refused_first(access, key, project) or _error(400, "empty envelope")
        if body[:1] != b"{":
            body = encoding.recognised(body, profile.sentry_envelope_decoded)
        told = envelope.parse(body)
    except LimitExceeded as e:
        return _too_large(e)
    except DeadreckonError as e:
        return _refused_first(access, key, project) or _error(400, "invalid event envelope", str(e))
    dsn = parse_dsn(payload.text(told.header.get("dsn")) or "")
    refused = _refusal(access, key or (dsn.public_key if dsn is not None and dsn.project == project else None), project)
    if isinstance(refused, Answer):
        return refused
    if told.problem is not None and not told.items:
        return _error(400, "invalid event envelope", str(told.problem))
    found = payload.event_id(told.header.get("event_id"))
    if not any(item.type in _TELLING for item in told.items):
        return json_answer(200, {"id": found} if found else {})
    event = next((item for item in told.items if item.type in {"event", "transaction"}), None)
    if event is None and not any(bytes(item.data[:4]) == b"MDMP" for item in told.items):
        # Attachments of an event that comes, or came, by itself.
        return json_answer(200, {"id": found} if found else {})
    if event is not None:
        try:
            inner = payload.object_of(event.data, "event")
        except LimitExceeded as e:
            return _too_large(e)
        except DeadreckonError as e:
            return _error(400, "invalid event envelope", str(e))
        found = found or payload.event_id(inner.get("event_id"))
    found = found or digest(body)[:32]
    return Job("sentry", [File("envelope", body)], json_answer(200, {"id": found}), "sentry-envelope", project, found)


def _minidump(request: Request, access: Access, profile: Profile, project: str, key: str | None) -> Job | Answer:
    refused = _refusal(access, key, project)
    if isinstance(refused, Answer):
        return refused
    try:
        body = body_of(request, profile.sentry_minidump_sent, profile.sentry_minidump_decoded)
        found = digest(body)[:32]
        kind, name = "sentry-minidump", "minidump.form"
        boundary = multipart.boundary_of(request.header("content-type"))
        if boundary is None and bytes(body[:4]) == b"MDMP":
            kind, name = "minidump", "minidump.dmp"  # Taken as it is, without a form.
        else:
            form = multipart.parse(body, boundary)
            if form.first(dump.DUMP_FIELD) is None:
                return _error(400, "missing minidump")
            if not _plausible(bytes(form.first(dump.DUMP_FIELD).data[:6])):  # type: ignore[union-attr]
                return _error(400, "invalid minidump")
            found = payload.event_id(dump.event_data(form).get("event_id")) or found
    except LimitExceeded as e:
        return _too_large(e)
    except DeadreckonError as e:
        return _error(400, "failed to read multipart payload", str(e))
    spelled = f"{found[:8]}-{found[8:12]}-{found[12:16]}-{found[16:20]}-{found[20:]}"
    answer = Answer(200, spelled.encode(), {"Content-Type": "text/plain; charset=utf-8"})
    return Job("sentry", [File(name, body)], answer, kind, project, found)


def _plausible(head: bytes) -> bool:
    """Tell a minidump, or one that is compressed, as uploaders may send it."""
    return head.startswith((b"MDMP", b"PMDM", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"))


def _refused_first(access: Access, key: str | None, project: str) -> Answer | None:
    refused = _refusal(access, key, project)
    return refused if isinstance(refused, Answer) else None


def _too_large(error: LimitExceeded) -> Answer:
    return _error(413, "envelope exceeded size limits", str(error))


def _error(status: int, detail: str, *causes: str, **headers: str) -> Answer:
    return json_answer(status, {"detail": detail, "causes": list(causes)}, **headers)


_ENDPOINTS: dict[str, Callable[[Request, Access, Profile, str, str | None], Job | Answer]] = {
    "store": _store,
    "envelope": _envelope,
    "minidump": _minidump,
}
