"""PostHog's capture endpoints, and its error tracking API as far as it is one of permissions and shapes.

Specification: PostHog's "Capture API" and "Error tracking API". Captured events carry their project's key; the API
takes a personal key with scopes. What the API asks for is stored elsewhere: here it becomes an Operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.errors import DeadreckonError, LimitExceeded, Malformed
from deadreckon.grouping.suppression import load_rules
from deadreckon.ingest.model import Answer, File, Job, Operation, body_of, json_answer, later
from deadreckon.reports import payload, posthog
from deadreckon.wire import jsontext

if TYPE_CHECKING:
    from deadreckon.ingest.model import Access, Profile, Request

__all__ = ["CAPTURE", "READ", "WRITE", "receive"]

READ, WRITE = "error_tracking:read", "error_tracking:write"
CAPTURE = "capture"
"""What a project's key allows."""
_PATHS = ({"batch"}, {"capture"}, {"e"}, {"track"}, {"i", "v0", "e"}, {"engage"})
_RULES = "suppression_rules"
_RESOURCES: dict[str, dict[str, tuple[str, str | None]]] = {
    "stack_frames": {"GET": ("list", READ)},
    "symbol_sets": {"GET": ("list", READ), "POST": ("create", WRITE)},
    _RULES: {"GET": ("list", READ), "POST": ("create", WRITE)},
}
_ONE: dict[str, dict[str, tuple[str, str | None]]] = {
    "stack_frames": {"GET": ("retrieve", READ)},
    "symbol_sets": {"GET": ("retrieve", READ)},
    _RULES: {"GET": ("retrieve", READ), "PATCH": ("update", WRITE), "DELETE": ("delete", WRITE)},
}
_SPECIAL: dict[tuple[str, str], dict[str, tuple[str, str | None]]] = {
    ("stack_frames", "batch_get"): {"POST": ("batch_get", READ)},
    (_RULES, "reorder"): {"PATCH": ("reorder", WRITE)},
}
_MAX_IDS = 10_000


def receive(request: Request, access: Access, profile: Profile) -> Job | Operation | Answer | None:
    """Return a request's job, operation or answer, None for a path that is not PostHog's."""
    parts = request.parts
    if set(parts) in _PATHS:
        return _capture(request, access, profile)
    if len(parts) >= 5 and parts[0] == "api" and parts[1] in {"environments", "projects"}:
        if parts[3] == "error_tracking" and parts[4] in _RESOURCES and len(parts) <= 6:
            return _api(request, access, profile, parts[2], parts[4], parts[5] if len(parts) == 6 else None)
        return _error(404, "invalid_request", "not_found", "Endpoint not found.")
    return None


def _capture(request: Request, access: Access, profile: Profile) -> Job | Answer:
    if request.method != "POST":
        return _error(405, "invalid_request", "method_not_allowed", f'Method "{request.method}" not allowed.')
    try:
        body = body_of(request, profile.posthog_sent, profile.posthog_decoded)
        if not body.strip():
            return _error(400, "validation_error", "invalid_payload", "The request has no payload.")
        told = posthog.documents(body)
    except LimitExceeded as e:
        return _error(413, "validation_error", "payload_too_large", str(e))
    except DeadreckonError as e:
        return _error(400, "validation_error", "invalid_payload", f"Malformed request data: {e}")
    grant = access.grant("posthog", _key(told) or "", None)
    if grant is None or CAPTURE not in grant.scopes:
        return _error(401, "authentication_error", "invalid_api_key", "Project API key invalid.")
    if grant.retry_after is not None:
        return later(_error(429, "throttled_error", "throttled", "Request was throttled."), grant)
    if type(told) not in {dict, list}:
        return _error(400, "validation_error", "invalid_payload", "Malformed request data: no events.")
    answer = json_answer(200, {"status": "Ok"})
    events = posthog.exception_events(told)
    if not events:
        return answer
    found = payload.event_id(events[0].get("uuid")) if len(events) == 1 else None
    data = body if body.lstrip()[:1] in {b"{", b"["} else _encoded(told)
    return Job("posthog", [File("events.json", data)], answer, "posthog", grant.project, found)


def _encoded(told: Any) -> bytes:
    """Return a decoded document as JSON again, without the wrapping that it came in."""
    return msgspec.json.encode(payload.kept(told))


def _key(told: Any) -> str | None:
    """Return the key of a request: its own, or its first event's."""
    listed = told if type(told) is list else [told, *payload.sequence(payload.mapping(told).get("batch"))[:1]]
    for value in listed[:2]:
        event = payload.mapping(value)
        for holder in (event, payload.mapping(event.get("properties"))):
            for name in ("api_key", "token", "$token"):
                if found := payload.text(holder.get(name), 256):
                    return found
    return None


def _api(
    request: Request, access: Access, profile: Profile, project: str, resource: str, one: str | None
) -> Operation | Answer:
    methods = _SPECIAL.get((resource, one or "")) or (_RESOURCES if one is None else _ONE)[resource]
    # Of frames, nothing is ever deleted; that is said before anything is asked of the key.
    known = methods.get(request.method)
    if known is None:
        return _error(405, "invalid_request", "method_not_allowed", f'Method "{request.method}" not allowed.')
    action, scope = known
    grant = access.grant("posthog", request.bearer or request.query.get("personal_api_key") or "", project)
    if grant is None:
        return _error(401, "authentication_error", "not_authenticated", "Authentication credentials were not provided.")
    if scope not in grant.scopes and not (scope == READ and WRITE in grant.scopes):
        detail = f"API key missing required scope '{scope}'"
        return _error(403, "authentication_error", "permission_denied", detail)
    if grant.retry_after is not None:
        return later(_error(429, "throttled_error", "throttled", "Request was throttled."), grant)
    special = (resource, one or "") in _SPECIAL
    operation = Operation("posthog", resource, action, project, None if special else one)
    try:
        return _with_parameters(operation, request, profile)
    except LimitExceeded as e:
        return _error(413, "validation_error", "payload_too_large", str(e))
    except DeadreckonError as e:
        return _error(400, "validation_error", "invalid_input", str(e))


def _with_parameters(operation: Operation, request: Request, profile: Profile) -> Operation:
    """Read what an operation is to be done with. Raises Malformed."""
    if request.method == "GET":
        for name in ("limit", "offset"):
            number = request.query.get(name, "0")
            if not (number.isascii() and number.isdecimal() and len(number) < 10):
                raise Malformed(name, expected="a number", got=number[:32])
        operation.parameters = dict(request.query)
        return operation
    if request.method == "DELETE":
        return operation
    body = body_of(request, profile.posthog_sent, profile.posthog_decoded)
    told: Any = jsontext.decode(body, "request") if body.strip() else {}
    if type(told) is not dict:
        raise Malformed("request", expected="a JSON object", got=type(told).__name__)
    if operation.resource == _RULES and operation.action in {"create", "update"}:
        load_rules([told])
    if operation.action == "batch_get":
        # Documented with a frame's own members, which say nothing of which frames are meant.
        ids = told.get("raw_ids", [])
        if type(ids) is not list or len(ids) > _MAX_IDS or not all(type(i) is str for i in ids):
            raise Malformed("raw_ids", expected="a list of texts", got=type(ids).__name__)
    operation.parameters = told
    return operation


def _error(status: int, kind: str, code: str, detail: str) -> Answer:
    return json_answer(status, {"type": kind, "code": code, "detail": detail, "attr": None})
