"""Rollbar's API: items, and what else its clients ask for.

Specification: Rollbar's "Items" and "API overview". All answers are JSON with ``err``; a request that can't be parsed
gets 400, one whose item is wrong 422 with a ``message``, a token that is missing or of the wrong scope 403.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from deadreckon.errors import DeadreckonError, LimitExceeded
from deadreckon.ingest.model import Answer, File, Job, body_of, digest, json_answer, later
from deadreckon.reports import rollbar
from deadreckon.reports.payload import event_id
from deadreckon.wire import multipart

if TYPE_CHECKING:
    from deadreckon.ingest.model import Access, Grant, Profile, Request

__all__ = ["CLIENT_PLATFORMS", "allowed", "problem_of", "receive"]

CLIENT_PLATFORMS = frozenset({"browser", "flash", "android", "ios", "mobile"})
"""Platforms whose programs anyone can read, and the token in them."""
_NEEDED = {"GET": "read", "PATCH": "write", "DELETE": "write"}


def receive(request: Request, access: Access, profile: Profile) -> Job | Answer | None:
    """Return a request's job or answer, None for a path that is not Rollbar's."""
    parts = request.parts
    if parts[:2] != ["api", "1"] or len(parts) < 3:
        return None
    if parts[2:] == ["status", "ping"]:
        return (
            Answer(200, b"pong", {"Content-Type": "text/plain"})
            if request.method == "GET"
            else _error(404, "not found")
        )
    if parts[2:] == ["item"] and request.method == "POST":
        return _item(request, access, profile)
    if parts[2] in {"sourcemap", "deploy"} and request.method == "POST":
        return _upload(request, access, profile, parts[2])
    if parts[2] not in {"item", "items", "occurrence", "instance", "instances", "deploy", "deploys", "project"}:
        return None
    refused = _refusal(_granted(request, access, None), request.method, parts[2])
    return refused if isinstance(refused, Answer) else _error(404, "not found")


def allowed(scopes: frozenset[str], method: str, resource: str, platform: str | None, *, strict: bool = True) -> bool:
    """Tell whether a token's scopes allow a request: ``platform`` is that of an item.

    With ``strict``, items of client platforms need ``post_client_item``, as the Items API says; without, a server's
    token will do, as the overview does.
    """
    if method != "POST":
        return _NEEDED.get(method) in scopes
    if resource != "item":
        return "post_server_item" in scopes
    if platform is not None and platform.lower() in CLIENT_PLATFORMS:
        return "post_client_item" in scopes or (not strict and "post_server_item" in scopes)
    return "post_server_item" in scopes


def _item(request: Request, access: Access, profile: Profile) -> Job | Answer:
    try:
        body = body_of(request, profile.rollbar_sent, profile.rollbar_decoded)
        if not body.strip():
            return _error(400, "no JSON payload was found")
        told = rollbar.document(body)
    except LimitExceeded as e:
        return _error(413, f"request entity too large: {e}")
    except DeadreckonError as e:
        return _error(400, f"the payload could not be decoded: {e}")
    data = told.get("data")
    item: dict[str, Any] = data if isinstance(data, dict) else {}
    platform = item.get("platform")
    grant = _granted(request, access, told.get("access_token"))
    refused = _refusal(
        grant, "POST", "item", platform if isinstance(platform, str) else None, strict=profile.strict_tokens
    )
    if not isinstance(refused, str):
        return refused
    if problem := problem_of(told):
        return _error(422, problem)
    file = body
    if body.lstrip()[:1] != b"{" or _with_peer(item, request.peer):
        file = msgspec.json.encode({name: value for name, value in told.items() if name != "access_token"})
    found = event_id(item.get("uuid")) or digest(file)[:32]
    spelled = f"{found[:8]}-{found[8:12]}-{found[12:16]}-{found[16:20]}-{found[20:]}"
    answer = json_answer(200, {"err": 0, "result": {"id": None, "uuid": spelled}})
    return Job("rollbar", [File("item.json", file)], answer, "rollbar", refused or None, found)


def problem_of(told: dict[str, Any]) -> str | None:
    """Return what is wrong with an item that is JSON, None for nothing."""
    data = told.get("data")
    if not isinstance(data, dict):
        return "data: required, an object"
    environment = data.get("environment")
    if not isinstance(environment, str) or not environment or len(environment) > 255:
        return "data.environment: required, a string of up to 255 characters"
    body = data.get("body")
    if not isinstance(body, dict):
        return "data.body: required, an object"
    kinds = [name for name in rollbar.BODIES if body.get(name) is not None]
    if len(kinds) != 1:
        return f"data.body: exactly one of {', '.join(rollbar.BODIES)} is required, got {', '.join(kinds) or 'none'}"
    value = body[kinds[0]]
    if kinds[0] == "trace_chain":
        if not isinstance(value, list) or not value:
            return "data.body.trace_chain: required, a list of traces"
        return next((p for n, t in enumerate(value) if (p := _trace_problem(t, f"trace_chain.{n}"))), None)
    if kinds[0] == "trace":
        return _trace_problem(value, "trace")
    if not isinstance(value, dict):
        return f"data.body.{kinds[0]}: an object"
    if kinds[0] == "message" and not isinstance(value.get("body"), str):
        return "data.body.message.body: required, a string"
    return None


def _trace_problem(trace: Any, at: str) -> str | None:
    if not isinstance(trace, dict):
        return f"data.body.{at}: an object"
    frames = trace.get("frames")
    if not isinstance(frames, list):
        return f"data.body.{at}.frames: required, a list"
    if any(not isinstance(f, dict) or "filename" not in f for f in frames):
        return f"data.body.{at}.frames: each is an object with a filename"
    thrown = trace.get("exception")
    if not isinstance(thrown, dict) or not isinstance(thrown.get("class"), str):
        return f"data.body.{at}.exception.class: required, a string"
    return None


def _with_peer(item: dict[str, Any], peer: str | None) -> bool:
    """Put the address that a request came from where the client asks for it; tell whether it does."""
    told = item.get("request")
    if not isinstance(told, dict) or told.get("user_ip") != "$remote_ip" or not peer:
        return False
    told["user_ip"] = peer
    return True


def _upload(request: Request, access: Access, profile: Profile, resource: str) -> Job | Answer:
    fields: dict[str, str] = {}
    files: list[File] = []
    try:
        body = body_of(request, profile.backtrace_sent, profile.backtrace_decoded)
        if boundary := multipart.boundary_of(request.header("content-type")):
            for part in multipart.parse(body, boundary).parts:
                if part.filename is None:
                    fields[part.name] = part.text[:65_536]
                else:
                    files.append(File(part.filename or part.name, part.data, "sourcemap"))
        elif body.lstrip()[:1] == b"{":
            fields = {k: v for k, v in rollbar.document(body).items() if isinstance(v, str)}
        else:
            fields = multipart.fields_of(body)
    except LimitExceeded as e:
        return _error(413, f"request entity too large: {e}")
    except DeadreckonError as e:
        return _error(400, str(e))
    project = _refusal(_granted(request, access, fields.pop("access_token", None)), "POST", resource)
    if not isinstance(project, str):
        return project
    if resource == "sourcemap" and not files:
        return _error(422, "source_map: required, a file")
    answer = json_answer(200, {"err": 0, "result": {}})
    return Job("rollbar", files, answer, None, project or None, None, fields) if files else answer


def _granted(request: Request, access: Access, in_payload: Any) -> Grant | None:
    """Return what the token allows: the header's, else the payload's, else the query's."""
    for token in (request.header("x-rollbar-access-token"), in_payload, request.query.get("access_token")):
        if isinstance(token, str) and token:
            return access.grant("rollbar", token, None)
    return None


def _refusal(
    grant: Grant | None, method: str, resource: str, platform: str | None = None, *, strict: bool = True
) -> Answer | str:
    """Return the answer to a request that is not allowed, else the project that it is for."""
    if grant is None:
        return _error(403, "access token is missing or not known")
    if not allowed(grant.scopes, method, resource, platform, strict=strict):
        return _error(403, "insufficient privileges: the access token's scopes do not allow this")
    if grant.retry_after is not None:
        return later(_error(429, "rate limit reached"), grant)
    return grant.project or ""


def _error(status: int, message: str) -> Answer:
    return json_answer(status, {"err": 1, "message": message})
